"""Closed-form spectra against numerical eigenvalues, spectral gaps against the authors' code."""

import types

import networkx as nx
import numpy as np
import pytest
import sympy
from references import load
from theory_topologies import (
    circulant,
    helical_torus,
    local_steps,
    metropolis,
    mix,
    one_peer_exponential,
    product_torus,
    ring,
    topology,
    two_cliques,
)

from theory.matrices import period_matrices
from theory.spectra import eigenvalues, families, laplacian_spectrum, spectral_gap, spectrum, symbolic_gap


def numeric(pairs):
    return np.array([float(sympy.N(value, 20)) for value, multiplicity in pairs for _ in range(multiplicity)])


def static_exponential(n):
    peers = (n - 1).bit_length()
    return sum(circulant(n, {shift: 1 / (peers + 1)}) for shift in [0, *(2**j for j in range(peers))])


GRAPHS = [
    ("complete", (6,), nx.complete_graph(6)),
    ("ring", (3,), nx.cycle_graph(3)),
    ("ring", (7,), nx.cycle_graph(7)),
    ("ring", (8,), nx.cycle_graph(8)),
    ("ring", (2,), nx.path_graph(2)),
    ("path", (1,), nx.path_graph(1)),
    ("path", (2,), nx.path_graph(2)),
    ("path", (9,), nx.path_graph(9)),
    ("star", (2,), nx.path_graph(2)),
    ("star", (6,), nx.star_graph(5)),
    ("hypercube", (16,), nx.hypercube_graph(4)),
    ("torus", (3, 5), nx.grid_graph((3, 5), periodic=True)),
    ("torus", (2, 4), nx.grid_graph((2, 4), periodic=True)),
    ("torus", (3, 3, 4), nx.grid_graph((3, 3, 4), periodic=True)),
    ("grid", (3, 4), nx.grid_graph((3, 4))),
    ("complete_bipartite", (3, 4), nx.complete_bipartite_graph(3, 4)),
    ("complete_bipartite", (3, 3), nx.complete_bipartite_graph(3, 3)),
    ("paley", (5,), nx.Graph(nx.paley_graph(5))),
    ("paley", (13,), nx.Graph(nx.paley_graph(13))),
    ("balanced_binary_tree", (1,), nx.balanced_tree(2, 1)),
    ("balanced_binary_tree", (2,), nx.balanced_tree(2, 2)),
    ("balanced_binary_tree", (4,), nx.balanced_tree(2, 4)),
    ("disconnected", (4,), nx.empty_graph(4)),
]
SYMMETRIC = [
    ("helical_torus", (4, 5), helical_torus(4, 5)),
    ("helical_torus", (3, 2), helical_torus(3, 2)),
    ("helical_torus", (2, 4), helical_torus(2, 4)),
    ("two_cliques", (4,), two_cliques(4)),
    ("two_cliques", (10,), two_cliques(10)),
    ("mix", (5, 0.3), mix(5, 0.3)),
    ("mix", (5, sympy.Rational(1, 3)), mix(5, 1 / 3)),
]
DIRECTED = [
    ("unidirectional_ring", (7,), circulant(7, {0: 0.5, 1: 0.5})),
    ("one_peer_exponential", (8, 0), one_peer_exponential(8)[0]),
    ("one_peer_exponential", (8, 2), one_peer_exponential(8)[2]),
    ("static_exponential", (8,), static_exponential(8)),
    ("static_exponential", (9,), static_exponential(9)),
]


@pytest.mark.parametrize(("family", "sizes", "graph"), GRAPHS)
def test_laplacian_spectrum(family, sizes, graph):
    exact = numeric(laplacian_spectrum(family, *sizes))
    laplacian = nx.laplacian_matrix(graph).toarray() if graph.number_of_edges() else np.zeros((len(graph),) * 2)
    np.testing.assert_allclose(exact, np.linalg.eigvalsh(laplacian.astype(float)), atol=1e-12)


@pytest.mark.parametrize(("family", "sizes", "graph"), [case for case in GRAPHS if case[0] != "grid"])
def test_mixing_spectrum_of_graphs(family, sizes, graph):
    np.testing.assert_allclose(numeric(spectrum(family, *sizes)), eigenvalues(metropolis(graph)), atol=1e-12)


