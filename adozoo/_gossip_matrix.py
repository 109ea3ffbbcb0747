r"""The gossip matrix G = I - W of a mixing, whose extreme eigenvalues accelerated methods need beforehand."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from adozoo import weights
from adozoo.schedules import GossipEvery, Wrapper

DENSE_LIMIT = 1000  # up to this n one dense decomposition gives both ends; beyond, each has a solver of its own
CONNECTED = 1e-10  # a smallest eigenvalue of G below this, on the nodes' disagreement, is rounding: two components


def extremes(factory: str, mix: Any) -> tuple[float, float]:
    r"""The smallest positive and the largest eigenvalue of I - W, over all steps of a schedule; computed on the host.

    Faults around the mixing are looked through: methods are designed for the mixing below them.

    Args:
      factory: the name of the method that asks, for error messages.
      mix: a symmetric, doubly stochastic mixing, fixed or with a period.

    Returns:
      (\min_t \lambda_2(I - W_t), \max_t \lambda_n(I - W_t)); both are 1 for an exact mean.

    Raises:
      ValueError: if the matrix is traced, the mixing not symmetric or without period, or its graph disconnected at some
        step.
    """
    ends = ends_by_step(factory, mix)
    smallest, largest = min(low for low, _ in ends), max(high for _, high in ends)
    if smallest < CONNECTED:
        step = [low < CONNECTED for low, _ in ends].index(True)
        where = f" at step {step} of its period of {len(ends)}" if len(ends) > 1 else ""
        raise ValueError(
            f"{factory}: the graph of mix must be connected at every step, but is not{where} (n = {mix.n}): step sizes "
            "follow from the smallest positive eigenvalue of I - W. Add edges, or gather the steps that connect the "
            "nodes together: adozoo.multi_consensus(mix, rounds)."
        )
    return smallest, largest


def ends_by_step(factory: str, mix: Any) -> list[tuple[float, float]]:
    """The second smallest and the largest eigenvalue of I - W_t, step by step over one period.

    Raises:
      ValueError: if the matrix is traced, or the mixing not symmetric or without period.
    """
    mix = designed(mix)
    return [(1.0, 1.0)] if mix.is_mean else [_ends(factory, matrix) for matrix in matrices(factory, mix)]


def contraction(factory: str, mix: Any) -> float:
    r"""\max_t \|W_t - 11'/n\|, the factor by which the worst step shrinks disagreement; W_t need not be symmetric.

    Raises:
      ValueError: if the matrix is traced, or the mixing has no period.
    """
    mix = designed(mix)
    if mix.is_mean:
        return 0.0
    mean = 1 / mix.n
    return max(float(np.linalg.norm(matrix.toarray() - mean, 2)) for matrix in matrices(factory, mix))


def matrices(factory: str, mix: Any) -> list[Any]:
    """The W_t of one period of a designed mixing, as SciPy sparse arrays; one of them if the mixing is fixed.

    Raises:
      ValueError: if they are traced, or there is no period.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(mix)):
        raise ValueError(
            f"{factory}: the matrix of mix must be known when the method is built, got a traced {type(mix).__name__}: "
            "step sizes follow from its eigenvalues. Build the mixing outside of jit and vmap."
        )
    if not mix.varying:
        return [mix.sparse_matrix()]
    period = getattr(mix, "period", None)
    if period is None:
        raise ValueError(
            f"{factory}: mix must be fixed or have a period, got a {type(mix).__name__} that never repeats, so its "
            "worst eigenvalues are not known. Use adozoo.cycle([...]) or one fixed mixing."
        )
    with jax.ensure_compile_time_eval():  # methods may be built inside a jit
        return [mix.at(step).sparse_matrix() for step in range(period)]


def designed(mix: Any) -> Any:
    """The mixing as it was designed: behind a watcher, and without what befalls its messages."""
    if hasattr(mix, "stands_for"):
        return designed(mix.stands_for)
    if not hasattr(mix, "base"):
        return mix
    stand_in = isinstance(mix, Wrapper) and not isinstance(mix, GossipEvery)
    below: Any = designed(mix.base)
    return below if stand_in or not hasattr(mix, "__dataclass_fields__") else replace(mix, base=below)


def _ends(factory: str, matrix: Any) -> tuple[float, float]:
    n = matrix.shape[0]
    if n < 2:
        raise ValueError(f"{factory}: mix must be over two nodes or more to have a spectrum, got n = {n}.")
    if n > DENSE_LIMIT:
        return 1 - weights.second_eigenvalue(matrix), 1 - weights.smallest_eigenvalue(matrix)
    dense = matrix.toarray()
    asymmetry = float(np.abs(dense - dense.T).max())
    if asymmetry > 1e-8:
        raise ValueError(
            f"{factory}: mix must be symmetric, max |W - W'| is {asymmetry:.3g}. Use an undirected graph, or "
            "adozoo.gradient_tracking."
        )
    spectrum = np.linalg.eigvalsh(np.eye(n) - dense)
    return float(spectrum[1]), float(spectrum[-1])
