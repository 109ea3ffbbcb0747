r"""Problems: f(x) = (1/n) \sum_i f_i(x) over n nodes, with stacked data, known constants and a known optimum.

A problem is a pytree of arrays (so that it may be passed to jitted functions) with `gradient(params, step, key)` as
`adozoo.simulate` wants it, the global `loss`, and the constants that theory needs: `smoothness` L and
`strong_convexity` mu, each valid for every f_i, the `optimum`, and `heterogeneity`, zeta^2 = (1/n) \sum_i ||grad
f_i(x*)||^2. Constants are computed once, on the host, in float64.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Float, Int

from adozoo._conjugate import point_of_slope
from adozoo._mixings import register
from adozoo._newton import pooled_optimum
from adozoo._problem import Problem


@partial(register, data_fields=["matrices", "centers", "optimum", "noise"], meta_fields=["n", "dim", "constants"])
@dataclass(frozen=True, eq=False)
class Quadratic(Problem):
    """f_i(x) = 1/2 (x - b_i)' A_i (x - b_i)."""

    matrices: Float[Array, "n d d"]
    centers: Float[Array, "n d"]
    optimum: Float[Array, " d"]
    noise: Any
    n: int
    dim: int
    constants: tuple[float, float]

    def exact_gradient(self, params: Float[Array, "n d"]) -> Float[Array, "n d"]:
        return jnp.einsum("nij,nj->ni", self.matrices, params - self.centers, precision="highest")

    def conjugate_gradient(self, params: Float[Array, "n d"]) -> Float[Array, "n d"]:
        return self.centers + jax.vmap(partial(jsl.solve, assume_a="pos"))(self.matrices, params)

    def local_loss(self, x: Float[Array, " d"]) -> Float[Array, " n"]:
        offset = x[None] - self.centers
        return 0.5 * jnp.einsum("ni,nij,nj->n", offset, self.matrices, offset, precision="highest")


def quadratic(A: Any, b: Any, noise: Any = 0.0) -> Quadratic:
    r"""Heterogeneous quadratics f_i(x) = 1/2 (x - b_i)' A_i (x - b_i).

    Args:
      A: symmetric positive semi-definite matrices, [n, d, d]; their mean must be positive definite.
      b: the nodes' own minimisers, [n, d].
      noise: standard deviation per coordinate of the Gaussian noise added to gradients drawn with a key.

    Returns:
      The problem; the optimum is (sum A_i)^{-1} sum A_i b_i, and the constants are the extreme eigenvalues of the A_i.

    Raises:
      ValueError: for shapes that do not fit, matrices that are not symmetric, or a mean that is not positive definite.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((2, 1, 1)), jnp.array([[0.0], [2.0]])
      ... )
      >>> problem.optimum, problem.heterogeneity
      (Array([1.], dtype=float64), Array(1., dtype=float64))
    """
    matrices, centers = np.asarray(A, np.float64), np.asarray(b, np.float64)
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or centers.shape != matrices.shape[:2]:
        raise ValueError(f"quadratic: expected A [n, d, d] and b [n, d], got {matrices.shape} and {centers.shape}.")
    if np.abs(matrices - matrices.transpose(0, 2, 1)).max() > 1e-9 * np.abs(matrices).max():
        raise ValueError("quadratic: every A_i must be symmetric. Pass (A + A') / 2.")
    spectrum = np.linalg.eigvalsh(matrices)
    mean = matrices.mean(0)
    if np.linalg.eigvalsh(mean)[0] <= 0 or spectrum.min() < -1e-9 * spectrum.max():
        raise ValueError(
            "quadratic: every A_i must be positive semi-definite and their mean positive definite, got smallest "
            f"eigenvalues {spectrum.min():.3g} and {np.linalg.eigvalsh(mean)[0]:.3g}. There is no unique optimum."
        )
    optimum = np.linalg.solve(mean, np.einsum("nij,nj->i", matrices, centers) / len(matrices))
    n, dim = centers.shape
    constants = (float(max(spectrum.min(), 0.0)), float(spectrum.max()))
    return Quadratic(
        jnp.asarray(matrices), jnp.asarray(centers), jnp.asarray(optimum), jnp.asarray(noise, float), n, dim, constants
    )