@pytest.mark.parametrize(("family", "sizes", "W"), SYMMETRIC)
def test_mixing_spectrum_of_matrices(family, sizes, W):
    np.testing.assert_allclose(numeric(spectrum(family, *sizes)), eigenvalues(W), atol=1e-12)


@pytest.mark.parametrize(("family", "sizes", "W"), DIRECTED)
def test_singular_values_of_directed_families(family, sizes, W):
    np.testing.assert_allclose(numeric(spectrum(family, *sizes)), np.linalg.svd(W, compute_uv=False), atol=1e-12)
    assert numeric(spectrum(family, *sizes))[1] == pytest.approx(1 - spectral_gap(W), abs=1e-12)


def test_every_family_is_tested():
    assert {case[0] for case in [*GRAPHS, *SYMMETRIC, *DIRECTED]} == set(families())


def test_a_period_of_one_peer_exponential_averages_exactly():
    assert spectrum("one_peer_exponential", 8) == [(1, 1), (0, 7)]
    assert spectral_gap(one_peer_exponential(8)) == pytest.approx(1)
    assert spectral_gap(local_steps(4, 3)) == pytest.approx(1)


@pytest.mark.parametrize("n", [4, 6, 8, 10, 16, 32])
def test_static_exponential_norm_for_even_n(n):
    assert spectral_gap(static_exponential(n)) == pytest.approx(float(symbolic_gap("static_exponential", n).gap))


def test_product_torus_reference():
    for item in load("beyond_spectral_gap")["product_torus"]["items"]:
        expected = np.array(item["eigenvalues"])[::-1]
        np.testing.assert_allclose(numeric(spectrum("torus", *item["shape"])), expected, atol=1e-12)
        np.testing.assert_allclose(eigenvalues(product_torus(*item["shape"])), expected, atol=1e-12)


def test_spectral_gaps_of_the_authors_code():
    for item in load("beyond_spectral_gap")["effective_neighbors"]["items"]:
        if item["spectral_gap_sv"] is not None:
            gap = spectral_gap(topology(item["name"], item["n"]))
            assert gap == pytest.approx(item["spectral_gap_sv"], abs=1e-12)


@pytest.mark.parametrize(
    ("family", "sizes", "modulus"),
    [
        ("path", (6,), 0.910683602522959),
        ("ring", (7,), 0.748993201239156),
        ("ring", (8,), 0.804737854124365),
        ("star", (6,), 0.833333333333333),
        ("hypercube", (8,), 0.5),
        ("complete_bipartite", (3, 4), 0.4),
        ("balanced_binary_tree", (3,), 0.975802981477889),
    ],
)
def test_second_largest_moduli_of_metropolis_weights(family, sizes, modulus):
    """Values of the theory_checks reference, block weights."""
    assert np.abs(numeric(spectrum(family, *sizes))[1:]).max() == pytest.approx(modulus, abs=1e-12)


@pytest.mark.parametrize(
    ("family", "sizes", "W"),
    [
        ("complete", (6,), topology("fully_connected", 6)),
        ("disconnected", (4,), np.eye(4)),
        ("ring", (9,), ring(9)),
        ("path", (7,), topology("chain", 7)),
        ("star", (5,), topology("star", 5)),
        ("hypercube", (16,), topology("hypercube", 16)),
        ("torus", (4, 4), product_torus(4, 4)),
        ("torus", (5, 5), product_torus(5, 5)),
        ("two_cliques", (12,), two_cliques(12)),
        ("complete_bipartite", (4, 4), metropolis(nx.complete_bipartite_graph(4, 4))),
        ("unidirectional_ring", (6,), circulant(6, {0: 0.5, 1: 0.5})),
    ],
)
def test_symbolic_gap(family, sizes, W):
    gap = symbolic_gap(family).gap.subs(sympy.Symbol("n", positive=True), len(W))
    assert float(gap) == pytest.approx(spectral_gap(W), abs=1e-12)
    assert float(symbolic_gap(family, len(W)).gap) == pytest.approx(float(gap), abs=1e-15)


