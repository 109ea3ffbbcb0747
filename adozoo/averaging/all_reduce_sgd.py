r"""All-reduce SGD: the centralised baseline, on n nodes.

x_i <- x_i - \eta m_i, with m_i <- \beta m_i + (1/n) \sum_j g_j (Nesterov: the direction is g + \beta m). All nodes
start at the same point and stay equal, so that this is mini-batch SGD with the n batches together.
"""

from typing import Any

import optax

from adozoo._checks import check_mean
from adozoo.mixing import Mixing
from adozoo.parts import average_gradients, local_sgd_step, named
from adozoo.zoo import Entry, register


def all_reduce_sgd(
    learning_rate: Any, mean: Mixing, momentum: Any = 0.0, nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with exactly averaged gradients: the method that decentralised ones are held against.

    Update: \bar g = (1/n) \sum_j g_j; m <- \beta m + \bar g; x <- x - \eta m (Nesterov: x <- x - \eta (\bar g + \beta
    m)).

    Sent: one all-reduce of one vector a step, 2 (n - 1) / n vectors a node.

    Assumptions: all nodes start at the same params; otherwise their differences stay for ever.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mean: exact averaging, `adozoo.exact_mean(n)`, possibly placed on devices.
      momentum: \beta in [0, 1).
      nesterov: whether to use Nesterov's form.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: if `mean` is not an exact average, or a number is out of its range.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((4, 1, 1)), jnp.arange(4.0)[:, None]
      ... )
      >>> tx = adozoo.all_reduce_sgd(0.5, adozoo.exact_mean(4))
      >>> params, _, _ = adozoo.simulate(tx, problem.gradient, problem.init(), steps=60)
      >>> params.ravel().round(6)
      Array([1.5, 1.5, 1.5, 1.5], dtype=float64)
    """
    check_mean("all_reduce_sgd", mean, "adozoo.dsgd")
    step = local_sgd_step("all_reduce_sgd", learning_rate, momentum, nesterov)
    return named("all_reduce_sgd", optax.chain(average_gradients(mean), *step))


register(
    Entry(
        "all_reduce_sgd",
        all_reduce_sgd,
        "averaging",
        "All-reduce SGD",
        "Robbins and Monro 1951; the centralised baseline",
        frozenset({"complete"}),
        equal_start=True,
    )
)
