r"""Exact rates and limits without a Jacobian: Arnoldi's method and Newton's on Jacobian-vector products.

Conserved quantities give T the eigenvalue 1 many times over, which Arnoldi's method on T itself would find first. It is
applied to T^K (T - I) instead: the last factor is zero on them, and K powers let the slow modes stand out. That factor
is also small on modes very close to 1, so K is raised until it has outgrown the others, and a run of first differences
over 30 / (1 - rate) periods, after which the slowest mode that was hit at all rules, must shrink no more slowly.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg
from jaxtyping import Float

from theory.step_map import Factory, Network, StepMap, read
from theory.subspaces import linear_operator, range_basis, unit_seeds

MODES = 6
"""From how many eigenvectors found so far Arnoldi's method starts anew."""
KRYLOV = 50
"""The dimension of Arnoldi's space."""
RESTARTS = 10
"""How often Arnoldi's method may start anew."""
ROUNDS = 12
"""How often K or the start may change."""
LONGEST_POWER = 2**14
"""The largest K of T^K (T - I)."""
LONGEST_RUN = 2 * 10**5
"""The most periods over which first differences are followed."""
CONVERGED = 1e-6
"""The largest residual of the slowest mode, ||T y - lambda y|| / |lambda|, that is accepted."""


class MatrixFreeRate(NamedTuple):
    """A rate by Arnoldi's method, and how converged it is."""

    rate: float  # factor per step
    residual: float  # ||T y - lambda y|| / |lambda| of the slowest mode found, per period
    power: int  # the K of T^K (T - I)


def matrix_free_rate(factory: Factory, problem: Any, mix: Network) -> MatrixFreeRate:
    """The exact rate from products of the step's Jacobian with vectors, where the Jacobian would not fit.

    `theory.exact_rate` calls this by itself for large problems without structure.

    Args:
      factory: mix -> transformation.
      problem: a problem of `adozoo.problems`.
      mix: the mixing, fixed or periodic.

    Returns:
      The rate (at least 1 where something that the method should conserve drifts), and the residual of its mode.

    Raises:
      ValueError: if the steps do not repeat, there is no fixed point to linearise at, or Arnoldi's method does not
        converge.

    Example:
      >>> problem = adozoo.problems.random_quadratic(10, 2, strong_convexity=0.5)
      >>> mix = adozoo.mixing(adozoo.graphs.star(10))
      >>> factory = lambda mix: adozoo.extra(0.5, mix)
      >>> found = theory.matrix_free_rate(factory, problem, mix)
      >>> abs(found.rate - theory.exact_rate(factory, problem, mix)) < 1e-9
      True
    """
    with jax.enable_x64(True):
        steps = read(factory, problem, mix)
        products = _Products(steps)
        start = jnp.asarray(steps.start)
        if steps.is_affine(start, lambda v: products.power(start, jnp.asarray(v), 1)):
            return _unless_it_drifts(steps, products, _slowest(steps, products, start))
        z, defect = fixed_point(steps)
        if defect > 1e-8 * (1 + np.linalg.norm(z)):
            raise ValueError(
                f"theory.matrix_free_rate: found no fixed point to linearise at (defect {defect:.1e}). Check that the "
                "mixing is one that the method admits, or take a smaller step size."
            )
        return _slowest(steps, products, jnp.asarray(z))


def fixed_point(steps: StepMap) -> tuple[Float[np.ndarray, " N"], float]:
    """The fixed point that the method reaches from its start, and the defect ||F(z) - z|| there.

    Newton's method, each direction by GMRES, whose Krylov space stays inside range(T - I): what the method conserves
    keeps its initial value. Inside `jax.enable_x64(True)`.

    Example:
      >>> problem = adozoo.problems.random_quadratic(3, 2)
      >>> factory = lambda mix: adozoo.dsgd(0.1, mix)
      >>> with jax.enable_x64(True):
      ...     steps = theory.step_map.read(factory, problem, adozoo.exact_mean(3))
      ...     z, defect = theory.matrix_free.fixed_point(steps)
      >>> defect < 1e-12
      True
    """
    products = _Products(steps)
    z = np.asarray(steps.start)
    defect = steps.advance(z) - z
    for _ in range(50):
        size = np.linalg.norm(defect)
        if size <= 1e-14 * (1 + np.linalg.norm(z)):
            break
        operator = linear_operator(z.size, partial(products.defect, jnp.asarray(z)))
        direction, _ = scipy.sparse.linalg.gmres(operator, defect, rtol=1e-4, restart=100, maxiter=20)
        length = 1.0
        while length > 1e-6:
            trial = z + length * direction
            moved = steps.advance(trial) - trial
            if np.linalg.norm(moved) < size:
                break
            length /= 2
        else:
            break
        z, defect = trial, moved
    return z, float(np.linalg.norm(defect))


class _Products:
    """Products of vectors with the Jacobian T of one period from a point z, compiled once for all points."""

    def __init__(self, steps: StepMap):
        counts = steps.counts(steps.period)

        def product(z: Any, v: Any) -> Any:
            for now in counts:
                z, v = jax.jvp(lambda z, now=now: steps.one_step(z, now, steps.still)[0], (z,), (v,))
            return v

        self.power = jax.jit(lambda z, v, k: jax.lax.fori_loop(0, k, lambda _, v: product(z, v), v))
        self.shrink = jax.jit(lambda z, v: v - product(z, v))

    def defect(self, z: Any, v: np.ndarray) -> np.ndarray:
        """(I - T) v on the host; a copy, since GMRES writes into it."""
        return np.array(self.shrink(z, jnp.asarray(v)))


