r"""Exact diffusion and D2: adapt, correct, combine.

With \psi^t = x^t - \eta g^t, the step is corrected by what the last combination undid:

    x^{t+1} = A (\psi^t + x^t - \psi^{t-1}),    A = (I + W) / 2 (exact diffusion) or A = W (D2), \psi^{-1} = x^0.

State: r = \psi^{t-1} - x^t, which starts at 0. Table 1 of Sundararajan et al. 2020 misprints exact diffusion (a term in
the gradient's column); this is the published method.

References: Yuan, Ying, Zhao, Sayed, Exact diffusion, IEEE TSP 2019; Tang, Lian, Yan, Zhang, Liu, D2, ICML 2018.
"""

from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree, weights
from adozoo._checks import check_mixing, check_number
from adozoo._optax import increment, transformation, zero_count
from adozoo.mixing import Mixing
from adozoo.parts import named
from adozoo.zoo import Entry, register

D2_EIGENVALUE = -1 / 3
"""D2 is unstable for small step sizes unless the smallest eigenvalue of W exceeds this."""


class DiffusionState(NamedTuple):
    r"""r = \psi^{t-1} - x^t, stacked like params; its sum over nodes stays 0 under a doubly stochastic W."""

    count: Int[Array, ""]
    residual: PyTree


def exact_diffusion(learning_rate: Any, mix: Mixing) -> optax.GradientTransformationExtraArgs:
    r"""Exact diffusion: D-SGD with a correction that removes its bias, stable for \eta < 2 / L whatever the network.

    Update: \psi = x - \eta g;  \phi = \psi - r;  x <- (\phi + W \phi) / 2;  r <- \psi - x (the new x).

    Sent: one vector over each link and step.

    Assumptions: W symmetric, doubly stochastic, connected, constant.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mix: the mixing, over n nodes.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time for a number out of range or a mixing that is not symmetric and doubly stochastic.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((4, 1, 1)), jnp.arange(4.0)[:, None]
      ... )
      >>> tx = adozoo.exact_diffusion(1.0, adozoo.mixing(adozoo.graphs.ring(4)))
      >>> params, _, _ = adozoo.simulate(tx, problem.gradient, problem.init(), steps=200)
      >>> params.ravel().round(6)
      Array([1.5, 1.5, 1.5, 1.5], dtype=float64)
    """
    return _diffusion("exact_diffusion", learning_rate, mix, lazy=True)


def d2(learning_rate: Any, mix: Mixing) -> optax.GradientTransformationExtraArgs:
    r"""D2, decentralised training over decentralised data: exact diffusion with W itself in place of (I + W) / 2.

    Update: \psi = x - \eta g;  \phi = \psi - r;  x <- W \phi;  r <- \psi - x (the new x). Equivalently, for constant
    \eta, x^{t+1} = W (2 x^t - x^{t-1} - \eta g^t + \eta g^{t-1}).

    Sent: one vector over each link and step.

    Assumptions: W symmetric, doubly stochastic, connected, constant, with smallest eigenvalue above -1/3. (Metropolis
    weights on a ring of even length have exactly -1/3.)

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mix: the mixing, over n nodes.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time for a smallest eigenvalue at or below -1/3, a number out of range, or a mixing that is
        not symmetric and doubly stochastic.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((5, 1, 1)), jnp.arange(5.0)[:, None]
      ... )
      >>> tx = adozoo.d2(0.5, adozoo.mixing(adozoo.graphs.ring(5)))
      >>> params, _, _ = adozoo.simulate(tx, problem.gradient, problem.init(), steps=300)
      >>> params.ravel().round(6)
      Array([2., 2., 2., 2., 2.], dtype=float64)
    """
    check_mixing("d2", mix, symmetric=True)
    if not mix.varying and not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(mix)):
        smallest = weights.smallest_eigenvalue(mix.sparse_matrix())
        if smallest <= D2_EIGENVALUE + 1e-6:  # weights may be held in float32
            raise ValueError(
                f"d2: the smallest eigenvalue of mix must exceed -1/3, got {smallest:.6f} (n = {mix.n}): D2 is "
                "unstable there for small step sizes. Use adozoo.mixing(adozoo.weights.lazy(mix.matrix)) or "
                "adozoo.exact_diffusion."
            )
    return _diffusion("d2", learning_rate, mix, lazy=False)


def _diffusion(name: str, learning_rate: Any, mix: Mixing, lazy: bool) -> optax.GradientTransformationExtraArgs:
    check_mixing(name, mix, symmetric=True)
    check_number(name, "learning_rate", learning_rate)

    def init(params: PyTree) -> DiffusionState:
        return DiffusionState(zero_count(), _tree.zeros_like(params))

    def update(grads: PyTree, state: DiffusionState, params: PyTree) -> tuple[PyTree, DiffusionState]:
        step_size = _tree.schedule_value(learning_rate, state.count)
        adapted = _tree.axpy(-step_size, grads, params)
        corrected = _tree.sub(adapted, state.residual)
        combined = mix(corrected, state.count)
        if lazy:
            combined = _tree.half(corrected, combined)
        residual = _tree.sub(adapted, combined)
        return _tree.sub(combined, params), DiffusionState(increment(state.count), residual)

    return named(name, transformation(init, update))


register(
    Entry(
        "exact_diffusion",
        exact_diffusion,
        "gossip",
        "Exact diffusion",
        "Yuan, Ying, Zhao, Sayed, IEEE TSP 2019",
        frozenset({"symmetric"}),
    )
)
register(
    Entry(
        "d2",
        d2,
        "gossip",
        "D2",
        "Tang, Lian, Yan, Zhang, Liu, ICML 2018",
        frozenset({"symmetric"}),
        smallest_eigenvalue=D2_EIGENVALUE,
    )
)
