r"""Exact rates at the cost of one small block a mode, where nodes share a Hessian and W has a known eigenbasis.

If every f_i has the Hessian A, a linear method's step is a polynomial in W (x) I and I (x) A. In the eigenbases of both
it decouples into one s x s block for each pair (lambda, a), with s the number of params-like buffers (params included).
The block is read off the implementation as well: the method runs with two nodes, one coordinate, gradient a x, and a
mixing that rotates and shrinks the pair (x_1, x_2) as multiplication by lambda does x_1 + i x_2. Eigenvalues come from
Fourier transforms for circulants over products of cyclic groups (rings, tori, hypercubes, exponential graphs; directed
or not; cycles of them), from an eigendecomposition for other symmetric W. Whether the method is such a polynomial is
not assumed: the real step must move a generic point as the blocks say.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

import adozoo
from adozoo.mixing import Dense, Mean, Mixing, Rolls
from theory.step_map import Factory, StepMap, read
from theory.subspaces import RANK_TOLERANCE, reachable_radius, unit_seeds

LARGEST_EIGENBASIS = 1500
"""Up to this many nodes a symmetric W without translation invariance is diagonalised."""
NEAR_CONSENSUS = 1e-3
"""Modes with all |1 - lambda| below this are nearly as singular as consensus; what they conserve, others tell."""
AGREEMENT = 1e-10
"""How closely the real step must follow the blocks, relative to its size."""


class Modes(NamedTuple):
    """A common eigenbasis of the matrices of one period: eigenvalues [p, n], and node axis -> modes, unitary."""

    eigenvalues: Complex[np.ndarray, "p n"]
    transform: Callable[[np.ndarray], np.ndarray]  # [n, k] -> [n, k]


class Blocks(NamedTuple):
    """One block a mode of W (of n) and of the Hessian (of d): z <- T z over the s buffers, complex."""

    transition: Complex[np.ndarray, "n d s s"]
    seeds: list[Complex[np.ndarray, "n d s 1"]]  # by initial params, and by an offset of all gradients


def structured_rate(factory: Factory, problem: Any, mix: Mixing) -> float:
    """The exact rate from one small block for each eigenvalue of W and of the common Hessian.

    `theory.exact_rate` calls this by itself where it applies; a ring of 10^4 nodes takes about a second.

    Args:
      factory: mix -> transformation.
      problem: a quadratic problem whose nodes share one Hessian.
      mix: a symmetric or translation-invariant mixing, or a cycle of translation-invariant ones.

    Returns:
      The factor per step.

    Raises:
      ValueError: where the structure is not there; use `theory.exact_rate`.

    Example:
      >>> n = 1000
      >>> problem = adozoo.problems.quadratic(jnp.ones((n, 1, 1)), jnp.zeros((n, 1)))
      >>> mix = adozoo.mixing(adozoo.graphs.ring(n))
      >>> print(
      ...     f"{theory.structured_rate(lambda mix: adozoo.extra(0.5, mix), problem, mix):.9f}"
      ... )
      0.999986841
    """
    with jax.enable_x64(True):
        found = modal_rate(read(factory, problem, mix))
    if found is None:
        raise ValueError(
            "structured_rate: needs a linear method, nodes with one common Hessian, and a mixing that is symmetric (up "
            f"to n = {LARGEST_EIGENBASIS}) or translation-invariant; got something else. Use theory.exact_rate."
        )
    return found


def modal_rate(steps: StepMap) -> float | None:
    """`structured_rate` of a step map, or None where the structure is not there; inside `jax.enable_x64(True)`."""
    hessian = common_hessian(steps.problem)
    modes = joint_modes(steps.mix) if isinstance(steps.mix, adozoo.Mixing) and hessian is not None else None
    if hessian is None or modes is None:
        return None
    shape = steps.problem.init().shape
    if any(leaf.shape != shape for leaf in steps.leaves):
        return None
    curvatures, rotation = np.linalg.eigh(hessian)
    blocks = _read_blocks(steps, modes, curvatures)
    if blocks is None:
        return None

    def coefficients(z: Any, transform: Any = modes.transform) -> np.ndarray:
        """z [N] in the common eigenbasis, [n, d, s]."""
        return np.stack([transform(buffer) for buffer in np.asarray(z).reshape(-1, *shape) @ rotation], axis=-1)

    start, away = np.asarray(steps.start), np.asarray(steps.generic(0))
    first = steps.advance(start) - start
    moved = coefficients(steps.advance(start + away) - start - first)
    expected = (blocks.transition @ coefficients(away)[..., None])[..., 0]
    if np.linalg.norm(moved - expected) > AGREEMENT * np.linalg.norm(moved):
        return None
    conserved, bases = _conserved(blocks, modes.eigenvalues)
    drift = np.abs(np.einsum("ndij,ndi->ndj", bases.conj(), coefficients(first)))
    order = np.arange(bases.shape[-1])
    drifts = drift[order >= bases.shape[-1] - conserved[..., None]].max(initial=0) > 1e-9 * (1 + np.linalg.norm(start))
    return max(_largest(blocks, conserved, bases), float(drifts)) ** (1 / steps.period)


def common_hessian(problem: Any) -> Float[np.ndarray, "d d"] | None:
    """The Hessian that all nodes share (at zero), or None where they differ.

    Example:
      >>> theory.structured.common_hessian(adozoo.problems.isotropic_quadratic(3, dim=2))
      array([[1., 0.],
             [0., 1.]])
    """
    params = problem.init()
    if getattr(params, "ndim", 0) != 2:
        return None

    def gradient(x: Array) -> Array:
        return problem.gradient(jnp.broadcast_to(x, params.shape), 0, None)

    zero = jnp.zeros(params.shape[1], params.dtype)
    away = jnp.asarray(np.random.default_rng(0).normal(size=zero.size))
    change = np.asarray(gradient(away)) - np.asarray(gradient(zero))
    if np.abs(change - change[0]).max() > 1e-12 * (1 + np.abs(change).max()):
        return None
    hessian = np.asarray(jax.jacfwd(lambda x: gradient(x)[0])(zero))
    return (hessian + hessian.T) / 2


def joint_modes(mix: Mixing) -> Modes | None:
    """The common eigenbasis of all matrices of a mixing, where it is known: translation-invariant or symmetric W.

    Example:
      >>> modes = theory.structured.joint_modes(
      ...     adozoo.mixing(adozoo.graphs.directed_ring(4), require_connected=True)
      ... )
      >>> abs(modes.eigenvalues[0]).round(6)
      array([1.      , 0.707107, 0.      , 0.707107])
    """
    period = mix.period if mix.varying and hasattr(mix, "period") else None if mix.varying else 1
    if period is None:
        return None
    members = [mix.at(step) for step in range(period)]
    groups = {m.shape for m in members if isinstance(m, Rolls) and np.any(m.shifts)}
    others = [m for m in members if not isinstance(m, Rolls | Mean)]
    if not others and len(groups) <= 1:
        shape = groups.pop() if groups else (mix.n,)
        spectra = np.stack([_symbol(member, shape) for member in members])

        def transform(x: np.ndarray) -> np.ndarray:
            grid = np.fft.fftn(x.reshape(*shape, -1), axes=range(len(shape)), norm="ortho")
            return grid.reshape(mix.n, -1)

        return Modes(spectra, transform)
    if groups or not all(m.symmetric for m in others) or mix.n > LARGEST_EIGENBASIS:
        return None
    matrices = [np.asarray(member.matrix, np.float64) for member in others]
    if any(np.abs(matrix - matrices[0]).max() > 1e-14 for matrix in matrices[1:]):
        return None
    values, vectors = np.linalg.eigh(matrices[0])
    if values[-1] - values[-2] < 1e-12:  # disconnected: no single consensus mode, which a mean may need
        return None
    values = values.astype(complex)
    values[-1] = _exactly_one(values[-1])
    consensus = (np.arange(mix.n) == mix.n - 1).astype(complex)
    trivial: dict[type, np.ndarray] = {Mean: consensus, Rolls: np.ones(mix.n, complex)}
    return Modes(np.stack([trivial.get(type(member), values) for member in members]), lambda x: vectors.T @ x)


def _symbol(member: Any, shape: tuple[int, ...]) -> Complex[np.ndarray, " n"]:
    """The eigenvalues of a circulant in Fourier's order: sum_k w_k exp(2 pi i q . s_k), consensus first."""
    if isinstance(member, Mean):
        return (np.arange(member.n) == 0).astype(complex)
    kernel = np.zeros(shape)
    shifts = np.array(member.shifts) if np.any(member.shifts) else np.zeros((len(member.shifts), len(shape)), int)
    np.add.at(kernel, tuple((shifts % np.array(shape)).T), np.asarray(member.weights, np.float64))
    symbol = np.fft.ifftn(kernel).ravel() * member.n
    symbol[0] = _exactly_one(symbol[0])
    return symbol


