"""python -m theory spectrum: a graph and its weights in numbers."""

import contextlib
import math
import re
from typing import Annotated, Any

import networkx as nx
import numpy as np
from tyro.conf import Positional, arg

import adozoo
from adozoo.resistance import chi, kirchhoff_index, normalize_rates
from theory import spectra
from theory.asymptotics import graph_asymptotics
from theory.cli import options
from theory.cli.options import Network, Reply, Weights
from theory.graph_symbols import FAMILIES, graph_symbols
from theory.mixing_times import mixing_time
from theory.neighbors import effective_neighbors

DENSE_LIMIT = 2000
"""Beyond this many nodes only what sparse matrices tell is computed."""
ROUNDING = 1e-13
"""Eigenvalues this small are zero."""
DIRECTED = {"directed_ring": "unidirectional_ring", "exponential": "static_exponential"}
"""Families that `theory.families` knows by another name."""


def spectrum(
    graph: Annotated[Positional[str], arg(metavar="GRAPH")],
    weights: Weights = "metropolis",
    lazy: bool = False,
    decays: Annotated[tuple[float, ...], arg(metavar="DECAY [...]")] = (0.5, 0.9, 0.99),
    json: bool = False,
) -> Reply:
    """A graph in numbers: spectral gap, mixing time, effective neighbours, resistances.

    The gap is 1 - ||W - 11'/n||: what is left of disagreement shrinks by that part in every step. The effective number
    of neighbours n_W(decay) is over how many nodes a gossip average with that memory reduces variance. chi_1 and chi_2
    decide the speed of randomised gossip, chi_1 alone without acceleration, sqrt(chi_1 chi_2) with it.

    For example:

        python -m theory spectrum ring:32
        python -m theory spectrum torus:8x8 --weights best_constant
        python -m theory spectrum star:10 --decays 0.8 0.95 --json

    Args:
      graph: a family with its sizes: ring:16, torus:4x8, star:10, hypercube:32, erdos_renyi:20,0.3,0, social_network.
      weights: how neighbours are weighted.
      lazy: take (I + W) / 2 instead of W.
      decays: at which n_W is computed, each in [0, 1).
      json: print JSON.
    """
    drawn, mix = adozoo.graphs.parse(graph), Network(graph, weights, lazy).mixing()
    degrees = [degree for _, degree in (drawn.out_degree() if isinstance(drawn, nx.DiGraph) else drawn.degree())]
    data: dict[str, Any] = {
        "graph": graph,
        "nodes": mix.n,
        "links": drawn.number_of_edges(),
        "directed": drawn.is_directed(),
        "smallest_degree": min(degrees),
        "largest_degree": max(degrees),
        "weights": "column_stochastic" if drawn.is_directed() else weights,
        "lazy": lazy,
    }
    data |= _eigenvalues(mix)
    data |= _times(mix, data["sigma"])
    if mix.n <= DENSE_LIMIT:
        data["effective_neighbors"] = {f"{decay:g}": effective_neighbors(mix, decay) for decay in decays}
    data["closed_form"] = _closed_form(graph) if weights == "metropolis" and not lazy else None
    if not drawn.is_directed() and mix.n > 1:
        data["chi"] = chi(drawn)._asdict()
        data["chi_node_rate"] = chi(normalize_rates(drawn, "node_rate"))._asdict()
        data["kirchhoff_index"] = kirchhoff_index(drawn)
    return options.reply(data, options.listing(_pairs(data)), json)


def _eigenvalues(mix: adozoo.Mixing) -> dict[str, Any]:
    """Eigenvalues of W where it is symmetric, and ||W - J||."""
    if not mix.symmetric:
        return {"sigma": 1 - spectra.spectral_gap(mix)}
    matrix = mix.sparse_matrix()
    extremes = adozoo.weights.second_eigenvalue(matrix), adozoo.weights.smallest_eigenvalue(matrix)
    second, smallest = (0.0 if abs(value) < ROUNDING else value for value in extremes)
    found: dict[str, Any] = {"lambda_2": second, "lambda_n": smallest, "sigma": max(abs(second), abs(smallest))}
    if mix.n <= DENSE_LIMIT:
        found["distinct_eigenvalues"] = len(np.unique(spectra.eigenvalues(mix).round(9)))
    return found | ({"sigma": 0.0} if mix.n == 1 else {})


