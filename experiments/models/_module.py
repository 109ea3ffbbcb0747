"""A flax nnx module as pure functions of dict pytrees."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, PyTree

from experiments.models.norms import MOMENTUM


class Model(NamedTuple):
    """One network as pure functions: stack its params and vmap, and it is a network on every node.

    Attributes:
      name: how `experiments.models.named` would spell it.
      init: key -> (params, stats), nested dicts of arrays with names for keys; stats, what batch normalisation has
        gathered, are {} for a network without it. float32.
      apply: (params, stats, inputs, train, key=None) -> (outputs, stats). Batches are leading axes. With `train`,
        batch normalisation takes the batch's own statistics and returns what it has gathered, and dropout draws with
        `key`, which it needs; without, stats come back as they were. Computes in the dtype of params and inputs, and
        returns stats in theirs.
      momentum: the share of the old that an update of the stats keeps.
    """

    name: str
    init: Callable[[Any], tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[Array, PyTree]]
    momentum: float = MOMENTUM


def from_module(name: str, build: Callable[[nnx.Rngs], nnx.Module], momentum: float = MOMENTUM) -> Model:
    """Hand a flax nnx module over as pure functions.

    The module holds `nnx.Param` and `nnx.BatchStat` and nothing else that varies: keys are handed in with each call.
    Lists of layers have numbers for keys, which not all pytree tools take: give layers names.

    Args:
      name: of the model.
      build: rngs -> module, which is called as module(inputs, train, key).
      momentum: of its batch normalisation; `experiments.models.norms.BatchNorm` has the default one.

    Returns:
      The model.

    Raises:
      ValueError: from `init` and `apply`, if the module holds other variables, such as dropout's own keys.

    Example:
      >>> from flax import nnx
      >>> class Scale(nnx.Module):
      ...     def __init__(self, rngs):
      ...         self.factor = nnx.Param(jnp.float32(2.0))
      ...
      ...     def __call__(self, inputs, train, key):
      ...         return self.factor[...] * inputs
      >>> model = from_module("scale", Scale)
      >>> params, stats = model.init(jax.random.key(0))
      >>> params, stats
      ({'factor': Array(2., dtype=float32)}, {})
      >>> model.apply(params, stats, jnp.float32(3.0), train=False)[0]
      Array(6., dtype=float32)
    """

    def split(module: nnx.Module) -> tuple[Any, PyTree, PyTree]:
        graph, params, stats, rest = nnx.split(module, nnx.Param, nnx.BatchStat, ...)
        if jax.tree.leaves(rest):
            held = ", ".join(".".join(map(str, path)) for path, _ in nnx.to_flat_state(rest))
            raise ValueError(
                f"from_module: {name} must hold nnx.Param and nnx.BatchStat only, got {held} as well. Hand keys in by "
                "the call's third argument, dropout(inputs, deterministic=not train, rngs=key)."
            )
        return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def init(key: Any) -> tuple[PyTree, PyTree]:
        return split(build(nnx.Rngs(key)))[1:]

    graphs = []  # filled once: the graph is static, whatever the key

    def graph() -> Any:
        if not graphs:
            graphs.append(split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))[0])
        return graphs[0]

    def apply(params: PyTree, stats: PyTree, inputs: Array, train: bool, key: Any = None) -> tuple[Array, PyTree]:
        # Variables belong to the trace that makes them: without the copy, those made outside of a vmapped gradient
        # could not be written inside of it.
        module = nnx.merge(graph(), nnx.State(params), nnx.State(stats), copy=True)
        outputs = module(inputs, train, key)
        gathered = nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
        return outputs, jax.tree.map(lambda new, old: new.astype(old.dtype), gathered, stats)

    return Model(name, init, apply, momentum)


def size(model: Model) -> int:
    """The number of trainable parameters of one node's model.

    Example:
      >>> from experiments import models
      >>> size(models.resnet20((32, 32, 3), 10))
      272474
    """
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(params))