def _exactly_one(value: complex) -> complex:
    """The consensus mode's eigenvalue without the rounding of its weights, which may add up over many nodes."""
    return 1.0 if abs(value - 1) < 1e-10 else value


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["eigenvalues"],
    meta_fields=["period", "stochastic", "symmetric", "varying", "is_mean"],
)
@dataclass(frozen=True, eq=False)
class _Mode(Mixing):
    """Multiplication by complex numbers lambda_t, on real and imaginary part as two nodes; else like a given mixing."""

    eigenvalues: Float[Array, "p 2"]
    period: int
    stochastic: str
    symmetric: bool
    varying: bool = False  # type: ignore[override]
    is_mean: bool = False  # type: ignore[override]
    n = 2

    def at(self, step: Any, message: int = 0) -> Mixing:
        real, imaginary = self.eigenvalues[jnp.mod(step, self.period)]
        rotation = jnp.array([[real, -imaginary], [imaginary, real]])
        return Dense(rotation, 2, self.stochastic, self.symmetric)


@dataclass(frozen=True)
class _Curvature:
    """f(x) = a x^2 / 2 on two nodes: the problem that one mode of the Hessian sees."""

    curvature: Any

    def init(self) -> Float[Array, "2 1"]:
        return jnp.zeros((2, 1))

    def gradient(self, params: Any, step: Any, key: Any) -> Any:
        return self.curvature * params


