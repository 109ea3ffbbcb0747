r"""A method as a linear system with gradients and disagreements as inputs, read off its implementation.

One node, one coordinate. The communication object that the factory is given notes every number z that the method mixes
and hands back z - v, so that the step becomes a map of (state, u, v), with u the gradient and v = ((I - W) z)_i the
disagreement that a network would have returned:

    s <- A s + B_u u + B_v v,    y = C_y s (where the gradient is taken),    z = C_z s + D_zu u + D_zv v.

The form of Sundararajan, Van Scoy, Lessard (IEEE TCNS 2020), with y part of the state: params come first.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from adozoo._message import Sized
from adozoo._mixings import Mixing

RANK_TOLERANCE = 1e-10
EXACT_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class _Probe(Mixing):
    """A mixing over one node that notes what is mixed and subtracts the disagreements it was given, in turn."""

    disagreements: Any  # [m], or None while messages are being counted
    noted: list[Any]
    n: int = 1
    stochastic: str = "doubly"
    symmetric: bool = True

    def __call__(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        parts = jax.tree.leaves(tree, is_leaf=lambda part: isinstance(part, Sized))
        if any(isinstance(part, Sized) for part in parts):
            raise ValueError(
                "state_space: the method compresses what it sends, which is not linear for vectors. It has no "
                "worst-case certificate; run it, or see theory.bounds."
            )
        return super().__call__(tree, step, message)

    def exchange(self) -> Any:
        raise ValueError(
            "state_space: the method sends messages on the links of a graph, not W x. It has no certificate over all "
            "mixing matrices of a gap; theory.exact_rate has its rate on a problem and a graph."
        )

    def mix_leaf(self, x: Array) -> Array:
        self.noted.append(x.reshape(()))
        return x if self.disagreements is None else x - self.disagreements[len(self.noted) - 1]

    def table(self) -> tuple[Any, Any]:
        return np.zeros((1, 1), int), np.ones((1, 1))

    @property
    def matrix(self) -> Float[Array, "1 1"]:
        return jnp.ones((1, 1))


class _MeanProbe(_Probe):
    """The same, in place of an exact average."""

    is_mean = True


@dataclass(frozen=True, eq=False)
class StateSpace:
    """The matrices of one node. States are the k floats of (params, optimiser state), channels the m mixed numbers.

    Attributes:
      A: [k, k].
      B_u: [k, 1], from the gradient.
      B_v: [k, m], from the disagreements.
      C_z: [m, k], what is mixed.
      D_zu: [m, 1].
      D_zv: [m, m], strictly lower triangular: later messages may depend on the answers to earlier ones.
      start: [k, 1], the state that `init` gives to params 1.
      equal_start: whether all nodes start at the same params, so that no disagreement comes from there.
    """

    A: Float[np.ndarray, "k k"]
    B_u: Float[np.ndarray, "k 1"]
    B_v: Float[np.ndarray, "k m"]
    C_z: Float[np.ndarray, "m k"]
    D_zu: Float[np.ndarray, "m 1"]
    D_zv: Float[np.ndarray, "m m"]
    start: Float[np.ndarray, "k 1"]
    equal_start: bool = False

    @property
    def C_y(self) -> Float[np.ndarray, "1 k"]:
        """Gradients are taken at params, the first state."""
        return np.eye(1, len(self.A))

    @cached_property
    def mean_basis(self) -> Float[np.ndarray, "k p"]:
        """An orthonormal basis of what the average over nodes can reach: disagreements average to zero."""
        return _reachable(self.A, np.hstack([self.start, self.B_u]))

    @cached_property
    def disagreement_basis(self) -> Float[np.ndarray, "k q"]:
        """An orthonormal basis of what the difference between two nodes can reach."""
        return _reachable(self.A, np.hstack([self.start * (not self.equal_start), self.B_u, self.B_v]))

    @property
    def averaged(self) -> "StateSpace":
        """The disagreement's system under exact averaging: every v is z itself, and no channel is left."""
        answers = self.B_v @ np.linalg.inv(np.eye(len(self.C_z)) - self.D_zv)
        none = np.zeros((0, 0))
        A, B_u = self.A + answers @ self.C_z, self.B_u + answers @ self.D_zu
        return StateSpace(A, B_u, self.B_v[:, :0], self.C_z[:0], self.D_zu[:0], none, self.start, self.equal_start)

    def exactness_defect(self, exact_mean: bool = False) -> tuple[float, float]:
        """How far the method is from having the optimum as a fixed point, whatever the nodes' gradients there.

        (i) The average must be able to rest at any params: no p with (A - I) p = 0 and C_y p = 1 gives a defect. (ii) A
        node must be able to rest against its own gradient, at zero params and message: no s with (A - I) s + B_u = 0,
        C_y s = 0 and C_z s + D_zu = 0. Both are least-squares residuals, zero for exact methods. Under an exact mean
        messages need not agree (`averaged`).
        """
        rest = np.vstack([self.A - np.eye(len(self.A)), self.C_y])
        average = _residual(rest @ self.mean_basis, np.eye(len(rest))[:, -1:])
        node = self.averaged if exact_mean else self
        balance = np.vstack([node.A - np.eye(len(node.A)), node.C_y, node.C_z])
        return average, _residual(balance @ node.disagreement_basis, -np.vstack([node.B_u, [[0.0]], node.D_zu]))

    @property
    def exact(self) -> bool:
        """Whether the optimum is a fixed point however much the nodes differ, over any connected graph."""
        return max(self.exactness_defect()) <= EXACT_TOLERANCE

    def mode(self, curvature: Any, eigenvalue: Any) -> Float[np.ndarray, "... k k"]:
        """The step's matrix for gradients u = curvature * y on an eigenvector of W; arguments may be arrays."""
        a, b = np.broadcast_arrays(np.asarray(curvature, float), 1 - np.asarray(eigenvalue, float))
        a, b = a[..., None, None], b[..., None, None]
        channels = np.eye(len(self.C_z)) - b * self.D_zv
        messages = np.linalg.solve(channels, self.C_z + a * (self.D_zu @ self.C_y)) if len(self.C_z) else self.C_z
        return self.A + a * (self.B_u @ self.C_y) + b * (self.B_v @ messages)