def _times(mix: adozoo.Mixing, sigma: float) -> dict[str, Any]:
    """How long consensus takes."""
    gap = 1 - sigma
    per_digit = math.log(10) / -math.log(sigma) if 0 < sigma < 1 else 0.0 if sigma <= 0 else math.inf
    found: dict[str, Any] = {"gap": gap, "relaxation_time": 1 / gap if gap > 0 else math.inf, "per_digit": per_digit}
    if mix.n <= DENSE_LIMIT:
        with contextlib.suppress(ValueError):  # negative weights have no total variation
            found["mixing_time"] = mixing_time(mix)
    return found


def _closed_form(graph: str) -> dict[str, str] | None:
    """The spectral gap with Metropolis-Hastings weights as a formula, where the family has one for these sizes."""
    name, _, text = graph.partition(":")
    sizes = [int(size) for size in filter(None, re.split("[,x]", text)) if size.isdigit()]
    family, found = DIRECTED.get(name, name), {}
    try:
        if family in FAMILIES:
            of_size, of_many = graph_symbols(family, *sizes).gap, graph_asymptotics(family).gap
            found = {} if of_size is None else {"gap": str(of_size)}
            of_n = graph_symbols(family).gap
        else:
            of_n, of_many = spectra.symbolic_gap(family)
    except ValueError:  # no formula, or not for a graph as small as this
        return found or None
    if len(set(sizes)) <= 1:  # as functions of n, families with two sizes have equal ones
        found |= {"gap_of_n": str(of_n)} if of_n is not None else {}
        found |= {"many_nodes": str(of_many)}
    return found or None


def _pairs(data: dict[str, Any]) -> list[tuple[str, str]]:
    low, high = data["smallest_degree"], data["largest_degree"]
    arrows = "directed links" if data["directed"] else "links"
    degrees = f"degree {low}" if low == high else f"degrees {low} to {high}"
    lazily = ", lazy: (I + W) / 2" if data["lazy"] else ""
    pairs = [
        ("graph", f"{data['graph']}: {data['nodes']} nodes, {data['links']} {arrows}, {degrees}"),
        ("weights", data["weights"] + lazily),
    ]
    if "lambda_2" in data:
        distinct = f", {data['distinct_eigenvalues']} distinct" if "distinct_eigenvalues" in data else ""
        extremes = f"lambda_2 = {data['lambda_2']:.9g}, lambda_n = {data['lambda_n']:.9g}{distinct}"
        pairs.append(("eigenvalues of W", extremes))
    pairs += [
        ("||W - 11'/n||", f"{data['sigma']:.9g}"),
        ("spectral gap", f"{data['gap']:.9g}"),
        ("relaxation time", f"{data['relaxation_time']:.6g} steps (1 / gap)"),
        ("consensus", f"{data['per_digit']:.6g} steps a digit"),
    ]
    if "mixing_time" in data:
        pairs.append(("mixing time", f"{data['mixing_time']:g} steps to total variation 1/4"))
    for name, words in (("gap", "gap, exactly"), ("gap_of_n", "gap, of n nodes"), ("many_nodes", "gap, n large")):
        if (data["closed_form"] or {}).get(name):
            pairs.append((words, data["closed_form"][name]))
    pairs += [(f"n_W({decay})", f"{value:.9g}") for decay, value in data.get("effective_neighbors", {}).items()]
    if "chi" in data:
        for key, words in (("chi", "rate 1 a link"), ("chi_node_rate", "1 message a node")):
            found = data[key]
            pairs.append((f"chi, {words}", f"chi_1 = {found['chi_1']:.9g}, chi_2 = {found['chi_2']:.9g}"))
        pairs.append(("Kirchhoff index", f"{data['kirchhoff_index']:.9g}"))
    return pairs
