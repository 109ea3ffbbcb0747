r"""The data of DADAO's experiments, drawn anew with the authors' generators: m = 100 samples a node, d = 2.

Least squares has f_i(x) = (1/m) \sum_k (a_ik' x - y_ik)^2, without a half: its Hessian is 2 A_i'A_i / m. Each node
draws its own samples and slopes, and scales its labels by a factor from U(0.01, 5), so that minimisers differ widely.
Logistic regression has f_i(x) = (1/m) \sum_k log(1 + exp(-y_ik a_ik' x)) + (\mu / 2) |x|^2 with \mu = 1, whose
smoothness is \lambda_max(A_i'A_i / m) / 4 + \mu (the authors' code takes the mean of |a|^2 / 4, without \mu).
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from jaxtyping import Array, Float
from sklearn.datasets import make_classification, make_regression

import adozoo

SAMPLES, DIM, NOISE, MU = 100, 2, 10.0, 1.0


def number(draw: np.random.Generator) -> int:
    """A seed for scikit-learn, which does not take NumPy's newer generators."""
    return int(draw.integers(2**31))


def regression_data(n: int, seed: int) -> tuple[Float[np.ndarray, "n m d"], Float[np.ndarray, "n m"]]:
    """Features and targets of all nodes."""
    draw = np.random.default_rng(seed)
    features, targets = np.empty((n, SAMPLES, DIM)), np.empty((n, SAMPLES))
    for node in range(n):
        features[node], drawn = make_regression(SAMPLES, DIM, noise=NOISE, random_state=number(draw))[:2]
        targets[node] = draw.uniform(0.01, 5) * drawn
    return features, targets


def least_squares(n: int, seed: int) -> adozoo.problems.Quadratic:
    """Each node's mean of squares, by its Hessian and its minimiser: the same gradients without going over samples."""
    features, targets = regression_data(n, seed)
    matrices = 2 / SAMPLES * np.einsum("nmd,nme->nde", features, features)
    slopes = 2 / SAMPLES * np.einsum("nmd,nm->nd", features, targets)
    return adozoo.problems.quadratic(matrices, np.linalg.solve(matrices, slopes[..., None])[..., 0])


def logistic(n: int, seed: int) -> adozoo.problems.Linear:
    draw = np.random.default_rng(seed)
    shares = [make_classification(SAMPLES, DIM, n_redundant=0, random_state=number(draw)) for _ in range(n)]
    features, labels = (np.stack(part) for part in zip(*shares, strict=True))
    return adozoo.problems.logistic(features, 2 * labels - 1, l2=MU)


TASKS: dict[str, Callable[[int, int], Any]] = {"least squares": least_squares, "logistic": logistic}


@dataclass(frozen=True)
class Problems:
    """Problems of one shape for several runs.

    Attributes:
        leaves: their arrays, each with a leading axis over runs.
        strong_convexity, smoothness: [runs].
        rebuild: a run's arrays -> its problem.
    """

    leaves: Sequence[Array]
    strong_convexity: Float[Array, " runs"]
    smoothness: Float[Array, " runs"]
    rebuild: Callable[[Sequence[Array]], Any]

    @property
    def runs(self) -> int:
        return len(self.smoothness)

    @property
    def cases(self) -> tuple[Sequence[Array], Array, Array]:
        """What a run is about, with the leading axis."""
        return self.leaves, self.strong_convexity, self.smoothness

    def twice(self) -> "Problems":
        """All runs once more after the last."""
        leaves, low, high = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), self.cases)
        return Problems(leaves, low, high, self.rebuild)


def stack(problems: Sequence[Any]) -> Problems:
    low, high = (jnp.array(values) for values in zip(*(problem.constants for problem in problems), strict=True))
    # Constants are part of a problem's type, which has to be one under `vmap`.
    common = [replace(problem, constants=(float(low.min()), float(high.max()))) for problem in problems]
    leaves = [jnp.stack(column) for column in zip(*map(jax.tree.leaves, common), strict=True)]
    return Problems(leaves, low, high, partial(jax.tree.unflatten, jax.tree.structure(common[0])))


def linked_geometric(n: int, radius: float, seed: int) -> nx.Graph:
    """A random geometric graph, and where it is not connected a random link from each component to the next."""
    graph = nx.random_geometric_graph(n, radius, seed=seed)
    draw = np.random.default_rng(seed)
    parts = [sorted(part) for part in nx.connected_components(graph)]
    for part, following in itertools.pairwise(parts):
        graph.add_edge(int(draw.choice(part)), int(draw.choice(following)))
    plain = nx.Graph()  # without the positions
    plain.add_nodes_from(range(n))
    plain.add_edges_from(graph.edges)
    return plain