def _slowest(steps: StepMap, products: _Products, z: Any) -> MatrixFreeRate:
    """The slowest mode at z; the power K grows with its gap, until a run of first differences knows no slower one."""
    v = jnp.asarray(unit_seeds(*steps.seeds()).sum(axis=1))
    power, slower = 16, 0.0
    for _ in range(ROUNDS):
        radius, residual = _ritz(products, z, v, power)
        wanted = 4 * power if residual > CONVERGED else math.ceil(6 / max(1 - max(radius, slower), 1e-9))
        if radius < 1 and power < min(wanted, LONGEST_POWER):
            power = min(wanted, LONGEST_POWER)
            continue
        if radius >= 1 or residual > CONVERGED:
            break
        slower, v = _followed(products, z, v, radius)
        if 1 - slower > 0.7 * (1 - radius):
            break
    if residual > CONVERGED or (radius < 1 and 1 - slower <= 0.7 * (1 - radius)):
        raise ValueError(
            f"theory.matrix_free_rate: Arnoldi's method did not converge (rate {radius:.9f}, residual {residual:.1e}, "
            f"late in a run {slower:.9f}): too many modes crowd near 1. Take a smaller problem, whose dense Jacobian "
            "theory.linearize reads."
        )
    return MatrixFreeRate(radius ** (1 / steps.period), residual, power)


def _unless_it_drifts(steps: StepMap, products: _Products, found: MatrixFreeRate) -> MatrixFreeRate:
    """Rate 1 where the first move holds a part that never fades: a conserved quantity that drifts."""
    if found.rate >= 1:
        return found
    move = steps.advance(steps.start) - np.asarray(steps.start)
    length = min(LONGEST_RUN, math.ceil(25 / (1 - found.rate**steps.period)))
    left = float(jnp.linalg.norm(products.power(steps.start, jnp.asarray(move), length)))
    return found._replace(rate=1.0) if left > 1e-8 * (1 + np.linalg.norm(move)) else found


def _ritz(products: _Products, z: Any, v: Any, power: int) -> tuple[float, float]:
    """The largest |lambda| of T in the span of the leading eigenvectors of T^K (T - I), and its residual."""
    for _ in range(RESTARTS):
        basis, hessenberg, beyond = _arnoldi(lambda v: products.power(z, products.shrink(z, v), power), v)
        if not basis.size:
            return 0.0, 0.0  # T is nilpotent on what moves
        values, mixtures = np.linalg.eig(hessenberg)
        sizes = np.abs(values)
        converged = beyond * np.abs(mixtures[-1]) <= 1e-11 * sizes.max()
        if converged[np.argmax(sizes)]:
            break
        vectors = basis @ mixtures[:, np.argsort(-sizes)[:MODES]]
        v = jnp.asarray((vectors.real + vectors.imag).sum(axis=1))
    else:
        return 0.0, np.inf
    reached = np.abs(np.linalg.solve(mixtures, np.eye(len(mixtures))[0])) > 1e-10  # what rounding excites is not
    vectors = basis @ mixtures[:, converged & reached & (sizes > 1e-6 * sizes.max())]
    span = range_basis(np.hstack([vectors.real, vectors.imag]), 1e-6)
    images = np.stack([np.asarray(products.power(z, jnp.asarray(q), 1)) for q in span.T], axis=1)
    found, mixtures = np.linalg.eig(span.T @ images)
    top = int(np.argmax(np.abs(found)))
    defect = np.linalg.norm((images - found[top] * span) @ mixtures[:, top])
    return float(np.abs(found[top])), float(defect / max(np.abs(found[top]), 1e-300))


def _arnoldi(apply: Any, v: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Arnoldi's method: a basis Q, Q' M Q, and the size of what M Q has beyond Q; it ends where the space is invariant.

    Not ARPACK's, which goes on with random vectors where the space ends, and so leaves range(T - I).
    """
    first = np.asarray(apply(v))
    size = np.linalg.norm(first)
    if not 1e-200 < size < np.inf:
        return np.zeros((v.size, 0)), np.zeros((0, 0)), 0.0
    basis, scale = [first / size], 0.0
    hessenberg = np.zeros((KRYLOV + 1, KRYLOV))
    for k in range(min(KRYLOV, v.size)):
        image = np.array(apply(jnp.asarray(basis[-1])))
        scale = max(scale, float(np.linalg.norm(image)))
        known = np.stack(basis)
        for _ in range(2):  # twice is enough
            share = known @ image
            image -= share @ known
            hessenberg[: k + 1, k] += share
        hessenberg[k + 1, k] = np.linalg.norm(image)
        if hessenberg[k + 1, k] <= 1e-13 * scale:
            hessenberg[k + 1, k] = 0
            break
        basis.append(image / hessenberg[k + 1, k])
    return np.stack(basis[: k + 1], axis=1), hessenberg[: k + 1, : k + 1], float(hessenberg[k + 1, k])


def _followed(products: _Products, z: Any, v: Any, radius: float) -> tuple[float, Any]:
    """The factor by which first differences shrink late in a run of 20 / (1 - radius) periods, and where it ends."""
    length = min(LONGEST_RUN, math.ceil(20 / max(1 - radius, 1e-9)))
    window = max(1, length // 4)
    late = products.power(z, products.shrink(z, v), length - window)
    end = products.power(z, late, window)
    before, after = float(jnp.linalg.norm(late)), float(jnp.linalg.norm(end))
    return (after / before) ** (1 / window) if after > 0 else 0.0, end / max(after, 1e-300)
