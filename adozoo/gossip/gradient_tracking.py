r"""Gradient tracking: each node steps along an estimate of the network's average gradient.

s^t tracks the average gradient (`adozoo.track_gradients`), and the params step along it:

  diging   s^t = W s^{t-1} + g^t - g^{t-1}     x^{t+1} = W x^t - \eta s^t
  atc      s^t = W s^{t-1} + g^t - g^{t-1}     x^{t+1} = W (x^t - \eta s^t)
  aug_dgm  s^t = W (s^{t-1} + g^t - g^{t-1})   x^{t+1} = W (x^t - \eta s^t)

from s^{-1} = g^{-1} = 0, so that s^0 = g^0 without a gradient in `init`. Over a time-varying graph all messages of
step t use W_t; in "diging" and "atc" that includes s^t, which travels with x^t, so that s^{t+1} = W_t s^t + ... The
published AugDGM (and decent-bench's) starts from s^0 = g^0 instead of W g^0: since then s^1 = W g^1, that is this
method started one D-SGD step later, at W (x^0 - \eta g^0).

References: Xu et al. 2015 (AugDGM); Di Lorenzo and Scutari 2016 (NEXT); Nedic, Olshevsky, Shi 2017 (DIGing); Qu and Li
2018.
"""

from typing import Any

import optax

from adozoo._checks import check_choice, check_mixing, check_number
from adozoo.mixing import Mixing
from adozoo.parts import adapt_then_combine, combine_then_adapt, descent, named, track_gradients
from adozoo.zoo import Entry, register

VARIANTS = {
    "diging": ("cta", combine_then_adapt),
    "atc": ("cta", adapt_then_combine),
    "aug_dgm": ("atc", adapt_then_combine),
}


def gradient_tracking(
    learning_rate: Any, mix: Mixing, variant: str = "diging"
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient tracking: exact under any heterogeneity, with a constant step, over fixed or time-varying graphs.

    Update: see the three variants above; s is the tracker, one buffer of the size of params.

    Sent: two vectors over each link and step (params and tracker), in one round ("diging", "atc") or two ("aug_dgm").

    Assumptions: W doubly stochastic, directed or not, connected (over time). With a common Hessian a I the largest
    stable step is a \eta < (1 + \lambda_n)^2 / 2 for "diging".

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mix: the mixing, over n nodes.
      variant: "diging", "atc" or "aug_dgm".

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time for an unknown variant, a number out of range or a mixing that is not doubly stochastic.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((4, 1, 1)), jnp.arange(4.0)[:, None]
      ... )
      >>> tx = adozoo.gradient_tracking(0.1, adozoo.mixing(adozoo.graphs.ring(4)))
      >>> params, _, _ = adozoo.simulate(tx, problem.gradient, problem.init(), steps=300)
      >>> params.ravel().round(6)
      Array([1.5, 1.5, 1.5, 1.5], dtype=float64)
    """
    check_choice("gradient_tracking", "variant", variant, tuple(VARIANTS))
    check_mixing("gradient_tracking", mix)
    check_number("gradient_tracking", "learning_rate", learning_rate)
    track, talk = VARIANTS[variant]
    return named("gradient_tracking", optax.chain(track_gradients(mix, track), descent(learning_rate), talk(mix)))


_ADMITS = frozenset({"symmetric", "doubly", "varying"})
for _name, _title, _paper, _variant, _rounds in (
    ("diging", "Gradient tracking (DIGing)", "Nedic, Olshevsky, Shi, SIAM J. Optim. 2017", "diging", 1),
    ("atc_tracking", "Gradient tracking, adapt-then-combine", "Di Lorenzo and Scutari, IEEE TSIPN 2016", "atc", 1),
    ("aug_dgm", "Augmented distributed gradient method (AugDGM)", "Xu et al., CDC 2015", "aug_dgm", 2),
):
    register(
        Entry(
            _name,
            gradient_tracking,
            "gossip",
            _title,
            _paper,
            _ADMITS,
            {"variant": _variant},
            vectors=2,
            rounds=_rounds,
            overlaps=_variant == "diging",
        )
    )