class Extractor:
    """Reads a family of methods, one for each value of their hyper-parameters, compiled once.

    Args:
      method: (mix, *parameters) -> transformation, with numbers that may be traced.
      parameters: typical values of the parameters, of which there may be none.
      exact_mean: whether the communication is an exact average (sigma = 0), for methods that need one.
      equal_start: whether all nodes start at the same params.

    Raises:
      ValueError: if the method is not linear, changes from step to step, or communicates out of sight.
    """

    def __init__(
        self,
        method: Callable[..., Any],
        parameters: tuple[float, ...] = (),
        exact_mean: bool = False,
        equal_start: bool = False,
    ):
        self.method, self.equal_start = method, equal_start
        self.probe = _MeanProbe if exact_mean else _Probe
        with jax.enable_x64(True):
            try:
                self._prepare(parameters)
            except (jax.errors.UnexpectedTracerError, IndexError) as error:
                raise ValueError(
                    "state_space: the method communicates inside a branch or a loop that depends on the step, so that "
                    "it is not one linear step. Analyse it with theory.exact_rate on a problem."
                ) from error

    def _prepare(self, parameters: tuple[float, ...]) -> None:
        noted: list[Any] = []
        tx = self._build(self.probe(None, noted), parameters)
        params = jnp.zeros((1, 1))
        state = tx.init(params)
        leaves, self.structure = jax.tree.flatten((params, state))
        self.moving = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
        self.fixed = [leaf for leaf, moves in zip(leaves, self.moving, strict=True) if not moves]
        floats, self.unravel = ravel_pytree([x for x, moves in zip(leaves, self.moving, strict=True) if moves])
        self.size = floats.size
        jax.eval_shape(lambda: self._update(tx, floats, self.fixed, jnp.zeros(())))
        self.channels = len(noted)
        self._matrices = jax.jit(self._read)
        self._check(parameters)

    def _build(self, probe: _Probe, parameters: Any) -> Any:
        return optax.with_extra_args_support(self.method(probe, *parameters))

    def _update(self, tx: Any, floats: Any, fixed: list[Any], gradient: Any) -> tuple[Any, list[Any]]:
        moving, others = iter(self.unravel(floats)), iter(fixed)
        leaves = [next(moving) if moves else next(others) for moves in self.moving]
        params, state = jax.tree.unflatten(self.structure, leaves)
        updates, state = tx.update(gradient.reshape(1, 1), state, params)
        after = jax.tree.leaves((optax.apply_updates(params, updates), state))
        split = [[x for x, m in zip(after, self.moving, strict=True) if m is kind] for kind in (True, False)]
        return ravel_pytree(split[0])[0], split[1]

    def _step(self, inputs: Any, parameters: Any, fixed: list[Any]) -> tuple[Any, list[Any]]:
        """(state, u, v) -> (next state, z), and the integers that follow."""
        noted: list[Any] = []
        tx = self._build(self.probe(inputs[self.size + 1 :], noted), parameters)
        after, others = self._update(tx, inputs[: self.size], fixed, inputs[self.size])
        return jnp.concatenate([after, jnp.stack(noted) if noted else jnp.zeros(0)]), others

    def _start(self, params: Any, parameters: Any) -> Any:
        tx = self._build(self.probe(None, []), parameters)
        leaves = jax.tree.leaves((params, tx.init(params)))
        return ravel_pytree([x for x, moves in zip(leaves, self.moving, strict=True) if moves])[0]

    def _read(self, inputs: Any, parameters: Any, fixed: list[Any]) -> tuple[Any, ...]:
        """The step's Jacobian and init's at zero, and at `inputs` the step's image, the integers after it, and init."""
        step, start = functools.partial(self._step, parameters=parameters), lambda x: self._start(x, parameters)
        zero = jnp.zeros(self.size + 1 + self.channels)
        jacobian = jax.jacfwd(lambda inputs: step(inputs, fixed=self.fixed)[0])(zero)
        begin = jax.jacfwd(start)(jnp.zeros((1, 1))).reshape(self.size, 1)
        image, others = step(inputs, fixed=fixed)
        return jacobian, begin, image, others, start(inputs[:1, None])

    def _check(self, parameters: tuple[float, ...]) -> None:
        """Linear, and the same at every step? Seen on a generic point."""
        generic, fixed = np.random.default_rng(0).normal(size=self.size + 1 + self.channels), self.fixed
        for count in range(4):
            jacobian, begin, image, fixed, started = self._matrices(generic, parameters, fixed)
            defect = float(np.abs(image - jacobian @ generic).max())
            if not defect <= 1e-9 * (1 + np.abs(jacobian).max()):
                raise ValueError(
                    "state_space: the method's step is not linear, or changes with the step (at step "
                    f"{count} a generic point's image is off by {defect:.1e}). Divisions, signs, compression, random "
                    "masks, decaying step sizes and periodic schedules have no worst-case certificate."
                )
            if np.abs(started - generic[0] * begin[:, 0]).max() > 1e-9 * (1 + np.abs(begin).max()):
                raise ValueError("state_space: init is not a linear function of params; the method has no linear form.")

    def __call__(self, parameters: tuple[float, ...] = ()) -> StateSpace:
        """The matrices at these parameters."""
        with jax.enable_x64(True):
            inputs = np.zeros(self.size + 1 + self.channels)
            matrix, start = map(np.asarray, self._matrices(inputs, parameters, self.fixed)[:2])
        k = len(start)
        s, u, v = slice(k), slice(k, k + 1), slice(k + 1, None)
        rows, messages = matrix[:k], matrix[k:]
        sent = messages[:, s], messages[:, u], messages[:, v]
        return StateSpace(rows[:, s], rows[:, u], rows[:, v], *sent, start, self.equal_start)