def random_quadratic(
    n: int,
    dim: int,
    strong_convexity: float = 0.1,
    smoothness: float = 1.0,
    heterogeneity: float = 1.0,
    noise: float = 0.0,
    seed: int = 0,
) -> Quadratic:
    r"""Random heterogeneous quadratics with dials for conditioning, heterogeneity and noise.

    Every A_i has eigenvalues from mu to L, equally spaced, in its own random basis. The optimum x* is a unit vector,
    and b_i = x* + s c_i with \sum_i A_i c_i = 0, where s is solved for so that zeta^2 = (1/n) \sum_i ||A_i (x* -
    b_i)||^2 is hit exactly.

    Args:
      n: nodes.
      dim: dimension d.
      strong_convexity: mu, the smallest eigenvalue of every A_i.
      smoothness: L, the largest one.
      heterogeneity: zeta^2, the mean squared gradient norm at the optimum; 0 makes x* optimal for every node.
      noise: standard deviation per coordinate of the gradient noise.
      seed: seed of the instance.

    Raises:
      ValueError: for a negative heterogeneity or noise, mu > L, or zeta^2 > 0 with a single node.

    Example:
      >>> problem = adozoo.problems.random_quadratic(8, 3, heterogeneity=0.25)
      >>> round(float(problem.heterogeneity), 12), problem.constants
      (0.25, (0.1, 1.0))
    """
    if not 0 < strong_convexity <= smoothness:
        raise ValueError(
            f"random_quadratic: need 0 < strong_convexity <= smoothness, got {strong_convexity!r} and {smoothness!r}."
        )
    if heterogeneity < 0 or noise < 0 or (heterogeneity > 0 and n < 2):
        raise ValueError(
            f"random_quadratic: heterogeneity and noise must be >= 0, and 0 for n = 1; got heterogeneity="
            f"{heterogeneity!r}, noise={noise!r}, n={n!r}."
        )
    rng = np.random.default_rng(seed)
    bases = np.linalg.qr(rng.normal(size=(n, dim, dim)))[0]
    matrices = np.einsum("nij,j,nkj->nik", bases, np.linspace(strong_convexity, smoothness, dim), bases)
    matrices = (matrices + matrices.transpose(0, 2, 1)) / 2
    optimum = rng.normal(size=dim)
    optimum /= np.linalg.norm(optimum)
    pulls = rng.normal(size=(n, dim))  # gradients at the optimum, made to sum to zero
    pulls -= pulls.mean(0)
    size = np.mean(np.sum(pulls**2, 1))
    pulls *= np.sqrt(heterogeneity / size) if heterogeneity else 0.0
    centers = optimum - np.linalg.solve(matrices, pulls[..., None])[..., 0]
    return replace(quadratic(matrices, centers, noise), constants=(float(strong_convexity), float(smoothness)))


@partial(register, data_fields=["optimum", "noise"], meta_fields=["n", "dim", "batch", "constants"])
@dataclass(frozen=True, eq=False)
class IsotropicQuadratic(Problem):
    """f(x) = ||x||^2 / 2, observed as g = (1/b) sum_b d_b d_b' x with fresh d ~ N(0, I): noise that scales with x."""

    optimum: Float[Array, " d"]
    noise: Any
    n: int
    dim: int
    batch: int
    constants: tuple[float, float] = (1.0, 1.0)

    @property
    def zeta(self) -> float:
        """zeta = E ||g||^2 / ||x||^2 = (dim + 1 + batch) / batch."""
        return (self.dim + 1 + self.batch) / self.batch

    def exact_gradient(self, params: Float[Array, "n d"]) -> Float[Array, "n d"]:
        return params

    def conjugate_gradient(self, params: Float[Array, "n d"]) -> Float[Array, "n d"]:
        return params

    def local_loss(self, x: Float[Array, " d"]) -> Float[Array, " n"]:
        return jnp.full(self.n, 0.5 * jnp.sum(x**2))

    def sample(self, key: Array) -> Float[Array, "n b d"]:
        """One step's random directions for all nodes; `gradient_of` turns them into gradients."""
        return jax.random.normal(key, (self.n, self.batch, self.dim), self.optimum.dtype)

    def gradient_of(self, params: Float[Array, "n d"], directions: Float[Array, "n b d"]) -> Float[Array, "n d"]:
        """(1/b) sum_b d_b (d_b' x_i), for directions drawn before."""
        along = jnp.einsum("nbd,nd->nb", directions, params)
        return jnp.einsum("nbd,nb->nd", directions, along) / self.batch

    def gradient(self, params: Float[Array, "n d"], step: Any = None, key: Any = None) -> Float[Array, "n d"]:
        if key is None:
            return params
        return self.gradient_of(params, self.sample(key))


