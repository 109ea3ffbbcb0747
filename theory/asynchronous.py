r"""Exact second moments of DADAO, A2CiD2 and pairwise averaging: how fast they decay, and where noise leaves them.

On quadratics the methods are linear flows with linear jumps at Poisson times, so that `theory.generator` has their
exact rates. Everything here builds drift and jumps from a Laplacian of rates, and hands them to
`theory.low_rank_events`: an exchange over a link reads one number, and so does a gradient (two with momentum).

A2CiD2, with m_e = x_i - x_j of the link e = (i, j), and b the momentum of the inner SGD:

    dx = \eta (x~ - x) dt - \alpha \sum_e (e_i - e_j) m_e dM_e - \gamma v dN,    v_i <- b v_i + grad f_i(x_i),
    dx~ = \eta (x - x~) dt - \alpha~ \sum_e (e_i - e_j) m_e dM_e - \gamma v dN.

The baseline, plain averaging of pairs, has \eta = 0 and \alpha~ = \alpha = 1/2, so that x~ = x. DADAO's flow and jumps
are those of `adozoo.dadao`. Time runs in units of a node's mean time per gradient.

References:
    Nabli, Oyallon, "DADAO: decoupled accelerated decentralized asynchronous optimization", ICML 2023.
    Nabli, Belilovsky, Oyallon, "A2CiD2: accelerating asynchronous communication in decentralized deep learning",
    NeurIPS 2023.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from adozoo._checks import check_number
from adozoo.asynchronous._parameters import acid_parameters, dadao_parameters
from adozoo.resistance import LaplacianLike, chi, rate_laplacian
from theory.bounds._laplacians import mean_free
from theory.generator import Event, GeneratorRate
from theory.low_rank_events import low_rank_rate, low_rank_stationary


class LinearEvents(NamedTuple):
    """A linear event-driven method, as `theory.generator_rate` takes it.

    Attributes:
      drift: A, [N, N].
      events: the clocks, exchanges first.
      basis: orthonormal basis [N, k] of the states that count.
      offsets: what each event adds whatever the state, [events, N].
    """

    drift: Float[np.ndarray, "N N"]
    events: list[Event]
    basis: Float[np.ndarray, "N k"]
    offsets: Float[np.ndarray, "events N"]


class AcidStationary(NamedTuple):
    r"""Where a method settles: how far nodes are from their mean, in units of (\gamma / (1 - b))^2.

    Attributes:
      variance: (1/n) \sum_i E |x_i - \bar x - E(x_i - \bar x)|^2, of gradient noise and of random times.
      bias: (1/n) \sum_i |E(x_i - \bar x)|^2, of gradients that differ between nodes.
    """

    variance: float
    bias: float

    @property
    def consensus_distance(self) -> float:
        """Their sum, (1/n) E ||x - xbar||^2."""
        return self.variance + self.bias


def acid_events(
    laplacian: LaplacianLike,
    accelerated: bool = True,
    momentum: float = 0.0,
    learning_rate: float = 1.0,
    curvatures: Float[np.ndarray, " n"] | None = None,
    gradients: Float[np.ndarray, " n"] | None = None,
    noise: float = 0.0,
) -> LinearEvents:
    r"""A2CiD2 or its baseline on f_i(x) = h_i x^2 / 2 + g_i x, with gradient noise: drift, jumps and basis.

    States are x, x~ (A2CiD2 only), v (with momentum only), [n] each. Without curvatures the average drifts freely: only
    deviations from it count. Without gradients and noise as well, nodes only gossip.

    Args:
      laplacian: the links' rates; what `adozoo.resistance.rate_laplacian` accepts.
      accelerated: False for the baseline.
      momentum: b of the inner SGD, in [0, 1).
      learning_rate: \gamma.
      curvatures: h, [n]; 0 by default.
      gradients: g, [n]; 0 by default.
      noise: standard deviation of each gradient.

    Returns:
      `LinearEvents`.

    Raises:
      ValueError: for shapes that do not fit, numbers out of range, or a single node.

    Example:
      >>> system = theory.acid_events(adozoo.graphs.ring(4))
      >>> system.drift.shape, len(system.events), system.basis.shape
      ((8, 8), 4, (8, 6))
    """
    Lambda = _dense("acid_events", laplacian)
    n = len(Lambda)
    check_number("acid_events", "momentum", momentum, high=1.0, closed=True)
    check_number("acid_events", "learning_rate", learning_rate)
    h, g = (_nodes("acid_events", *pair, n) for pair in (("curvatures", curvatures), ("gradients", gradients)))
    eta, alpha, alpha_tilde = acid_parameters(*chi(Lambda), accelerated)
    names = ["x", *(["x~"] if accelerated else []), *(["v"] if momentum else [])]
    moved = np.array([{"x": alpha, "x~": alpha_tilde, "v": 0.0}[name] for name in names])
    read = np.eye(len(names))[0]
    flow = np.zeros((len(names), len(names)))
    if accelerated:
        flow[:2, :2] = eta * np.array([[-1.0, 1.0], [1.0, -1.0]])
    events = [Event(rate, np.kron(np.outer(-moved, read), np.outer(e, e))) for rate, e in _links(Lambda)]
    offsets = [np.zeros(len(names) * n)] * len(events)
    # Deviations from the mean are a system of their own only where gradients do not depend on x.
    view = np.eye(n) if curvatures is not None else np.eye(n) - 1 / n
    blocks = [np.eye(n) if name == "v" or curvatures is not None else mean_free(n) for name in names]
    for i in range(n) if curvatures is not None or gradients is not None or noise else ():
        own = np.eye(n)[i]
        step = np.concatenate([own if name == "v" else -learning_rate * view[i] for name in names])
        seen = np.concatenate([h[i] * own if name == "x" else momentum * own * (name == "v") for name in names])
        jump = np.outer(step, seen)
        if momentum:
            jump[-n + i, -n + i] -= 1.0  # v is replaced
        events.append(Event(1.0, jump, noise**2 * np.outer(step, step) if noise else None))
        offsets.append(g[i] * step)
    return LinearEvents(np.kron(flow, np.eye(n)), events, scipy.linalg.block_diag(*blocks), np.array(offsets))


def acid_rate(
    laplacian: LaplacianLike,
    accelerated: bool = True,
    curvatures: Float[np.ndarray, " n"] | None = None,
    learning_rate: float = 1.0,
    momentum: float = 0.0,
) -> GeneratorRate:
    r"""The exact exponents of A2CiD2 (or of averaging pairs), of gossip alone or on quadratics.

    Without curvatures, of E ||x - \bar x||^2 + E ||x~ - \bar x||^2 under exchanges alone, which
    `theory.bounds.entry("a2cid2_consensus")` bounds; else of the squared distance to a common minimiser.

    Args:
      laplacian: the links' rates; what `adozoo.resistance.rate_laplacian` accepts.
      accelerated: False for the baseline.
      curvatures: h_i of f_i(x) = h_i x^2 / 2, [n]; None for gossip alone.
      learning_rate: \gamma.
      momentum: b of the inner SGD.

    Returns:
      `GeneratorRate`, exponents per unit of time: negative where errors decay.

    Raises:
      ValueError: what `acid_events` refuses.

    Example:
      >>> ring = adozoo.resistance.normalize_rates(adozoo.graphs.ring(16), "node_rate")
      >>> [
      ...     round(-theory.acid_rate(ring, accelerated).second_moment, 4)
      ...     for accelerated in (True, False)
      ... ]
      [0.1986, 0.0754]
    """
    memory = 0.0 if curvatures is None else momentum
    return low_rank_rate(*acid_events(laplacian, accelerated, memory, learning_rate, curvatures)[:3])


def acid_stationary(
    laplacian: LaplacianLike,
    momentum: float = 0.0,
    accelerated: bool = True,
    gradients: Float[np.ndarray, " n"] | None = None,
    noise: float = 1.0,
    curvatures: Float[np.ndarray, " n"] | None = None,
    learning_rate: float = 1.0,
) -> AcidStationary:
    r"""How far from each other noise and heterogeneity keep the nodes of A2CiD2, or of its baseline, for ever.

    Each gradient is h_i x_i + g_i plus white noise. Without curvature the result depends on \gamma through its units
    alone, and the bias is 4 |\Lambda^+ (g - \bar g)|^2 / (n (1/2 + \tilde\alpha)^2), \tilde\alpha = 1/2 for the
    baseline.

    Args:
      laplacian: the links' rates; what `adozoo.resistance.rate_laplacian` accepts.
      momentum: b of the inner SGD, in [0, 1).
      accelerated: False for the baseline.
      gradients: g, [n]; 0 by default.
      noise: standard deviation of a gradient.
      curvatures: h, [n]; 0 by default.
      learning_rate: \gamma; without curvatures it has no effect.

    Returns:
      `AcidStationary`; inf where second moments grow.

    Raises:
      ValueError: what `acid_events` refuses.

    Example:
      >>> ring = adozoo.resistance.normalize_rates(adozoo.graphs.ring(16), "node_rate")
      >>> for momentum in (0.0, 0.9):  # the advantage comes with momentum
      ...     found = [
      ...         theory.acid_stationary(ring, momentum, accelerated)
      ...         for accelerated in (True, False)
      ...     ]
      ...     print([round(each.variance, 3) for each in found])
      [3.326, 3.535]
      [0.814, 1.783]
    """
    system = acid_events(laplacian, accelerated, momentum, learning_rate, curvatures, gradients, noise)
    drift, events, basis, offsets = system
    rates = np.array([event.rate for event in events])
    inner = basis.T @ (drift + sum(event.rate * event.jump for event in events)) @ basis
    mean = basis @ np.linalg.solve(inner, -basis.T @ (rates @ offsets))
    noisy = []
    for event, offset in zip(events, offsets, strict=True):
        kick = event.jump @ mean + offset  # its times are random
        noisy.append(event._replace(noise=np.outer(kick, kick) + (0 if event.noise is None else event.noise)))
    covariance = low_rank_stationary(drift, noisy, basis)
    n = rate_laplacian(laplacian).shape[0]
    away = np.eye(n) - 1 / n
    unit = n * (learning_rate / (1 - momentum)) ** 2
    spread = np.trace(away @ covariance[:n, :n] @ away) if np.isfinite(covariance).all() else np.inf
    return AcidStationary(float(spread / unit), float(np.sum((away @ mean[:n]) ** 2) / unit))


def dadao_events(
    laplacian: LaplacianLike, curvatures: Float[np.ndarray, " n"], strong_convexity: float, smoothness: float
) -> LinearEvents:
    r"""DADAO on f_i(x) = h_i x^2 / 2: drift, jumps and basis on (x, x~, y, y~, z, z~), [n] each, z and z~ of sum zero.

    Args:
      laplacian: the links' rates; what `adozoo.resistance.rate_laplacian` accepts. The theory asks for 2 chi_1 chi_2 <=
        1, which `theory.dadao_rates` brings about.
      curvatures: h, [n], between the two constants.
      strong_convexity: \mu that the method is told.
      smoothness: L that the method is told.

    Returns:
      `LinearEvents`.

    Raises:
      ValueError: for shapes that do not fit, curvatures outside of [\mu, L], or a single node.

    Example:
      >>> ring = theory.dadao_rates(adozoo.graphs.ring(4))
      >>> system = theory.dadao_events(ring, np.array([1.0, 2.0, 3.0, 4.0]), 1.0, 4.0)
      >>> system.drift.shape, len(system.events), system.basis.shape
      ((24, 24), 8, (24, 22))
    """
    Lambda = _dense("dadao_events", laplacian)
    n, h = len(Lambda), np.asarray(curvatures, np.float64)
    p = dadao_parameters(strong_convexity, smoothness, chi(Lambda).chi_1)
    inside = h.shape == (n,) and h.min() >= strong_convexity * (1 - 1e-12) and h.max() <= smoothness * (1 + 1e-12)
    if not inside:
        raise ValueError(
            f"dadao_events: curvatures must be [{n}], within [strong_convexity, smoothness] = [{strong_convexity}, "
            f"{smoothness}], got {h}. Pass the smallest and the largest of them as the constants."
        )
    flow = np.zeros((6, 6))
    flow[0, :2] = -p.eta, p.eta
    flow[1, :2] = p.eta_tilde, -p.eta_tilde
    flow[2, 2:4] = -p.alpha, p.alpha
    flow[3, [1, 2, 4]] = -p.theta * p.nu, -p.theta, -p.theta
    flow[4, 4:] = -p.alpha, p.alpha
    flow[5, 4:] = p.alpha_tilde, -p.alpha_tilde
    step = np.array([0.0, 0.0, 0.0, 0.0, -p.beta, -p.beta_tilde])
    exchange = np.outer(step, [0.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    events = [Event(rate, np.kron(exchange, np.outer(e, e))) for rate, e in _links(Lambda)]
    step = np.array([-p.gamma, -p.gamma_tilde, 0.0, p.delta + p.delta_tilde, 0.0, 0.0])
    for i, own in enumerate(np.eye(n)):
        gradient = np.outer(step, [h[i] - p.nu, 0.0, 0.0, -1.0, 0.0, 0.0])
        events.append(Event(1.0, np.kron(gradient, np.outer(own, own))))
    basis = scipy.linalg.block_diag(np.eye(4 * n), mean_free(n), mean_free(n))
    return LinearEvents(np.kron(flow, np.eye(n)), events, basis, np.zeros((len(events), 6 * n)))


def dadao_rate(
    laplacian: LaplacianLike, curvatures: Float[np.ndarray, " n"], strong_convexity: float, smoothness: float
) -> GeneratorRate:
    r"""The exact exponents of DADAO on f_i(x) = h_i x^2 / 2 with its own parameters.

    The bound to hold against -second_moment is `theory.bounds.entry("dadao")`, $\frac18 \sqrt{\mu / (2 L)}$.

    Args:
      laplacian: the links' rates; what `adozoo.resistance.rate_laplacian` accepts.
      curvatures: h, [n], between the two constants.
      strong_convexity: \mu that the method is told.
      smoothness: L that the method is told.

    Returns:
      `GeneratorRate`, exponents per unit of time: negative where errors decay.

    Raises:
      ValueError: what `dadao_events` refuses.

    Example:
      >>> ring = theory.dadao_rates(adozoo.graphs.ring(4))
      >>> found = theory.dadao_rate(ring, np.array([1.0, 100.0, 10.0, 30.0]), 1.0, 100.0)
      >>> bound = theory.bounds.entry("dadao")
      >>> promised = bound.evaluate(
      ...     strong_convexity=1.0, smoothness=100.0, chi_1=0.5, chi_2=0.5
      ... )
      >>> round(-found.second_moment / promised.value, 3)
      1.704
    """
    return low_rank_rate(*dadao_events(laplacian, curvatures, strong_convexity, smoothness)[:3])


def _dense(name: str, laplacian: LaplacianLike) -> np.ndarray:
    found = rate_laplacian(laplacian).toarray()
    if len(found) < 2:
        raise ValueError(f"{name}: laplacian needs two nodes or more, got {len(found)}: one has no one to talk to.")
    return found


def _links(Lambda: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """(rate, e_i - e_j) of every link."""
    identity = np.eye(len(Lambda))
    return [(float(-Lambda[i, j]), identity[i] - identity[j]) for i, j in np.argwhere(np.triu(Lambda, 1) < 0)]


def _nodes(name: str, argument: str, given: Any, n: int) -> np.ndarray:
    """One number a node, zeros by default."""
    found = np.zeros(n) if given is None else np.asarray(given, np.float64)
    if found.shape != (n,):
        raise ValueError(f"{name}: {argument} must have one number for each of the {n} nodes, got shape {found.shape}.")
    return found
