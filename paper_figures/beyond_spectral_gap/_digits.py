"""The reduced deep-learning set-up of figures 4 to 6: a small network trained by D-SGD on digits or other images.

In place of VGG-11 on CIFAR-10, which needs a GPU: an MLP of one hidden layer (tanh), as for figures 5 and 6 the MLP
64-32-10 (2410 parameters) on the 1797 digits of scikit-learn. As in the paper every worker samples i.i.d. with
replacement from all data, and all start from one point. Networks are float32.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adozoo
from experiments import data

CLASSES = 10


class Setup(NamedTuple):
    """What is trained on what.

    Attributes:
      features: [N, d], float32.
      labels: classes [N].
      hidden: units of the network d-hidden-10.
    """

    features: jax.Array
    labels: jax.Array
    hidden: int


def setup(dataset: data.Dataset, hidden: int) -> Setup:
    features = dataset.features.reshape(len(dataset.labels), -1)
    return Setup(jnp.asarray(features, jnp.float32), jnp.asarray(dataset.labels), hidden)


def digits() -> Setup:
    return setup(data.digits(), hidden=32)


def initial(setup: Setup, key: jax.Array) -> dict[str, jax.Array]:
    size, hidden = setup.features.shape[1], setup.hidden
    first, second = jax.random.split(key)
    return {
        "hidden": jax.random.normal(first, (size, hidden), jnp.float32) / np.float32(size**0.5),
        "hidden_bias": jnp.zeros(hidden, jnp.float32),
        "output": jax.random.normal(second, (hidden, CLASSES), jnp.float32) / np.float32(hidden**0.5),
        "output_bias": jnp.zeros(CLASSES, jnp.float32),
    }


def loss(params: dict[str, jax.Array], features: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy."""
    hidden = jnp.tanh(features @ params["hidden"] + params["hidden_bias"][None])
    logits = hidden @ params["output"] + params["output_bias"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


class Sampler(NamedTuple):
    """What `adozoo.simulate` takes: `sample` draws one step's samples of all workers, `gradient` uses them."""

    sample: Callable[[jax.Array], jax.Array]
    gradient: Callable[..., Any]


def sampler(setup: Setup, workers: int, batch: int) -> Sampler:
    features, labels, _ = setup

    def gradient(params: Any, step: Any, picked: jax.Array) -> Any:
        return jax.vmap(jax.grad(loss))(params, features[picked], labels[picked])

    return Sampler(lambda key: jax.random.randint(key, (workers, batch), 0, len(labels)), gradient)


class Averaged(NamedTuple):
    """A method's state, and the moving average of its params."""

    inner: Any
    average: Any


def averaged(tx: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """The same method, which also keeps e <- decay e + (1 - decay) x, for evaluation only: e starts at x."""

    def init(params: Any) -> Averaged:
        return Averaged(tx.init(params), params)

    def update(grads: Any, state: Averaged, params: Any = None) -> tuple[Any, Averaged]:
        updates, inner = tx.update(grads, state.inner, params)
        moved = optax.apply_updates(params, updates)
        return updates, Averaged(inner, optax.incremental_update(moved, state.average, 1 - decay))

    return optax.GradientTransformation(init, update)


def mixing(name: str, workers: int) -> adozoo.Mixing:
    """The mixing of a topology by its name: a graph's specification, "solo", "one_peer_exponential" or "groups:k"."""
    family, _, size = name.partition(":")
    if family == "solo":
        return adozoo.identity(workers)
    if family == "one_peer_exponential":
        return adozoo.one_peer_exponential(workers)
    if family == "groups":  # disjoint groups of k workers, each with exact averaging
        group = np.full((int(size), int(size)), 1 / int(size))
        return adozoo.mixing(np.kron(np.eye(workers // int(size)), group), require_connected=False)
    return adozoo.mixing(adozoo.graphs.parse(name))
