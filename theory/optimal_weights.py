r"""What the choice of weights is worth: the second largest modulus (SLEM) of W under each rule, in numbers and symbols.

The SLEM max_{k>=2} |lambda_k(W)| = ||W - J|| is the factor per step of gossip. With one weight for all links,
W = I - a L, where the Laplacian L has the eigenvalues 0 < l_2 <= ... <= l_n,

    SLEM(a) = max(1 - a l_2, a l_n - 1),     least at a = 2 / (l_2 + l_n).

When that is the best of all weights: the SLEM is convex in the weights, with derivatives -(u_i - u_j)^2 of lambda_2 and
(v_i - v_j)^2 of -lambda_n with respect to w_ij, for their unit eigenvectors u and v.

- Edge-transitive graphs: averaging over the automorphisms makes the weights equal and, by convexity, the SLEM no
  larger.
- Paths: at a = 1/2, u_i - u_{i+1} is proportional to sin(pi (i + 1) / n), and so is v_i - v_{i+1} up to signs. A convex
  combination of the two derivatives is zero, hence the SLEM cos(pi / n) is optimal. No weight is negative: it is the
  fastest Markov chain as well.

If weights may not be negative, then neither may the self-weight 1 - a degree, which limits a to 1 / degree.

References:
    Xiao, Boyd, "Fast linear iterations for distributed averaging", 2004 (best constant, fastest linear averaging).
    Boyd, Diaconis, Xiao, "Fastest mixing Markov chain on a graph", 2004.
    Boyd, Diaconis, Sun, Xiao, "Fastest mixing Markov chain on a path", 2006.
    Boyd, Diaconis, Parrilo, Xiao, "Fastest mixing Markov chain on graphs with symmetries", 2009.
"""

from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import sympy
from sympy import Max, Min, cos, pi

from adozoo import weights
from theory.graph_symbols import graph_symbols


class WeightModuli(NamedTuple):
    """The second largest modulus of W (SLEM) under the usual rules, numbers or sympy expressions; None if not known.

    Attributes:
        inverse_degree: I - L / degree, the maximal degree. It is 1 on bipartite regular graphs: no gossip there.
        max_degree: I - L / (1 + degree), `adozoo.weights.max_degree`.
        metropolis: `adozoo.weights.metropolis`.
        best_constant: I - 2 L / (l_2 + l_n), `adozoo.weights.best_constant`.
        fastest_nonnegative: the fastest mixing Markov chain, `adozoo.weights.fastest(graph)`.
        fastest: fastest linear averaging, whose weights may be negative, `adozoo.weights.fastest(graph, False)`.
    """

    inverse_degree: Any
    max_degree: Any
    metropolis: Any
    best_constant: Any
    fastest_nonnegative: Any
    fastest: Any


def weight_moduli(graph: nx.Graph, solve: bool = True) -> WeightModuli:
    """The second largest modulus of W on a graph under each rule of `adozoo.weights`.

    Args:
        graph: undirected and connected.
        solve: also solve the two semidefinite programs, which takes clarabel, and about 10 s each for 64 nodes.

    Returns:
        `WeightModuli` of floats; the last two None without `solve`.

    Raises:
        ValueError: a directed or disconnected graph, or what `adozoo.graphs.canonical` refuses.
        ImportError: clarabel is not installed, and `solve` asks for it.

    Example:
        >>> found = weight_moduli(adozoo.graphs.star(6))
        >>> [round(value, 6) for value in found]
        [0.8, 0.833333, 0.833333, 0.714286, 0.8, 0.714286]
    """
    best: Any = weights.best_constant(graph)  # refuses graphs that are directed or disconnected
    n = len(best)
    bounded: Any = weights.max_degree(graph)
    share = (bounded - np.diag(np.diagonal(bounded))).max()  # 1 / (1 + degree)
    matrices = [
        np.eye(n) - (np.eye(n) - bounded) / (1 - share),
        bounded,
        weights.metropolis(graph),
        best,
        *((weights.fastest(graph), weights.fastest(graph, nonnegative=False)) if solve else ()),
    ]
    moduli = [float(np.linalg.norm(np.asarray(matrix) - 1 / n, 2)) for matrix in matrices]
    return WeightModuli(*moduli, *([] if solve else [None, None]))


def symbolic_weight_moduli(family: str, *sizes: sympy.Expr | int) -> WeightModuli:
    """The second largest modulus of W on a graph family under each rule, exact and in symbols.

    Args:
        family: a family of `theory.graph_symbols`.
        *sizes: as `theory.graph_symbols` takes them; none for the symbol n.

    Returns:
        `WeightModuli` of sympy expressions. The fastest weights are known for paths and edge-transitive graphs: not for
        grids, trees and tori of unequal sides, where they are None.

    Raises:
        ValueError: what `theory.graph_symbols` refuses.

    Example:
        >>> symbolic_weight_moduli("path").fastest
        cos(pi/n)
        >>> symbolic_weight_moduli("star", 6)[-3:]
        (5/7, 4/5, 5/7)
    """
    found = graph_symbols(family, *sizes)
    metropolis = None if found.gap is None else 1 - found.gap
    low, high, degree = found.algebraic_connectivity, found.laplacian_radius, found.degree
    if low is None or high is None:
        return WeightModuli(None, None, metropolis, None, None, None)

    def one_weight(weight: Any) -> Any:
        return Max(1 - weight * low, weight * high - 1)

    best = (high - low) / (high + low)
    # But for the grid, Metropolis-Hastings and maximum-degree weights of these families agree.
    rules = one_weight(1 / degree), one_weight(1 / (degree + 1)) if metropolis is None else metropolis, metropolis, best
    if found.family == "path":
        return WeightModuli(*rules, cos(pi / found.nodes), cos(pi / found.nodes))
    if found.family == "star":
        return WeightModuli(*rules, 1 - 1 / degree, best)
    if found.family == "complete_bipartite":
        return WeightModuli(*rules, one_weight(Min(2 / (low + high), 1 / degree)), best)
    if found.family in ("grid", "balanced_binary_tree") or len(set(found.sizes)) > 1:
        return WeightModuli(*rules, None, None)
    # The others are regular with l_2 + l_n >= 2 degree: the best weight leaves self-weights of at least 0.
    return WeightModuli(*rules, best, best)
