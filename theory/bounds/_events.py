r"""Exact decay of event-driven methods: flows and Poisson jumps that are linear in the error, many instances at once.

For s' = A s between events and s <- (I + G_e) s at rate r_e, the second moment S = E s s' obeys

    dS/dt = M S + S M' + sum_e r_e G_e S G_e',        M = A + sum_e r_e G_e,

whose slowest mode is real and positive semidefinite. Laplacians here are of expected rates, Lambda_ij = -r_ij.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from theory.bounds._laplacians import Measured, Table, columns, laplacians, logarithmic, mean_free, tiled

WORST_CONDITION = 1e8
"""Instances whose eigenvectors are conditioned worse are not measured."""
GOSSIP_SIZES = (2, 3, 4, 5)
FORM_SIZES = (2, 3, 4, 6)
DADAO_SIZES = (2, 3, 4)
DADAO_CURVATURES = 4
DADAO_DIMENSION = columns(DADAO_SIZES) + 2 + DADAO_CURVATURES


def decay(
    flow: Float[np.ndarray, "m k k"],
    moves: Float[np.ndarray, "m e k"],
    looks: Float[np.ndarray, "m e k"],
    rates: Float[np.ndarray, "m e"],
) -> Float[np.ndarray, " m"]:
    """The exponent with which E||s||^2 decays, from the worst start, where jumps have rank one: G_e = move_e look_e'.

    Then G_e S G_e' = (look' S look) move move', and a growth s solves the eigenvalue equation if the nonnegative matrix
    R(s) = [look_e' X_f look_e] has the eigenvalue 1, with M X_f + X_f M' - s X_f = -r_f move_f move_f'. Its largest
    eigenvalue falls in s, from infinity at twice the abscissa of M.
    """
    values, vectors = np.linalg.eig(flow + np.einsum("me,mei,mej->mij", rates, moves, looks, optimize=True))
    inverse = np.linalg.inv(vectors)
    sent = np.einsum("mij,mej->mei", inverse, moves)
    seen = np.einsum("mij,mei->mej", vectors, looks)
    a, b = np.triu_indices(flow.shape[1])
    gains = rates[..., None] * _squares(sent) * np.where(a == b, 1, 2)
    gains = gains.transpose(0, 2, 1)
    views = _squares(seen)
    sums = values[:, a] + values[:, b].conj()

    def excess(growth: np.ndarray, rows: np.ndarray) -> np.ndarray:
        # 1 / rho(R) - 1 is nearly a straight line in s: it is one where a single mode counts.
        matrix = ((views[rows] / (growth[:, None] - sums[rows])[:, None]) @ gains[rows]).real
        return 1 / np.abs(np.linalg.eigvals(matrix)).max(1) - 1

    low = 2 * values.real.max(1)
    high = np.zeros(len(low))
    unstable = (low >= 0) | (excess(high, np.arange(len(low))) < 0)
    sizes = np.linalg.norm(moves, axis=2) * np.linalg.norm(looks, axis=2)
    high[unstable] = (2 * np.linalg.norm(flow, axis=(1, 2)) + np.sum(rates * (2 * sizes + sizes**2), 1))[unstable]
    growth = _root(excess, low, high)
    return np.where(np.linalg.cond(vectors) < WORST_CONDITION, -growth, np.nan)


def _squares(vectors: np.ndarray) -> np.ndarray:
    """v v* of each vector, on and above the diagonal, as only real parts of sums over all of it are wanted."""
    a, b = np.triu_indices(vectors.shape[-1])
    return vectors[..., a] * vectors[..., b].conj()


def _root(function: Callable[[np.ndarray, np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where increasing functions, -1 at `low`, are zero: the Illinois method with a bisection now and then."""
    found, rows = np.empty(len(low)), np.arange(len(low))
    at_low, at_high, last = np.full(len(low), -1.0), function(high, rows), np.zeros(len(low))
    for step in range(90):
        middle = (low + high) / 2 if step % 3 == 2 else (low * at_high - high * at_low) / (at_high - at_low)
        value = function(middle, rows)
        found[rows] = middle
        below = value < 0
        at_low = np.where(below, value, np.where(last < 0, at_low / 2, at_low))
        at_high = np.where(below, np.where(last > 0, at_high / 2, at_high), value)
        low, high = np.where(below, middle, low), np.where(below, high, middle)
        last = np.where(below, 1, -1)
        going = (np.abs(value) > 1e-12) & (high - low > 1e-13 * np.abs(low))
        rows = rows[going]
        low, high, at_low, at_high, last = (each[going] for each in (low, high, at_low, at_high, last))
        if not len(rows):
            break
    return found


def edges(size: int) -> Float[np.ndarray, "e n"]:
    """e_i - e_j of every pair of nodes."""
    first, second = np.triu_indices(size, 1)
    return np.eye(size)[first] - np.eye(size)[second]


def pair_rates(laplacian: Float[np.ndarray, "m n n"]) -> Float[np.ndarray, "m e"]:
    """The rates of the pairs of `edges`."""
    first, second = np.triu_indices(laplacian.shape[1], 1)
    return -laplacian[:, first, second]


def resistances(laplacian: Float[np.ndarray, "m n n"]) -> Float[np.ndarray, "m e"]:
    """Effective resistances between the pairs of `edges`."""
    n, pairs = laplacian.shape[1], edges(laplacian.shape[1])
    inverse = np.linalg.inv(laplacian + 1 / n)
    return np.einsum("ei,mij,ej->me", pairs, inverse, pairs, optimize=True)


def chis(laplacian: Float[np.ndarray, "m n n"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """chi_1 = 1 / lambda_2 and chi_2, half the largest effective resistance of an edge."""
    present = pair_rates(laplacian) > 0
    largest = np.where(present, resistances(laplacian), 0).max(1)
    return 1 / np.linalg.eigvalsh(laplacian)[:, 1], largest / 2


CHI_DIMENSION = columns(FORM_SIZES)


def smaller_chi(points: np.ndarray) -> Measured:
    """chi_2 of weighted graphs, with their chi_1 and total rate."""
    collected = Table(len(points))
    for rows, laplacian in laplacians(points, FORM_SIZES, named=True):
        chi_1, chi_2 = chis(laplacian)
        total = np.einsum("mii->m", laplacian)
        n = np.full(len(rows), laplacian.shape[1])
        collected.put(rows, chi_2, {"chi_1": chi_1, "rate_trace": total, "nodes": n})
    return collected.result()


def a2cid2_parameters(chi_1: np.ndarray, chi_2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """eta = 1 / (2 sqrt(chi_1 chi_2)) and alpha~ = sqrt(chi_1 / chi_2) / 2; alpha is 1/2."""
    return 0.5 / np.sqrt(chi_1 * chi_2), 0.5 * np.sqrt(chi_1 / chi_2)


def lyapunov_decay(points: np.ndarray) -> Measured:
    """The slowest momentary decay, over all states, of A2CiD2's Lyapunov function without gradients."""
    collected = Table(len(points))
    for rows, laplacian in laplacians(points, FORM_SIZES, named=True):
        chi_1, chi_2 = chis(laplacian)
        collected.put(rows, momentary_decay(laplacian), {"chi_1": chi_1, "chi_2": chi_2})
    return collected.result()


def momentary_decay(laplacian: Float[np.ndarray, "m n n"]) -> Float[np.ndarray, " m"]:
    """The same for given rates; the function is |x|^2 + |x~|^2_{Lambda^+} / chi_1.

    The generator of a quadratic form is one again: 2 <P s, M s> + sum_e r_e |G_e s|^2_P, largest relative to P.
    """
    n, basis = laplacian.shape[1], mean_free(laplacian.shape[1])
    chi_1, chi_2 = chis(laplacian)
    eta, tilde = (each[:, None, None] for each in a2cid2_parameters(chi_1, chi_2))
    reduced = basis.T @ laplacian @ basis
    zero, one = np.zeros_like(reduced), np.broadcast_to(np.eye(n - 1), reduced.shape)
    mean = _square([[-eta * one - 0.5 * reduced, eta * one], [eta * one - tilde * reduced, -eta * one]])
    norm = _square([[one, zero], [zero, np.linalg.inv(reduced) / chi_1[:, None, None]]])
    # |G_e s|^2_P = (x_i - x_j)^2 (2 alpha^2 + alpha~^2 R_ij / chi_1).
    weight = pair_rates(laplacian) * (0.5 + tilde[:, 0] ** 2 / chi_1[:, None] * resistances(laplacian))
    sides = edges(n) @ basis
    jumps = _square([[np.einsum("ei,me,ej->mij", sides, weight, sides, optimize=True), zero], [zero, zero]])
    form = norm @ mean + mean.transpose(0, 2, 1) @ norm + jumps
    root = np.linalg.inv(np.linalg.cholesky(norm))
    return -np.linalg.eigvalsh(root @ form @ root.transpose(0, 2, 1))[:, -1]


def _square(blocks: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    return np.concatenate([np.concatenate(list(row), 2) for row in blocks], 1)


GOSSIP_DIMENSION = columns(GOSSIP_SIZES)


def a2cid2_decay(points: np.ndarray, accelerated: bool) -> Measured:
    """How fast E|x - xbar|^2 decays without gradients, with A2CiD2 or plain pairwise averaging."""
    collected = Table(len(points))
    for rows, laplacian in laplacians(points, GOSSIP_SIZES, named=False):
        chi_1, chi_2 = chis(laplacian)
        collected.put(rows, gossip_decay(laplacian, accelerated), {"chi_1": chi_1, "chi_2": chi_2})
    return collected.result()


def gossip_decay(laplacian: Float[np.ndarray, "m n n"], accelerated: bool) -> Float[np.ndarray, " m"]:
    """The same for given rates."""
    n = laplacian.shape[1]
    sides = edges(n) @ mean_free(n)
    rates = pair_rates(laplacian)
    looks = np.broadcast_to(sides, (len(laplacian), *sides.shape))
    if not accelerated:
        return decay(np.zeros((len(laplacian), n - 1, n - 1)), -0.5 * looks, looks, rates)
    eta, tilde = a2cid2_parameters(*chis(laplacian))
    flow = eta[:, None, None] * np.kron([[-1.0, 1.0], [1.0, -1.0]], np.eye(n - 1))
    moves = np.concatenate([-0.5 * looks, -tilde[:, None, None] * looks], 2)
    return decay(flow, moves, np.concatenate([looks, np.zeros_like(looks)], 2), rates)


def dadao(points: np.ndarray) -> Measured:
    """How fast E||X - X*||^2 decays under DADAO on f_i(x) = h_i x^2 / 2, rates scaled up to 2 chi_1 chi_2 = 1."""
    collected = Table(len(points))
    rest = points[:, columns(DADAO_SIZES) :]
    for rows, laplacian in laplacians(points, DADAO_SIZES, named=False):
        n, u = laplacian.shape[1], rest[rows]
        condition = logarithmic(u[:, 0], 1.0, 1e4)
        curvature = condition[:, None] ** tiled(u[:, 2:], n)
        chi_1, chi_2 = chis(laplacian)
        # 2 chi_1 chi_2 is 1 on the edge of what is admitted.
        scale = np.sqrt(2 * chi_1 * chi_2 / logarithmic(u[:, 1], 1.0, 1e-2)) * (1 + 1e-12)
        measured = dadao_decay(laplacian * scale[:, None, None], curvature, np.ones(len(rows)), condition)
        values = {
            "strong_convexity": np.ones(len(rows)),
            "smoothness": condition,
            "chi_1": chi_1 / scale,
            "chi_2": chi_2 / scale,
        }
        collected.put(rows, measured, values)
    return collected.result()


def dadao_decay(
    laplacian: Float[np.ndarray, "m n n"],
    curvature: Float[np.ndarray, "m n"],
    strong_convexity: Float[np.ndarray, " m"],
    smoothness: Float[np.ndarray, " m"],
) -> Float[np.ndarray, " m"]:
    """The same for given rates and curvatures, with the method's own parameters (nu = mu / 2).

    The state is (x, x~, y, y~, z, z~), with z and z~ in coordinates of the vectors that sum to zero.
    """
    m, n = curvature.shape
    nu = strong_convexity / 2
    root = np.sqrt(nu / smoothness)
    eta, alpha, tilde, theta = root / 8, root / 4, root / 8, 0.5 / root
    beta_tilde = 2 / np.linalg.eigvalsh(laplacian)[:, 1] / root
    basis, pairs = mean_free(n), edges(n)
    x, xt, y, yt = (slice(k * n, (k + 1) * n) for k in range(4))
    z, zt = slice(4 * n, 5 * n - 1), slice(5 * n - 1, 6 * n - 2)
    one, small = np.eye(n), np.eye(n - 1)
    size = 6 * n - 2
    flow = np.zeros((m, size, size))
    for row, column, value, block in (
        (x, x, -eta, one),
        (x, xt, eta, one),
        (xt, x, eta, one),
        (xt, xt, -eta, one),
        (y, y, -alpha, one),
        (y, yt, alpha, one),
        (yt, xt, -theta * nu, one),
        (yt, y, -theta, one),
        (yt, z, -theta, basis),
        (z, z, -alpha, small),
        (z, zt, alpha, small),
        (zt, z, tilde, small),
        (zt, zt, -tilde, small),
    ):
        flow[:, row, column] = value[:, None, None] * block
    node = np.arange(n)
    looks, moves = np.zeros((2, m, n + len(pairs), size))
    looks[:, node, x.start + node] = curvature - nu[:, None]
    looks[:, node, yt.start + node] = -1
    moves[:, node, x.start + node] = -0.25 / smoothness[:, None]
    moves[:, node, xt.start + node] = -0.25 / np.sqrt(nu * smoothness)[:, None]
    moves[:, node, yt.start + node] = root[:, None] / 4 + 1
    sides = pairs @ basis
    looks[:, n:, y], looks[:, n:, z] = pairs, sides
    moves[:, n:, z], moves[:, n:, zt] = -0.5 * sides, -beta_tilde[:, None, None] * sides
    return decay(flow, moves, looks, np.concatenate([np.ones((m, n)), pair_rates(laplacian)], 1))


def continuized(points: np.ndarray) -> Measured:
    """The slowest momentary decay of f(x) - f* + mu / 2 |z - x*|^2 for f(x) = h x^2 / 2, mu <= h <= L = 1."""
    mu = logarithmic(points[:, 0], 1.0, 1e-6)
    h = mu ** (1 - points[:, 1])
    eta, gamma_tilde = np.sqrt(mu), 1 / np.sqrt(mu)
    norm = np.stack([np.stack([h / 2, 0 * h], -1), np.stack([0 * h, mu / 2], -1)], -2)
    flow = eta[:, None, None] * np.array([[-1.0, 1.0], [1.0, -1.0]])
    jump = np.stack([np.stack([-h, 0 * h], -1), np.stack([-gamma_tilde * h, 0 * h], -1)], -2)
    mean = flow + jump
    form = norm @ mean + mean.transpose(0, 2, 1) @ norm + jump.transpose(0, 2, 1) @ norm @ jump
    root = np.sqrt(np.linalg.inv(norm))
    slowest = -np.linalg.eigvalsh(root @ form @ root)[:, -1]
    return slowest, {"strong_convexity": mu, "smoothness": np.ones_like(mu)}


FIRST, LAST, SUBSTEPS = 1e-4, 30.0, 1000


def continuized_convex(points: np.ndarray) -> Measured:
    """E f(x_t) - f* for f(x) = h x^2 / 2 with h <= L = 1, started at 1 with parameters that grow with the time t.

    The moments (E x^2, E x z, E z^2) obey a linear equation, integrated in log t (Runge-Kutta of fourth order).
    """
    h = logarithmic(points[:, 0], 1.0, 1e-6)
    stop = logarithmic(points[:, 1], 0.1, LAST)

    def slope(t: float, xx: np.ndarray, xz: np.ndarray, zz: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                4 * (xz - xx) + t * ((1 - h) ** 2 - 1) * xx,
                2 * (zz - xz) - t * h * xz - t**2 / 2 * h * (1 - h) * xx,
                -(t**2) * h * xz + t**3 / 4 * h**2 * xx,
            ]
        )

    width = np.log(LAST / FIRST) / SUBSTEPS
    index = np.round(np.log(stop / FIRST) / width).astype(int)
    moments, measured = np.ones((3, len(h))), np.empty(len(h))
    for k in range(SUBSTEPS + 1):
        t = FIRST * np.exp(k * width)
        measured[index == k] = (h / 2 * moments[0])[index == k]
        middle = t * np.exp(width / 2)
        first = slope(t, *moments)
        second = slope(middle, *(moments + width / 2 * first))
        third = slope(middle, *(moments + width / 2 * second))
        fourth = slope(t * np.exp(width), *(moments + width * third))
        moments = moments + width / 6 * (first + 2 * second + 2 * third + fourth)
    known = {"time": FIRST * np.exp(index * width), "smoothness": np.ones_like(h), "initial_distance": np.ones_like(h)}
    return measured, known
