r"""One step of an implemented method as a function z -> z', for z = (params, floating-point state) as one vector.

Theory reads a method through this one door: its Jacobians with respect to z and to an additive gradient noise, its
period, its start and its answer. Integers and keys of the state follow the step count and are no part of z.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, PyTree

import adozoo
from adozoo.mixing import Dense, Table

MATRIX_LIMIT = 512
"""Up to this many nodes a table of neighbours is read as a matrix, the same map, which takes less time to compile."""
LONGEST_PERIOD = 64
"""Schedules that repeat after more steps than this are refused."""

Network: TypeAlias = adozoo.Mixing | adozoo.Exchange | nx.Graph
"""What methods talk over; a graph stands for its links."""
Factory: TypeAlias = Callable[[Any], optax.GradientTransformation]


def read(factory: Factory, problem: Any, mix: Network) -> "StepMap":
    """The step of a method on a problem, in float64; call it, and what it returns, inside `jax.enable_x64(True)`.

    The mixing may be an exchange or a networkx graph, for methods that send messages on links.

    Raises:
      ValueError: if the weights of the mixing were rounded to single precision.

    Example:
      >>> problem = adozoo.problems.random_quadratic(3, 2)
      >>> step = theory.step_map.read(
      ...     lambda mix: adozoo.extra(0.1, mix), problem, adozoo.exact_mean(3)
      ... )
      >>> step.size, step.period  # params and EXTRA's correction
      (12, 1)
    """
    problem = jax.tree.map(_double, problem)
    if not isinstance(mix, adozoo.Mixing):  # a graph, or an exchange
        return StepMap(factory, problem, adozoo.exchange(mix))
    mix = jax.tree.map(_double, mix)
    _check_precision(mix)
    if isinstance(mix, Table) and mix.n <= MATRIX_LIMIT:
        mix = Dense(mix.sparse_matrix().toarray(), mix.n, mix.stochastic, mix.symmetric)
    return StepMap(factory, problem, mix)


def is_float(leaf: Any) -> bool:
    """Whether a leaf of params or state is part of z."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