@pytest.mark.parametrize("family", ["ring", "path", "star", "torus", "two_cliques", "complete_bipartite"])
def test_symbolic_gap_asymptotics(family):
    exact, leading = symbolic_gap(family)
    n = sympy.Symbol("n", positive=True)
    assert float(sympy.N((exact / leading).subs(n, sympy.Integer(10) ** 12), 30)) == pytest.approx(1, abs=1e-5)


def test_kinds_of_gap():
    four = ring(4)  # eigenvalues 1, 1/3, 1/3, -1/3
    assert spectral_gap(four) == pytest.approx(2 / 3)
    assert spectral_gap(four, "signed") == pytest.approx(2 / 3)
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert spectral_gap(swap) == pytest.approx(0)
    assert spectral_gap(swap, "signed") == pytest.approx(2)
    assert spectral_gap(np.eye(1)) == spectral_gap(np.eye(1), "signed") == 1


def test_gap_of_a_schedule_is_per_period():
    W = ring(8)
    assert 1 - spectral_gap([W, W]) == pytest.approx((1 - spectral_gap(W)) ** 2)


def test_reads_mixings_and_schedules():
    class Varying:
        matrices = one_peer_exponential(4)

        @property
        def matrix(self):
            raise ValueError("varies with the step")

    fixed = types.SimpleNamespace(matrix=ring(5).astype(np.float32))
    assert period_matrices(fixed).shape == (1, 5, 5)
    assert period_matrices(fixed).dtype == np.float64
    assert period_matrices([fixed, fixed.matrix]).shape == (2, 5, 5)
    assert period_matrices(Varying()).shape == (2, 4, 4)


@pytest.mark.parametrize(
    ("W", "message"),
    [
        (np.ones((2, 3)) / 3, r"W: expected shape \[n, n\]"),
        (np.eye(3)[0], r"W: expected shape \[n, n\]"),
        (np.array([[0.5, 0.5], [0.2, 0.8]]), r"W: rows and columns must sum to 1.*metropolis"),
        (np.full((2, 2), np.nan), "W: rows and columns must sum to 1"),
        (np.array([[-1.0, 2.0], [2.0, -1.0]]), r"\|\|W\|\|_2 <= 1, got 3"),
        ("ring", "W: cannot read str"),
        ([np.eye(2), np.eye(3)], "W: cannot read list"),
    ],
)
def test_unsuitable_matrices_are_refused(W, message):
    with pytest.raises(ValueError, match=message):
        spectral_gap(W)


def test_errors_name_the_way_out():
    with pytest.raises(ValueError, match="'rinng', nearest is 'ring'"):
        spectrum("rinng", 5)
    with pytest.raises(ValueError, match="no closed form for 'grid'"):
        spectrum("grid", 3, 3)
    with pytest.raises(ValueError, match="nearest is 'hypercube'"):
        laplacian_spectrum("hyper-cubes", 8)
    with pytest.raises(ValueError, match="no closed form for 'mix'"):
        symbolic_gap("mix")
    with pytest.raises(ValueError, match=r"sizes: ring takes \(n\)"):
        spectrum("ring", 3, 4)
    with pytest.raises(ValueError, match="whole numbers"):
        spectrum("ring", 3.5)
    with pytest.raises(ValueError, match="hypercube needs a power of two"):
        spectrum("hypercube", 6)
    with pytest.raises(ValueError, match="prime that is 1 modulo 4"):
        spectrum("paley", 7)
    with pytest.raises(ValueError, match="kind: expected"):
        spectral_gap(np.eye(2), "relative")
    with pytest.raises(ValueError, match='use kind="absolute"'):
        spectral_gap(circulant(4, {0: 0.5, 1: 0.5}), "signed")
    with pytest.raises(ValueError, match="schedule of period 2"):
        eigenvalues(one_peer_exponential(4))
    with pytest.raises(ValueError, match="expected a symmetric matrix"):
        eigenvalues(circulant(4, {0: 0.5, 1: 0.5}))
