r"""Steps of accelerated decentralised methods, as they are published, and their exact rates on quadratics.

Each step is a function of its state, so that the same code runs on recorded problems and, applied to a basis of the
state space, gives the matrix of a step on f_i(x) = h_i x^2 / 2. `gossip` is multiplication by a positive semidefinite
matrix G whose kernel is consensus. Dual variables that enter through G alone are taken without their mean.

References:
    Scaman et al., 2017 (SSDA, MSDA); Kovalev, Salim, Richtarik, 2020 (APAPC, OPAPC); Kovalev et al., 2021 (ADOM);
    Kovalev, Gasanov, Gasnikov, Richtarik, 2021 (ADOM+).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from theory.bounds._laplacians import Measured, Table, columns, laplacians, logarithmic, mean_free, tiled

State = tuple[Any, ...]
Operator = Callable[[Any], Any]
Step = Callable[[State, Operator, Operator, dict[str, Any]], State]

SIZES = (2, 3, 4, 5)
CURVATURES = 5
DIMENSION = columns(SIZES) + 2 + CURVATURES


def ssda(state: State, dual_gradient: Operator, gossip: Operator, c: dict[str, Any]) -> State:
    """Nesterov's method on the dual: y+ = x - eta G grad f*(x), x+ = (1 + m) y+ - m y."""
    x, y = state
    moved = x - c["eta"] * gossip(dual_gradient(x))
    return (1 + c["momentum"]) * moved - c["momentum"] * y, moved


def ssda_constants(mu: Any, L: Any, smallest: Any, largest: Any) -> dict[str, Any]:
    """Scaman et al., Algorithm 1; the eigenvalues are those of G without 0."""
    root = np.sqrt(L / mu * largest / smallest)
    return {"eta": mu / largest, "momentum": (root - 1) / (root + 1)}


def apapc(state: State, gradient: Operator, gossip: Operator, c: dict[str, Any]) -> State:
    """Proximal alternating predictor-corrector with Nesterov's extrapolation."""
    x, xf, y = state
    tau, eta, alpha = c["tau"], c["eta"], c["alpha"]
    xg = tau * x + (1 - tau) * xf
    pull = gradient(xg) - alpha * xg
    guess = (x - eta * (pull + y)) / (1 + eta * alpha)
    y = y + c["theta"] * gossip(guess)
    moved = (x - eta * (pull + y)) / (1 + eta * alpha)
    return moved, xg + 2 * tau / (2 - tau) * (moved - x), y


def apapc_constants(mu: Any, L: Any, smallest: Any, largest: Any) -> dict[str, Any]:
    """Kovalev, Salim, Richtarik, Algorithm 2."""
    tau = np.minimum(1, 0.5 * np.sqrt(largest / smallest * mu / L))
    eta = 1 / (4 * tau * L)
    return {"tau": tau, "eta": eta, "theta": 1 / (eta * largest), "alpha": mu}


def opapc_constants(mu: Any, L: Any) -> dict[str, Any]:
    """Kovalev, Salim, Richtarik, Algorithm 3; the gossip is `chebyshev` with eigenvalues in [11/15, 19/15]."""
    tau = np.minimum(1, 0.5 * np.sqrt(19 / 15 * mu / L))
    eta = 1 / (4 * tau * L)
    return {"tau": tau, "eta": eta, "theta": 15 / (19 * eta), "alpha": mu}


def adom(state: State, dual_gradient: Operator, gossip: Operator, c: dict[str, Any]) -> State:
    """Accelerated dual method for graphs that change, with error feedback on the gossip."""
    z, zf, m = state
    zg = c["tau"] * z + (1 - c["tau"]) * zf
    x = dual_gradient(zg)
    sent = c["sigma"] * gossip(m - c["eta"] * x)
    moved = z + c["eta"] * c["alpha"] * (zg - z) + sent
    return moved, zg - c["theta"] * gossip(x), m - c["eta"] * x - sent


def adom_constants(mu: Any, L: Any, smallest: Any, largest: Any) -> dict[str, Any]:
    """Kovalev et al., ICML 2021; the eigenvalues bound those of all graphs."""
    return {
        "alpha": 1 / (2 * L),
        "eta": 2 * smallest * np.sqrt(mu * L) / (7 * largest),
        "theta": mu / largest,
        "sigma": 1 / largest,
        "tau": smallest / (7 * largest) * np.sqrt(mu / L),
    }