def isotropic_quadratic(n: int, dim: int, batch: int = 1) -> IsotropicQuadratic:
    r"""Isotropic random quadratics: f(x) = 1/2 ||x||^2, with gradients d d'x for random d ~ N(0, I).

    Every node draws a fresh d in every step. The toy problem of Vogels, Hendrikx, Jaggi 2022, section 3, whose rate
    under D-SGD is known exactly (`theory.isotropic_rate`): zeta = dim + 2 for batch 1, (dim + 1 + batch) / batch in
    general.

    Example:
      >>> adozoo.problems.isotropic_quadratic(4, dim=8).zeta
      10.0
    """
    for name, value in (("n", n), ("dim", dim), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"isotropic_quadratic: {name} must be a positive integer, got {value!r}.")
    return IsotropicQuadratic(jnp.zeros(dim), jnp.zeros(()), n, dim, batch)


@partial(
    register,
    data_fields=["features", "targets", "weights", "l2", "optimum", "noise"],
    meta_fields=["n", "dim", "constants", "kind"],
)
@dataclass(frozen=True)
class Linear(Problem):
    """f_i(x) = sum_k w_ik phi(a_ik' x, y_ik) + (l2 / 2) ||x||^2, with phi logistic or squared."""

    features: Float[Array, "n m d"]
    targets: Float[Array, "n m"]
    weights: Float[Array, "n m"]
    l2: Any
    optimum: Float[Array, " d"]
    noise: Any
    n: int
    dim: int
    constants: tuple[float, float]
    kind: str

    def _slope(self, scores: Array, targets: Array) -> Array:
        """phi', sample by sample."""
        if self.kind == "squared":
            return scores - targets
        return -targets * jax.nn.sigmoid(-targets * scores)

    def exact_gradient(self, params: Float[Array, "n d"]) -> Float[Array, "n d"]:
        scores = jnp.einsum("nmd,nd->nm", self.features, params, precision="highest")
        slopes = self.weights * self._slope(scores, self.targets)
        return jnp.einsum("nmd,nm->nd", self.features, slopes, precision="highest") + self.l2 * params

    def component_gradient(self, params: Float[Array, "n d"], indices: Int[Array, " n"]) -> Float[Array, "n d"]:
        """Of F_ij(x) = m w_ij phi(a_ij' x, y_ij) + (l2 / 2) ||x||^2, one sample a node."""

        def pick(values: Array) -> Array:
            return jax.vmap(lambda rows, j: rows[j])(values, indices)

        samples, targets = pick(self.features), pick(self.targets)
        scores = jnp.einsum("nd,nd->n", samples, params, precision="highest")
        slopes = self.weights.shape[1] * pick(self.weights) * self._slope(scores, targets)
        return slopes[:, None] * samples + self.l2 * params

    @property
    def component_smoothness(self) -> Float[Array, "n m"]:
        """The smoothness of each component F_ij; all of them are l2-strongly convex."""
        curvature = 1.0 if self.kind == "squared" else 0.25
        return curvature * self.weights.shape[1] * self.weights * jnp.sum(self.features**2, axis=2) + self.l2

    def conjugate_gradient(self, params: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """By Newton's method, from the problem's optimum."""

        def derivatives(data: tuple[Array, Array, Array, Array], x: Array) -> tuple[Array, Array]:
            rows, targets, share, l2 = data
            scores = rows @ x
            slopes, bends = jax.jvp(lambda s: self._slope(s, targets), (scores,), (jnp.ones_like(scores),))
            hessian = (rows * (share * bends)[:, None]).T @ rows + l2 * jnp.eye(self.dim, dtype=x.dtype)
            return rows.T @ (share * slopes) + l2 * x, hessian

        def one(rows: Array, targets: Array, share: Array, slope: Array) -> Array:
            return point_of_slope(derivatives, (rows, targets, share, self.l2), slope, self.optimum)

        return jax.vmap(one)(self.features, self.targets, self.weights, params)

    def local_loss(self, x: Float[Array, " d"]) -> Float[Array, " n"]:
        scores = jnp.einsum("nmd,d->nm", self.features, x, precision="highest")
        if self.kind == "squared":
            losses = 0.5 * (scores - self.targets) ** 2
        else:
            losses = jax.nn.softplus(-self.targets * scores)
        return jnp.sum(self.weights * losses, axis=1) + 0.5 * self.l2 * jnp.sum(x**2)

    def accuracy(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """The share of samples that sign(a'x) classifies rightly (logistic regression)."""
        scores = jnp.einsum("nmd,d->nm", self.features, x, precision="highest")
        return jnp.sum(self.weights * (scores * self.targets > 0)) / jnp.sum(self.weights)


def logistic(features: Any, labels: Any, l2: float, weights: Any = None, noise: float = 0.0) -> Linear:
    r"""L2-regularised logistic regression: f_i(x) = \sum_k w_ik log(1 + exp(-y_ik a_ik' x)) + (l2 / 2) ||x||^2.

    Args:
      features: a_ik, [n, m, d].
      labels: y_ik, [n, m], in {-1, 1} or {0, 1}.
      l2: the regularisation, > 0.
      weights: w_ik >= 0, [n, m]; 1 / m by default. Padded samples have weight 0 (see `experiments.partition.stack`).
      noise: standard deviation per coordinate of the Gaussian noise added to gradients drawn with a key.

    Returns:
      The problem; the optimum is found by Newton's method in float64 to a gradient norm of about 1e-14, and the
      constants are mu = l2, L = l2 + max_i \lambda_max(\sum_k w_ik a_ik a_ik') / 4.

    Raises:
      ValueError: for shapes that do not fit, labels of other values, or l2 <= 0 (then there may be no optimum).

    Example:
      >>> problem = adozoo.problems.logistic(
      ...     jnp.ones((2, 3, 1)), jnp.array([[1, 1, -1], [1, -1, 1]]), l2=0.1
      ... )
      >>> float(
      ...     jnp.abs(problem.gradient(adozoo.replicate(problem.optimum, 2)).mean())
      ... ) < 1e-12
      True
    """
    targets = np.asarray(labels, np.float64)
    values = set(np.unique(targets))
    if values <= {0.0, 1.0} and 0.0 in values:
        targets = 2 * targets - 1
    elif not values <= {-1.0, 1.0}:
        raise ValueError(f"logistic: labels must be in {{-1, 1}} or {{0, 1}}, got the values {sorted(values)[:5]}.")
    return _linear("logistic", features, targets, l2, weights, noise)


def least_squares(features: Any, targets: Any, l2: float = 0.0, weights: Any = None, noise: float = 0.0) -> Linear:
    r"""Least squares, or ridge regression: f_i(x) = \sum_k w_ik (a_ik' x - y_ik)^2 / 2 + (l2 / 2) ||x||^2.

    Args:
      features: a_ik, [n, m, d].
      targets: y_ik, [n, m].
      l2: the regularisation, >= 0.
      weights: w_ik >= 0, [n, m]; 1 / m by default.
      noise: standard deviation per coordinate of the Gaussian noise added to gradients drawn with a key.

    Returns:
      The problem; mu and L are the extreme eigenvalues of the nodes' Hessians.

    Raises:
      ValueError: for shapes that do not fit, or data that leave the optimum undetermined.

    Example:
      >>> problem = adozoo.problems.least_squares(
      ...     jnp.ones((2, 2, 1)), jnp.array([[0.0, 2.0], [2.0, 4.0]])
      ... )
      >>> problem.optimum
      Array([2.], dtype=float64)
    """
    return _linear("squared", features, np.asarray(targets, np.float64), l2, weights, noise)


def _linear(kind: str, features: Any, targets: np.ndarray, l2: float, weights: Any, noise: float) -> Linear:
    name = "logistic" if kind == "logistic" else "least_squares"
    rows = np.asarray(features, np.float64)
    if rows.ndim != 3 or targets.shape != rows.shape[:2]:
        raise ValueError(
            f"{name}: expected features [n, m, d] and labels [n, m], got {rows.shape} and {targets.shape}."
        )
    if l2 < 0 or (kind == "logistic" and l2 == 0):
        raise ValueError(f"{name}: l2 must be positive, got {l2!r}; without it there may be no optimum.")
    n, m, dim = rows.shape
    share = np.full((n, m), 1.0 / m) if weights is None else np.asarray(weights, np.float64)
    if share.shape != (n, m) or share.min() < 0:
        raise ValueError(f"{name}: weights must be non-negative and of shape {(n, m)}, got shape {share.shape}.")
    curvature = 0.25 if kind == "logistic" else 1.0
    spectrum = np.linalg.eigvalsh(curvature * np.einsum("nm,nmi,nmj->nij", share, rows, rows))
    low = l2 if kind == "logistic" else l2 + max(float(spectrum.min()), 0.0)
    constants = (float(low), float(l2 + spectrum.max()))
    optimum = pooled_optimum(kind, rows.reshape(-1, dim), targets.ravel(), share.ravel() / n, l2)
    arrays = [jnp.asarray(a, float) for a in (rows, targets, share, l2, optimum, noise)]
    return Linear(*arrays, n=n, dim=dim, constants=constants, kind=kind)
