r"""DADAO: decoupled accelerated decentralised asynchronous optimisation (Nabli and Oyallon, ICML 2023).

For f_i that are \mu-strongly convex and L-smooth, the saddle point of F(x) - \nu/2 |x|^2 - <y, x> - |y + z|^2 / (2 \nu)
over x, y and z with \sum_i z_i = 0, \nu = \mu / 2. With q_i = \nabla f_i(x_i) - \nu x_i - y~_i, N_i counting gradients,
M_ij exchanges, and m = y + z:

    dx_i  = \eta (x~_i - x_i) dt - \gamma q_i dN_i
    dx~_i = \eta~ (x_i - x~_i) dt - \gamma~ q_i dN_i
    dy_i  = \alpha (y~_i - y_i) dt
    dy~_i = -\theta (m_i + \nu x~_i) dt + (\delta + \delta~) q_i dN_i
    dz_i  = \alpha (z~_i - z_i) dt - \beta \sum_j (m_i - m_j) dM_ij
    dz~_i = \alpha~ (z_i - z~_i) dt - \beta~ \sum_j (m_i - m_j) dM_ij

Between events each node follows a linear flow of six vectors, the exponential of a 6 x 6 matrix. It is written out: (x,
x~) and (z, z~) relax to weighted means, which drive (y, y~), a damped rotation. An eigendecomposition would fail, since
the eigenvalue 0 is double and LAPACK's eigenvectors for it may be arbitrarily ill-conditioned.

Deviations of the authors' code: its matrix is rounded to float32, and for logistic regression its L leaves out \mu.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_events
from adozoo._constants import by_smoothness
from adozoo._events import Events
from adozoo._optax import increment, transformation, zero_count
from adozoo.asynchronous._parameters import DadaoParameters, dadao_parameters, dadao_rates
from adozoo.parts import named
from adozoo.zoo import Entry, register

SLACK = 1e-6
"""How far 2 chi_1 chi_2 may exceed 1, for rates that were rounded."""


class DadaoState(NamedTuple):
    """x~, y, y~, z, z~, stacked like params. What is sent is y + z; z and z~ sum to zero when all are at one time."""

    count: Int[Array, ""]
    x_tilde: PyTree
    y: PyTree
    y_tilde: PyTree
    z: PyTree
    z_tilde: PyTree


NAMES = ("x", "x_tilde", "y", "y_tilde", "z", "z_tilde")
PARTS = {"x": "x", "y": "xyz", "z": "z"}
"""What drives what: (x, x~) and (z, z~) only themselves, (y, y~) everything."""


def flow_functions(parameters: DadaoParameters, time: Any) -> Float[Array, "... 5"]:
    r"""The five functions of time of which exp(t A) is made; w^2 = \alpha \theta - \alpha^2 / 4.

    They are 1, e^{-(\eta + \eta~) t}, e^{-(\alpha + \alpha~) t}, c \cos wt and c \sin wt / w, c = e^{-\alpha t / 2}.
    """
    p, time = parameters, jnp.asarray(time)
    frequency = jnp.sqrt(p.alpha * p.theta - p.alpha**2 / 4)
    damped = jnp.exp(-p.alpha * time / 2)
    relaxed = [jnp.exp(-rate * time) for rate in (p.eta + p.eta_tilde, p.alpha + p.alpha_tilde)]
    turned, swung = damped * jnp.cos(frequency * time), damped * jnp.sin(frequency * time) / frequency
    return jnp.stack([jnp.ones_like(time), *relaxed, turned, swung], axis=-1)


def flow_matrices(parameters: DadaoParameters) -> Float[Array, "5 6 6"]:
    r"""exp(t A) = \sum_k \phi_k(t) M_k, in the order x, x~, y, y~, z, z~: the M_k for `flow_functions`.

    With B = [[-\alpha, \alpha], [-\theta, 0]], (y, y~) obeys s' = B s - \theta (0, z + \nu x~). That is driven by a
    constant and by exponentials e^{-r t}, each answered by -\theta (\alpha, \alpha - r) / (r^2 - \alpha r + \alpha
    \theta) e^{-r t}; none is resonant.

    Example:
      >>> from adozoo.asynchronous.dadao import flow_functions, flow_matrices
      >>> p = theory.dadao_parameters(1.0, 10.0, chi_1=1.0)
      >>> exponential = jnp.einsum("k,kij->ij", flow_functions(p, 0.0), flow_matrices(p))
      >>> bool(jnp.allclose(exponential, jnp.eye(6)))
      True
    """
    p = parameters
    steady, by_x, by_z, turned, swung = jnp.eye(5)  # each function, as a row of weights
    found: dict[tuple[str, str], Any] = {}
    for name, forward, backward, kept in (
        ("x", p.eta, p.eta_tilde, by_x),
        ("z", p.alpha, p.alpha_tilde, by_z),
    ):
        share = forward / (forward + backward)  # of the second one in the mean that both relax to
        found[name, name] = (1 - share) * steady + share * kept
        found[name, f"{name}_tilde"] = share * (steady - kept)
        found[f"{name}_tilde", name] = (1 - share) * (steady - kept)
        found[f"{name}_tilde", f"{name}_tilde"] = share * steady + (1 - share) * kept
    found["y", "y"], found["y", "y_tilde"] = turned - p.alpha / 2 * swung, p.alpha * swung
    found["y_tilde", "y"], found["y_tilde", "y_tilde"] = -p.theta * swung, turned + p.alpha / 2 * swung

    def answer(row: str, rate: Any, drive: Array) -> Array:
        """What (y, y~) has become of nothing, driven by (0, -theta e^{-rate t})."""
        scale = -p.theta / (rate**2 - p.alpha * rate + p.alpha * p.theta)
        held = {"y": scale * p.alpha, "y_tilde": scale * (p.alpha - rate)}
        return held[row] * drive - found[row, "y"] * held["y"] - found[row, "y_tilde"] * held["y_tilde"]

    x_share, z_share = p.eta / (p.eta + p.eta_tilde), p.alpha / (p.alpha + p.alpha_tilde)
    for row in ("y", "y_tilde"):
        rest = answer(row, 0.0, steady)
        of_x = answer(row, p.eta + p.eta_tilde, by_x)
        of_z = answer(row, p.alpha + p.alpha_tilde, by_z)
        # x~(t) = mean + (x~ - mean) e^{-rt}, z(t) = mean + (z - mean) e^{-rt}, mean = (1 - share) first + share second.
        found[row, "x"] = p.nu * (1 - x_share) * (rest - of_x)
        found[row, "x_tilde"] = p.nu * (x_share * rest + (1 - x_share) * of_x)
        found[row, "z"] = (1 - z_share) * rest + z_share * of_z
        found[row, "z_tilde"] = z_share * (rest - of_z)
    nothing = jnp.zeros(5)
    return jnp.stack([jnp.stack([found.get((i, j), nothing) for j in NAMES], axis=-1) for i in NAMES], axis=-2)


def dadao(
    events: Any, strong_convexity: Any, smoothness: Any, parameters: DadaoParameters | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""DADAO: accelerated and asynchronous, with gradients and exchanges at clocks of their own.

    Update: see the module; a gradient moves x, x~ and y~ of its node, an exchange z and z~ of a pair.

    Sent: y + z, one vector each way in an exchange; x never.

    Assumptions: every f_i is \mu-strongly convex and L-smooth; gradients at Poisson clocks of rate 1; links at rates
    with 2 \chi_1 \chi_2 <= 1, so that the graph does not slow it down: `adozoo.dadao_rates(graph)`. Exact, at a rate of
    \sqrt{\mu / (2 L)} / 8 per unit of time for E|x - x*|^2.

    Args:
      events: gradients and exchanges, see `adozoo.events`; their chi_1 enters the steps.
      strong_convexity: \mu > 0, a number or traced scalar.
      smoothness: L >= \mu, a number, a traced scalar or a schedule step -> L.
      parameters: `DadaoParameters` instead of the theory's.

    Returns:
      The transformation over stacked pytrees: params are x, each node at the time of its next gradient.

    Raises:
      ValueError: at build time for constants out of order, or events whose chi_1 and chi_2 are unknown or too large;
        at trace time for a wrong node axis.

    Example:
      >>> problem = adozoo.problems.random_quadratic(6, 2, strong_convexity=0.5)
      >>> rates = adozoo.dadao_rates(adozoo.graphs.star(6))
      >>> events = adozoo.events.poisson(rates, horizon=400.0)
      >>> tx = adozoo.dadao(events, strong_convexity=0.5, smoothness=1.0)
      >>> params, state, trace = adozoo.simulate_events(
      ...     tx, problem.gradient, problem.init(), events, metrics=problem.metrics()
      ... )
      >>> bool(trace["distance"][-1] < 1e-3 * trace["distance"][0])
      True

    References:
      Nabli, Oyallon, "DADAO: decoupled accelerated decentralized asynchronous optimization", ICML 2023; A. Nabli's
      code for it.
    """
    check_events("dadao", events, constants=parameters is None)
    if parameters is None:
        _check_rates(events)
        if not callable(smoothness):
            parameters = dadao_parameters(strong_convexity, smoothness, events.chi_1)

    def flow(p: DadaoParameters, parts: dict[str, PyTree], time: Any) -> dict[str, PyTree]:
        # A product, which XLA keeps apart: fused with the sums below, sines would be computed for every number.
        exponential = jnp.einsum("nk,kij->nij", flow_functions(p, time), flow_matrices(p), precision="highest")

        def moved(row: str) -> PyTree:
            columns = [name for name in NAMES if name[0] in PARTS[row[0]]]
            by = [exponential[:, NAMES.index(row), NAMES.index(column)] for column in columns]
            terms = [parts[column] for column in columns]
            return jax.tree.map(lambda *xs: sum(_tree.rows(c, x) * x for c, x in zip(by, xs, strict=True)), *terms)

        return {row: moved(row) for row in NAMES}

    def encounter(p: DadaoParameters, parts: Any, waited: Any, others: Any, own: Any, other: Any) -> dict[str, PyTree]:
        parts = flow(p, parts, waited)
        message = _tree.add(parts["y"], parts["z"])
        gap = _tree.sub(message, others(message))
        moved = {"z": _tree.axpy(-p.beta, gap, parts["z"]), "z_tilde": _tree.axpy(-p.beta_tilde, gap, parts["z_tilde"])}
        return parts | moved

    def init(params: PyTree) -> DadaoState:
        events.check(params)
        return DadaoState(zero_count(), *(_tree.zeros_like(params) for _ in range(5)))

    def update(grads: PyTree, state: DadaoState, params: PyTree) -> tuple[PyTree, DadaoState]:
        p = parameters or dadao_parameters(strong_convexity, smoothness(state.count), events.chi_1)
        takes = events.row(events.takes, state.count)
        parts = {"x": params} | {name: getattr(state, name) for name in NAMES[1:]}
        residual = _tree.sub(_tree.axpy(-p.nu, params, grads), state.y_tilde)
        steps = {"x": -p.gamma, "x_tilde": -p.gamma_tilde, "y_tilde": p.delta + p.delta_tilde}
        jumped = {name: _tree.axpy(by, residual, parts[name]) for name, by in steps.items()}
        jumped = {name: _tree.where(takes, after, parts[name]) for name, after in jumped.items()}
        parts = events.meet(state.count, parts | jumped, partial(encounter, p))
        parts = flow(p, parts, events.row(events.wait, state.count + 1))
        return _tree.sub(parts.pop("x"), params), DadaoState(increment(state.count), **parts)

    return named("dadao", transformation(init, update))


def _check_rates(events: Events) -> None:
    if isinstance(events.chi_1, jax.core.Tracer) or isinstance(events.chi_2, jax.core.Tracer):
        return
    product = 2 * float(np.max(events.chi_1)) * float(np.max(events.chi_2))
    if product > 1 + SLACK:
        raise ValueError(
            f"dadao: events must have rates with 2 chi_1 chi_2 <= 1, got {product:.6g}: the links fire too rarely for "
            "its theory. Draw them from adozoo.dadao_rates(graph), or pass parameters of your own."
        )


register(
    Entry(
        "dadao",
        by_smoothness(dadao),
        "asynchronous",
        "DADAO",
        "Nabli and Oyallon, ICML 2023",
        frozenset({"events"}),
        {"strong_convexity": 0.3},
        preserves_mean=False,
        fixed_graph=True,
        unbounded=frozenset({"strong_convexity"}),
        patience=5,
        rates=dadao_rates,
    )
)