def adom_plus(state: State, gradient: Operator, gossip: Operator, c: dict[str, Any]) -> State:
    """Primal accelerated method for graphs that change, lambda_max(G) = 1; the implicit step in (x, y) is solved."""
    x, xf, y, yf, z, zf, m = state
    eta, alpha, nu, theta, beta, gamma = (c[name] for name in ("eta", "alpha", "nu", "theta", "beta", "gamma"))
    xg = c["tau_1"] * x + (1 - c["tau_1"]) * xf
    yg = c["sigma_1"] * y + (1 - c["sigma_1"]) * yf
    zg = c["sigma_1"] * z + (1 - c["sigma_1"]) * zf
    pull = gradient(xg) - nu * xg
    shrink = 1 / (1 + eta * alpha)
    right = y + theta * beta * pull - theta / nu * (yg + zg) - theta * shrink * (x + eta * alpha * xg - eta * pull)
    y_new = right / (1 + theta * beta + theta * eta * shrink)
    x_new = shrink * (x + eta * alpha * xg - eta * (pull - y_new))
    force = gamma / nu * (yg + zg) + m
    sent = gossip(force)
    return (
        x_new,
        xg + c["tau_2"] * (x_new - x),
        y_new,
        yg + c["sigma_2"] * (y_new - y),
        z + gamma * c["delta"] * (zg - z) - sent,
        zg - c["zeta"] * gossip(yg + zg),
        force - sent,
    )


def adom_plus_constants(mu: Any, L: Any, chi: Any) -> dict[str, Any]:
    """Kovalev, Gasanov, Gasnikov, Richtarik, NeurIPS 2021; chi is the largest over all graphs."""
    tau_2 = np.sqrt(mu / L)
    sigma_2 = tau_2 / (16 * chi)
    nu = mu / 2
    return {
        "tau_2": tau_2,
        "tau_1": 1 / (1 / tau_2 + 0.5),
        "sigma_2": sigma_2,
        "sigma_1": 1 / (1 / sigma_2 + 0.5),
        "eta": 1 / (L * tau_2),
        "alpha": nu,
        "nu": nu,
        "beta": 1 / (2 * L),
        "theta": nu / (4 * sigma_2),
        "gamma": nu / (14 * sigma_2 * chi**2),
        "delta": 1 / (17 * L),
        "zeta": 0.5,
    }


def chebyshev(
    gossip: Float[np.ndarray, "m n n"], rounds: Any
) -> tuple[Float[np.ndarray, "m n n"], Float[np.ndarray, " m"]]:
    """P(G) = I - T_K(c_2 (I - c_3 G)) / T_K(c_2) of K rounds, and how far from 1 its nonzero eigenvalues are."""
    values, vectors = np.linalg.eigh(gossip)
    smallest, largest = values[:, 1:2], values[:, -1:]
    rounds = np.asarray(rounds, np.float64)[:, None]
    center = (largest + smallest) / np.maximum(largest - smallest, 1e-12 * largest)
    # cosh(K arcosh(c_2)) overflows where P is a projection to rounding.
    scale = 1 / np.cosh(np.minimum(rounds * np.arccosh(center), 700))
    inside = (largest + smallest - 2 * values) / np.maximum(largest - smallest, 1e-12 * largest)
    polynomial = 1 - np.cos(rounds * np.arccos(np.clip(inside, -1, 1))) * scale
    polynomial[:, 0] = 0
    return np.einsum("mik,mk,mjk->mij", vectors, polynomial, vectors, optimize=True), scale[:, 0]