class StepMap:
    """A method on a problem over a mixing, step by step: z is a vector [N], `fixed` the state's integers and keys.

    Attributes:
      start: z before the first step, from `problem.init()`.
      size: N.
      inputs: how many numbers a gradient has, over all nodes.
      leaves: the arrays that z is made of, before the first step.
      fixed: the integers and keys before the first step.
    """

    def __init__(self, factory: Factory, problem: Any, mix: Any):
        self.factory, self.problem, self.mix = factory, problem, mix
        self.tx = self.build(mix)
        params = problem.init()
        flat, self.unravel_params = ravel_pytree(params)
        self.inputs = flat.size
        leaves, self.structure = jax.tree.flatten((params, self.tx.init(params)))
        self.floating = [is_float(leaf) for leaf in leaves]
        self.leaves, self.fixed = self.split(leaves)
        self.history = [self.fixed]
        self.start, self.unravel = ravel_pytree(self.leaves)
        self.size = self.start.size
        self.one_step = jax.jit(self.step)
        # Differentiating the compiled step, not the Python function, traces the method once for all.
        self.jacobians = jax.jit(jax.jacfwd(lambda z, fixed, noise: self.one_step(z, fixed, noise)[0], (0, 2)))
        self.by_state = jax.jit(jax.jacfwd(lambda z, fixed, noise: self.one_step(z, fixed, noise)[0]))
        self.still = jnp.zeros(self.inputs)

    def build(self, mix: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation over a mixing."""
        return optax.with_extra_args_support(self.factory(mix))

    def split(self, leaves: list[Any]) -> tuple[list[Any], list[Any]]:
        """The leaves that belong to z, and the others."""
        pairs = list(zip(leaves, self.floating, strict=True))
        return [x for x, floats in pairs if floats], [x for x, floats in pairs if not floats]

    def assemble(self, z: Any, fixed: list[Any]) -> tuple[PyTree, PyTree]:
        """(params, state) of a vector z."""
        floats, others = iter(self.unravel(z)), iter(fixed)
        return jax.tree.unflatten(self.structure, [next(floats) if mine else next(others) for mine in self.floating])

    def step(self, z: Any, fixed: list[Any], noise: Any = None, mix: Any = None) -> tuple[Any, Any]:
        """(z, fixed) after one step, with `noise` [inputs] added to the gradients, perhaps over another mixing."""
        params, state = self.assemble(z, fixed)
        grads = self.problem.gradient(params, 0, None)
        if noise is not None:
            grads = jax.tree.map(jnp.add, grads, self.unravel_params(noise))
        updates, state = (self.tx if mix is None else self.build(mix)).update(grads, state, params)
        kept, fixed = self.split(jax.tree.leaves((optax.apply_updates(params, updates), state)))
        return ravel_pytree(kept)[0], fixed

    def begin(self, flat_params: Any) -> Any:
        """z before the first step from other params, [inputs] -> [N]."""
        params = self.unravel_params(flat_params)
        return ravel_pytree(self.split(jax.tree.leaves((params, self.tx.init(params))))[0])[0]

    @cached_property
    def guess(self) -> Float[np.ndarray, " N"]:
        """z with all nodes at the problem's optimum."""
        optimum = adozoo.replicate(self.problem.optimum, self.problem.n)
        return np.asarray(self.begin(ravel_pytree(optimum)[0]))

    def generic(self, seed: int) -> Any:
        """A point z without any special property."""
        return jnp.asarray(np.random.default_rng(seed).normal(size=self.size))

    def counts(self, steps: int) -> list[list[Any]]:
        """The integers and keys of the state before each of the first steps."""
        while len(self.history) < steps:
            self.history.append(self.one_step(self.start, self.history[-1], self.still)[1])
        return self.history[:steps]

    @cached_property
    def period(self) -> int:
        """The smallest p such that the step at count t + p does what the one at t does, seen on a generic point.

        Raises:
          ValueError: if there is none up to `LONGEST_PERIOD`.
        """
        z, probes = self.generic(0), np.random.default_rng(1).normal(size=(self.size, 4))
        images = [np.asarray(self.one_step(z, now, self.still)[0]) @ probes for now in self.counts(2 * LONGEST_PERIOD)]
        seen = np.stack(images)
        scale = 1e-12 * (1 + np.abs(seen).max()) * np.sqrt(self.size)
        for p in range(1, LONGEST_PERIOD + 1):
            if np.abs(seen[p:] - seen[:-p]).max() <= scale:
                return p
        raise ValueError(
            f"theory: the method's steps do not repeat within {LONGEST_PERIOD} steps (a random schedule, drops, or a "
            "decaying step size), so that it has no linear rate. Fix the mixing, e.g. mix.at(step); for random mixings "
            "see theory.mean_square_rate."
        )

    def advance(self, z: Any, offset: Any = None) -> Float[np.ndarray, " N"]:
        """z after one period, with an offset [inputs] of all gradients."""
        for now in self.counts(self.period):
            z, _ = self.one_step(z, now, self.still if offset is None else offset)
        return np.asarray(z)

    def phases(self, z: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        """The Jacobians of each step of one period from z, by z and by the gradient: (T_t [N, N], B_t [N, inputs])."""
        jacobians = []
        for now in self.counts(self.period):
            transition, injection = self.jacobians(z, now, self.still)
            jacobians.append((np.asarray(transition), np.asarray(injection)))
            z, _ = self.one_step(z, now, self.still)
        return jacobians

    def jacobian(self, z: Any) -> Float[np.ndarray, "N N"]:
        """The Jacobian T of a whole period, the product of its steps' Jacobians."""
        first, *later = self.counts(self.period)
        product = np.asarray(self.by_state(z, first, self.still))
        for before, now in zip([first, *later], later, strict=False):
            z, _ = self.one_step(z, before, self.still)
            product = np.asarray(self.by_state(z, now, self.still)) @ product
        return product

    def is_affine(self, z: Any, product: Callable[[np.ndarray], Any]) -> bool:
        """Whether a period moves generic points as its Jacobian at z, given by its products with vectors, says."""
        away = np.asarray(self.generic(2))
        moved = self.advance(z + away) - self.advance(z)
        return bool(np.linalg.norm(moved - product(away)) <= 1e-11 * (1 + np.linalg.norm(moved)))

    def seeds(self) -> list[Float[np.ndarray, "N _"]]:
        """What moves z: its first period, and how other initial params, and other gradients, change that.

        Of the changes four generic samples each: they hold every mode that such a change excites at all.
        """
        shifts = jnp.asarray(np.random.default_rng(3).normal(size=(2, 4, self.inputs)))
        flat = ravel_pytree(self.problem.init())[0]
        after = self.advance(self.start)
        first = after - np.asarray(self.start)
        others = [self.begin(flat + shift) for shift in shifts[0]]
        by_params = [self.advance(other) - np.asarray(other) - first for other in others]
        by_gradients = [self.advance(self.start, shift) - after for shift in shifts[1]]
        return [first[:, None], np.stack(by_params, axis=1), np.stack(by_gradients, axis=1)]

    def answer(self, z: Any) -> PyTree:
        """The evaluated params of z, stacked."""
        params, state = self.assemble(jnp.asarray(z), self.fixed)
        return adozoo.eval_params(state, params)

    def answer_jacobian(self, z: Any) -> Float[np.ndarray, "inputs N"]:
        """How the evaluated params depend on z."""
        return np.asarray(jax.jacfwd(lambda z: ravel_pytree(self.answer(z))[0])(jnp.asarray(z)))


def _check_precision(mix: adozoo.Mixing) -> None:
    """Weights rounded to single precision make what a method conserves drift, which would be taken for its rate."""
    if mix.is_mean or mix.stochastic == "row":
        return
    for step in range(getattr(mix, "period", 1) or 0):
        sums = mix.at(step).sparse_matrix().sum(axis=0)
        defect = float(np.abs(sums - 1).max())
        if 1e-10 < defect < 1e-5:
            raise ValueError(
                f"theory: the weights of mix do not sum to one in double precision (column sums are off by up to "
                f"{defect:.1e}): they were rounded to single precision. Build the mixing from a float64 matrix."
            )


def _double(leaf: Any) -> Any:
    return leaf.astype(jnp.float64) if is_float(leaf) else leaf
