r"""One node: gradient descent, whose worst case is known exactly, and the extragradient method.

Gradient descent: g(x) - g(x*) = H (x - x*) for a symmetric \mu I <= H <= L I, and |I - \eta H| <= max |1 - \eta h|
over h in {\mu, L}, attained by f = \mu x^2 / 2 or L x^2 / 2.

Extragradient, x' = x - \eta g(x), x <- x - \eta g(x'), on a \mu-strongly monotone, L-Lipschitz g: with d = |x - x'|,

    |x_+ - x*|^2 <= |x - x*|^2 - (1 - \eta^2 L^2) d^2 - 2 \eta \mu |x' - x*|^2,    |x - x*|^2 <= 2 d^2 + 2 |x' - x*|^2,

so that the factor is 1 - \eta \mu while \eta^2 L^2 + 2 \eta \mu <= 1, and 1 - \mu / (4 L) at \eta = 1 / (4 L).
"""

import numpy as np
import sympy

from theory.bounds._bound import Bound, Search
from theory.bounds._laplacians import Measured, logarithmic
from theory.bounds._quadratics import radius
from theory.bounds.symbols import initial_distance, learning_rate, smoothness, steps, strong_convexity, symbol

eta, mu, L = learning_rate, strong_convexity, smoothness
monotonicity = symbol("monotonicity", r"\mu", "(g(x) - g(y))'(x - y) >= mu |x - y|^2")
lipschitz = symbol("lipschitz", "L", "|g(x) - g(y)| <= L |x - y|")

NODES, LONGEST, SIZE = 6, 60, 4


def _descent(points: np.ndarray) -> Measured:
    """|I - eta mean A_i|, the worst factor of a step on quadratics."""
    smoothness = logarithmic(points[:, 0], 0.1, 10)
    strong_convexity = smoothness / logarithmic(points[:, 1], 1, 1e4)
    step = 2 / smoothness * np.maximum(points[:, 2], 1e-4) * (1 - 1e-9)
    share, angle = points[:, 3 : 3 + 2 * NODES].reshape(-1, NODES, 2), np.pi * points[:, 3 + 2 * NODES :]
    curvature = strong_convexity[:, None, None] + (smoothness - strong_convexity)[:, None, None] * share
    basis = np.stack([np.cos(angle), np.sin(angle)], axis=2)
    other = np.stack([-np.sin(angle), np.cos(angle)], axis=2)
    hessian = np.einsum("mn,mni,mnj->mij", curvature[..., 0], basis, basis)
    hessian = (hessian + np.einsum("mn,mni,mnj->mij", curvature[..., 1], other, other)) / NODES
    factor = np.abs(np.linalg.eigvalsh(np.eye(2) - step[:, None, None] * hessian)).max(1)
    return factor, {"learning_rate": step, "strong_convexity": strong_convexity, "smoothness": smoothness}


def _huber(points: np.ndarray) -> Measured:
    """f(x^T) - f* of gradient descent on Huber's functions, quadratic up to a threshold and linear beyond."""
    smoothness, distance = logarithmic(points[:, 0], 0.1, 10), logarithmic(points[:, 1], 0.1, 10)
    step = np.maximum(points[:, 2], 1e-3) / smoothness
    count = 1 + np.round((LONGEST - 1) * points[:, 3]).astype(int)
    worst = 1 / (2 * count * step * smoothness + 1)
    threshold = distance * worst ** (1 + (1 - points[:, 4]) * np.where(points[:, 5] < 0.5, -1, 1))
    x, result = distance, np.empty(len(points))
    for number in range(1, LONGEST + 1):
        x = x - step * smoothness * np.clip(x, -threshold, threshold)
        size = np.abs(x)
        value = smoothness * np.where(size <= threshold, size**2 / 2, threshold * (size - threshold / 2))
        result = np.where(count == number, value, result)
    values = {"learning_rate": step, "smoothness": smoothness, "initial_distance": distance}
    return result, values | {"steps": count.astype(float)}