def state_space(factory: Callable[[Mixing], Any], exact_mean: bool = False) -> StateSpace:
    """Read a linear method's matrices (A, B, C, D) off its implementation.

    Args:
      factory: mix -> transformation, as for `theory.exact_rate`.
      exact_mean: whether to hand it an exact average, for methods that admit nothing else.

    Raises:
      ValueError: if the method is not linear, or changes from step to step.

    Example:
      >>> found = theory.state_space(lambda mix: adozoo.dsgd(0.1, mix, "cta"))
      >>> found.A.tolist(), found.B_u.tolist(), found.B_v.tolist(), found.C_z.tolist()
      ([[1.0]], [[-0.1]], [[-1.0]], [[1.0]])
      >>> found.exact  # a node's own gradient at the optimum drives it away
      False

    References:
      Sundararajan, Van Scoy, Lessard, Analysis and design of first-order distributed optimization algorithms over
      time-varying graphs, IEEE TCNS 2020, section III.
    """
    return Extractor(factory, exact_mean=exact_mean)()


def _reachable(A: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the smallest A-invariant subspace that contains the columns of `seeds`."""
    basis, fresh = np.zeros((len(A), 0)), seeds
    while True:
        fresh = fresh - basis @ (basis.T @ fresh)
        scale = np.linalg.norm(fresh, axis=0)
        fresh = fresh[:, scale > RANK_TOLERANCE] / scale[scale > RANK_TOLERANCE]
        left, singular, _ = np.linalg.svd(fresh, full_matrices=False) if fresh.size else (fresh, np.zeros(0), None)
        new = left[:, singular > RANK_TOLERANCE]
        if not new.shape[1]:
            return basis
        basis = np.hstack([basis, new])
        fresh = A @ new


def _residual(matrix: np.ndarray, target: np.ndarray) -> float:
    solution = np.linalg.lstsq(matrix, target, rcond=1e-12)[0]
    return float(np.linalg.norm(matrix @ solution - target))