def matrix(
    step: Step,
    without_mean: Sequence[bool],
    oracle: Float[np.ndarray, "m n"],
    gossip: Float[np.ndarray, "m n n"],
    constants: dict[str, Any],
) -> Float[np.ndarray, "m k k"]:
    """The matrix of a step on quadratics, where the oracle multiplies node i by oracle_i.

    Args:
      step: one of the functions above.
      without_mean: for each part of the state, whether its mean over nodes is left out.
      oracle: curvatures h_i, or 1 / h_i where the oracle is of the conjugates.
      gossip: G.
      constants: those of the step, each [m] or a number.
    """
    m, n = oracle.shape
    bases = [mean_free(n) if left_out else np.eye(n) for left_out in without_mean]
    ends = np.cumsum([basis.shape[1] for basis in bases])
    state = []
    for basis, end in zip(bases, ends, strict=True):
        part = np.zeros((m, n, ends[-1]))
        part[:, :, end - basis.shape[1] : end] = basis
        state.append(part)
    shaped = {name: value[:, None, None] if np.ndim(value) else value for name, value in constants.items()}
    after = step(tuple(state), lambda x: oracle[:, :, None] * x, lambda x: gossip @ x, shaped)
    return np.concatenate([basis.T @ part for basis, part in zip(bases, after, strict=True)], 1)


def _instances(points: np.ndarray, largest_chi: float) -> Any:
    """(rows, G, smallest and largest nonzero eigenvalue of G, h, L / mu); mu = 1."""
    for rows, laplacian in laplacians(points, SIZES):
        values = np.linalg.eigvalsh(laplacian)
        kept = values[:, -1] <= largest_chi * values[:, 1]
        rows, laplacian, values = rows[kept], laplacian[kept], values[kept]
        u = points[rows, columns(SIZES) :]
        condition = logarithmic(u[:, 0], 1.0, 1e4)
        h = condition[:, None] ** tiled(u[:, 2:], laplacian.shape[1])
        yield rows, laplacian, values[:, 1], values[:, -1], h, condition, u[:, 1]


def _radius(matrices: np.ndarray) -> np.ndarray:
    return np.abs(np.linalg.eigvals(matrices)).max(1)


def squared_rate(points: np.ndarray, method: str) -> Measured:
    """The squared factor per step of a method on a fixed graph ("ssda", "msda", "apapc", "opapc")."""
    collected = Table(len(points))
    for rows, gossip, smallest, largest, h, condition, _ in _instances(points, 1e4):
        mu, chi = np.ones(len(rows)), largest / smallest
        known = {"strong_convexity": mu, "smoothness": condition, "gossip_condition": chi}
        if method == "msda":
            # Rounding must not take a round where 1 / sqrt(gamma) is whole.
            known["rounds"] = np.floor(np.sqrt(chi) + 1e-9)
            gossip, radius = chebyshev(gossip, known["rounds"])
            smallest, largest = 1 - radius, 1 + radius
        elif method == "opapc":
            gossip, _ = chebyshev(gossip, np.ceil(np.sqrt(chi) - 1e-9))
        if method in ("ssda", "msda"):
            constants = ssda_constants(mu, condition, smallest, largest)
            step = matrix(ssda, (True, True), 1 / h, gossip, constants)
        else:
            optimal = method == "opapc"
            constants = opapc_constants(mu, condition) if optimal else apapc_constants(mu, condition, smallest, largest)
            step = matrix(apapc, (False, False, True), h, gossip, constants)
        rate = _radius(step) ** 2
        # One step to the optimum, up to rounding, is no rate.
        collected.put(rows, np.where(rate > 1e-12, rate, np.nan), known)
    return collected.result()


def alternating_rate(points: np.ndarray, method: str) -> Measured:
    """The squared factor per step of "adom" or "adom_plus" where two graphs take turns; the second permutes nodes."""
    collected = Table(len(points))
    for rows, first, smallest, largest, h, condition, share in _instances(points, 1e3):
        mu = np.ones(len(rows))
        second = np.roll(first, 1, (1, 2)) * (1 - 0.5 * share)[:, None, None]
        if method == "adom":
            constants = adom_constants(mu, condition, smallest * (1 - 0.5 * share), largest)
            parts, oracle, function = (True, True, True), 1 / h, adom
            chi = largest / (smallest * (1 - 0.5 * share))
        else:
            chi = largest / smallest
            first, second = (G / np.linalg.eigvalsh(G)[:, -1:, None] for G in (first, second))
            constants = adom_plus_constants(mu, condition, chi)
            parts, oracle, function = (False, False, False, False, True, True, True), h, adom_plus
        steps = [matrix(function, parts, oracle, gossip, constants) for gossip in (first, second)]
        known = {"strong_convexity": mu, "smoothness": condition, "gossip_condition": chi}
        collected.put(rows, _radius(steps[1] @ steps[0]), known)
    return collected.result()