def _operators(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(M, mu, L) of linear operators with a symmetric part of any conditioning and a skew part of any size."""
    raw = 2 * points[:, 3 : 3 + SIZE**2].reshape(-1, SIZE, SIZE) - 1
    skew = raw - raw.transpose(0, 2, 1)
    base = logarithmic(points[:, 0], 1e-4, 1.0)[:, None, None] * np.eye(SIZE)
    operator = base + points[:, 1, None, None] * raw @ raw.transpose(0, 2, 1) + points[:, 2, None, None] * skew
    symmetric = (operator + operator.transpose(0, 2, 1)) / 2
    return operator, np.linalg.eigvalsh(symmetric)[:, 0], np.linalg.norm(operator, 2, axis=(1, 2))


def _extragradient(points: np.ndarray) -> Measured:
    """|I - eta M + eta^2 M^2|^2, the worst factor of a step."""
    operator, low, high = _operators(points)
    # The largest step admitted solves (eta L)^2 + 2 eta mu = 1.
    limit = 1 / (low + np.sqrt(low**2 + high**2))
    step = limit * np.maximum(points[:, -1], 1e-3) * (1 - 1e-9)
    moved = step[:, None, None] * operator
    factor = np.linalg.norm(np.eye(SIZE) - moved + moved @ moved, 2, axis=(1, 2)) ** 2
    return factor, {"learning_rate": step, "monotonicity": low, "lipschitz": high}


def _optimistic(points: np.ndarray) -> Measured:
    """The squared rate of z <- z - 2 eta M z + eta M z_before at eta = 1 / (4 L)."""
    operator, low, high = _operators(points)
    moved = operator / (4 * high[:, None, None])
    identity = np.broadcast_to(np.eye(SIZE), moved.shape)
    upper = np.concatenate([identity - 2 * moved, moved], axis=2)
    lower = np.concatenate([identity, np.zeros_like(moved)], axis=2)
    factor = radius(np.concatenate([upper, lower], axis=1)) ** 2
    return factor, {"monotonicity": low, "lipschitz": high}


BOUNDS = (
    Bound(
        name="gradient_descent",
        statement="Gradient descent contracts the distance to the optimum by this, and no less on the worst quadratic.",
        quantity=r"\|x^{t+1} - x^*\| / \|x^t - x^*\|",
        expression=sympy.Max(1 - eta * mu, eta * L - 1),
        reference="Polyak, Introduction to Optimization, 1987, section 1.4, Theorem 3",
        evidence="derived",
        rate=True,
        of="mean",
        condition=eta * L < 2,
        assumptions=("every node uses the exact average of all gradients",),
        methods=("all_reduce_sgd",),
        search=Search(3 + 3 * NODES, _descent),
    ),
    Bound(
        name="gradient_descent_convex",
        statement="Gradient descent on a convex function; Huber's function with the right threshold attains it.",
        quantity=r"f(x^T) - f^*",
        expression=L * initial_distance**2 / (4 * steps * eta * L + 2),
        reference="Drori, Teboulle, Mathematical Programming 2014, Theorem 3.1",
        evidence="recalled",
        of="gap",
        condition=eta * L <= 1,
        assumptions=("f convex and L-smooth, mu = 0",),
        methods=("all_reduce_sgd",),
        search=Search(6, _huber),
    ),
    Bound(
        name="extragradient",
        statement="The extragradient method contracts the squared distance to the solution by 1 - eta mu.",
        quantity=r"\|x^{t+1} - x^*\|^2 / \|x^t - x^*\|^2",
        expression=1 - eta * monotonicity,
        reference="Mokhtari, Ozdaglar, Pattathil, AISTATS 2020 (1 - 1/(4 kappa) at eta = 1/(4 L)); the steps above",
        evidence="derived",
        rate=True,
        squared=True,
        of="mean",
        condition=(eta * lipschitz) ** 2 + 2 * eta * monotonicity <= 1,
        assumptions=("g strongly monotone and Lipschitz",),
        search=Search(4 + SIZE**2, _extragradient),
    ),
    Bound(
        name="optimistic_gradient",
        statement="Optimistic gradient descent-ascent with step size 1 / (4 L) converges at this rate.",
        quantity=r"\limsup_t \|x^t - x^*\|^{2/t}",
        expression=1 - monotonicity / (4 * lipschitz),
        reference="Mokhtari, Ozdaglar, Pattathil, AISTATS 2020, Theorem 4",
        evidence="recalled",
        rate=True,
        squared=True,
        of="mean",
        assumptions=("g strongly monotone and Lipschitz", "step size 1 / (4 L)"),
        search=Search(3 + SIZE**2, _optimistic),
    ),
)