def _read_blocks(steps: StepMap, modes: Modes, curvatures: Float[np.ndarray, " d"]) -> Blocks | None:
    """All blocks, in one program; None where the method does not run on a mode, or keeps other state there."""
    mix, buffers, period = steps.mix, len(steps.leaves), steps.period
    flags = (mix.stochastic, mix.symmetric, mix.varying, mix.is_mean)

    def block(eigenvalues: Array, curvature: Array) -> tuple[Array, Array, Array]:
        tiny = StepMap(steps.factory, _Curvature(curvature), _Mode(eigenvalues, len(eigenvalues), *flags))
        if [leaf.shape for leaf in tiny.leaves] != buffers * [(2, 1)]:
            raise TypeError("the method keeps state that is not shaped like params")

        def advance(z: Array, offset: Array) -> Array:
            return jax.lax.fori_loop(0, period, lambda _, now: tiny.step(now[0], now[1], offset), (z, tiny.fixed))[0]

        zero = jnp.zeros(2)
        transition, by_gradient = jax.jacfwd(advance, argnums=(0, 1))(jnp.zeros(2 * buffers), zero)
        by_params = jax.jacfwd(tiny.begin)(zero)
        return transition, transition @ by_params - by_params, by_gradient

    pairs = jnp.asarray(np.stack([modes.eigenvalues.real.T, modes.eigenvalues.imag.T], axis=-1))  # [n, p, 2]
    try:
        every = jax.jit(jax.vmap(jax.vmap(block, (None, 0)), (0, None)))
        transition, *seeds = every(pairs, jnp.asarray(curvatures))
    except (TypeError, ValueError, AttributeError):  # it wants more of a mixing than its action: read it as it is
        return None
    return Blocks(_complex(transition), [_complex(seed) for seed in seeds])


def _complex(matrices: Any) -> Complex[np.ndarray, "n d s k"]:
    """Complex-linear maps, given as real ones on pairs (real, imaginary)."""
    pairs = np.asarray(matrices)
    return pairs[..., 0::2, 0::2] + 1j * pairs[..., 1::2, 0::2]


def _conserved(blocks: Blocks, eigenvalues: Complex[np.ndarray, "p n"]) -> tuple[np.ndarray, np.ndarray]:
    """How many combinations of its buffers each mode conserves, [n, d], and left singular vectors of T - I, those last.

    Close to consensus T - I is nearly singular without conserving more than other modes do.
    """
    bases, sizes, _ = np.linalg.svd(blocks.transition - np.eye(blocks.transition.shape[-1]))
    conserved = np.sum(sizes <= RANK_TOLERANCE * np.maximum(sizes[..., :1], 1e-300), axis=-1)
    distance = np.abs(eigenvalues - 1).max(axis=0)
    far, near = distance > NEAR_CONSENSUS, (distance > 0) & (distance <= NEAR_CONSENSUS)
    if far.any():
        conserved[near] = np.minimum(conserved[near], conserved[far].min(axis=0))
    return conserved, bases


def _largest(blocks: Blocks, conserved: np.ndarray, bases: np.ndarray) -> float:
    """The largest spectral radius of a block on what it moves and initial params or gradients reach."""
    size = bases.shape[-1]
    radii = np.zeros(conserved.shape)
    for count in np.unique(conserved[conserved < size]):
        chosen = conserved == count
        basis = bases[chosen][..., : size - count]
        reduced = basis.conj().swapaxes(-1, -2) @ blocks.transition[chosen] @ basis
        radii[chosen] = np.abs(np.linalg.eigvals(reduced)).max(axis=-1)
    best = 0.0
    for flat in np.argsort(-radii, axis=None):  # bounds from above, the largest first
        place = np.unravel_index(flat, radii.shape)
        if radii[place] <= best:
            break
        basis = bases[place][:, : size - conserved[place]]
        seeds = unit_seeds(*(basis.conj().T @ seed[place] for seed in blocks.seeds))
        best = max(best, reachable_radius(basis.conj().T @ blocks.transition[place] @ basis, seeds))
    return float(best)
