"""Generators of second moments: recorded rates of DADAO and A2CiD2, closed forms, and simulated Poisson events."""

import networkx as nx
import numpy as np
import pytest
import references
import scipy.linalg

import adozoo
import theory
from theory.generator import Event

RECORDED = references.load("asynchronous_and_accelerated")["theory"]


def edges_of(graph):
    """(i, j, e_ij) for every edge."""
    identity = np.eye(len(graph))
    return [(i, j, identity[i] - identity[j]) for i, j in graph.edges]


def mean_free(n):
    return scipy.linalg.null_space(np.ones((1, n)))


def acid(graph, rate=1.0, accelerated=True, noise=0.0, momentum=None):
    """A2CiD2 (or its baseline) under gradients of pure noise: drift, events, basis, on x, x~ (and momentum).

    Gradient events act on deviations from the mean, which is what is asked for and keeps the basis invariant.
    """
    n = len(graph)
    degree = dict(graph.degree)
    rates = {(i, j): rate * (1 / degree[i] + 1 / degree[j]) / 2 for i, j, _ in edges_of(graph)}
    laplacian = sum(rates[i, j] * np.outer(e, e) for i, j, e in edges_of(graph))
    chi_1 = 1 / np.linalg.eigvalsh(laplacian)[1]
    inverse = np.linalg.pinv(laplacian)
    chi_2 = max(e @ inverse @ e for _, _, e in edges_of(graph)) / 2
    eta = 1 / (2 * np.sqrt(chi_1 * chi_2)) if accelerated else 0.0
    second = np.sqrt(chi_1 / chi_2) / 2 if accelerated else 0.5
    copies = 2 if momentum is None else 3
    drift = np.zeros((copies, copies))
    drift[:2, :2] = eta * np.array([[-1, 1], [1, -1]])
    jump = np.zeros((copies, copies))
    jump[:2, 0] = -0.5, -second
    events = [Event(rates[i, j], np.kron(jump, np.outer(e, e))) for i, j, e in edges_of(graph)]
    parts = [mean_free(n), mean_free(n)]
    if noise or momentum is not None:
        beta = momentum or 0.0
        for i in range(n):
            own = np.eye(n)[i]
            away = own - 1 / n
            direction = np.concatenate([-away, -away, own][:copies])
            gradient = np.zeros((copies * n, copies * n))
            if momentum is not None:
                gradient[:, 2 * n + i] = np.concatenate([-beta * away, -beta * away, (beta - 1) * own])
            events.append(Event(1.0, gradient, noise * np.outer(direction, direction)))
    if momentum is not None:
        parts.append(np.eye(n))
    return np.kron(drift, np.eye(n)), events, scipy.linalg.block_diag(*parts)


def build(record):
    return {"ring": nx.cycle_graph, "star": lambda n: nx.star_graph(n - 1)}[record["graph"]](record["n"])


@pytest.mark.parametrize("record", RECORDED["acid_gossip"], ids=lambda record: record["graph"])
def test_recorded_gossip(record):
    for name, accelerated in (("acid", True), ("baseline", False)):
        drift, events, basis = acid(build(record), accelerated=accelerated)
        if not accelerated:  # x~ has no effect on x: only x is kept
            n = len(build(record))
            drift, basis = drift[:n, :n], basis[:n, : n - 1]
            events = [Event(rate, jump[:n, :n]) for rate, jump, _ in events]
        found = theory.generator_rate(drift, events, basis).second_moment
        assert -found == pytest.approx(record[f"{name}_second_moment_decay"], rel=1e-9)


@pytest.mark.parametrize("record", RECORDED["acid_gossip"], ids=lambda record: record["graph"])
def test_recorded_stationary_variance(record):
    n = record["n"]
    for name, accelerated in (("acid", True), ("baseline", False)):
        drift, events, basis = acid(build(record), accelerated=accelerated, noise=1.0)
        if not accelerated:
            drift, basis = drift[:n, :n], basis[:n, : n - 1]
            events = [Event(e.rate, e.jump[:n, :n], None if e.noise is None else e.noise[:n, :n]) for e in events]
        S = theory.generator_stationary(drift, events, basis)
        assert np.trace(S[:n, :n]) / n == pytest.approx(record[f"{name}_stationary_consensus_var"], rel=1e-9)


def test_recorded_stationary_variance_with_momentum():
    recorded, beta = RECORDED["acid_momentum_stationary"]["ring_8_beta0.9"], 0.9
    graph = nx.cycle_graph(8)
    for name, rate, accelerated in (("acid", 1, True), ("base", 1, False), ("base_2x", 2, False)):
        drift, events, basis = acid(graph, rate, accelerated, 1.0, beta)
        if not accelerated:
            keep = np.r_[0:8, 16:24]
            drift = drift[np.ix_(keep, keep)]
            events = [
                Event(e.rate, e.jump[np.ix_(keep, keep)], None if e.noise is None else e.noise[np.ix_(keep, keep)])
                for e in events
            ]
            basis = scipy.linalg.block_diag(mean_free(8), np.eye(8))
        S = theory.generator_stationary(drift, events, basis)
        assert (1 - beta) ** 2 * np.trace(S[:8, :8]) / 8 == pytest.approx(recorded[name], rel=1e-8)


@pytest.mark.parametrize("record", RECORDED["dadao_second_moment"], ids=lambda record: record["graph"])
def test_recorded_dadao(record):
    """States x, x~, y, y~, z, z~ on scalar quadratics with curvatures h."""
    n, mu, L, h = record["n"], record["mu"], record["L"], np.array(record["h"])
    nu, chi = mu / 2, record["chi1_star"]
    small, large = np.sqrt(nu / L), np.sqrt(L / nu)
    eta, alpha, other, theta = small / 8, small / 4, small / 8, large / 2
    flow = np.zeros((6, 6))
    flow[0, :2] = flow[1, 1::-1] = -eta, eta
    flow[2, 2:4] = -alpha, alpha
    flow[3, [1, 2, 4]] = -theta * nu, -theta, -theta
    flow[4, 4:] = -alpha, alpha
    flow[5, 4:] = other, -other
    events = []
    for i in range(n):
        read = np.array([h[i] - nu, 0, 0, -1, 0, 0])
        push = np.array([-1 / (4 * L), -1 / (4 * np.sqrt(nu * L)), 0, small / 4 + 1, 0, 0])
        events.append(Event(1.0, np.kron(np.outer(push, read), np.outer(np.eye(n)[i], np.eye(n)[i]))))
    graph = build(record)
    push = np.array([0, 0, 0, 0, -0.5, -2 * chi * large])
    for _, _, e in edges_of(graph):
        gossip = np.kron(np.outer(push, [0, 0, 1, 0, 1, 0]), np.outer(e, e))
        events.append(Event(record["total_comm_rate"] / graph.number_of_edges(), gossip))
    basis = scipy.linalg.block_diag(*[np.eye(n)] * 4, mean_free(n), mean_free(n))
    found = theory.generator_rate(np.kron(flow, np.eye(n)), events, basis)
    assert found.second_moment == pytest.approx(record["second_moment_abscissa"], rel=1e-8)
    assert found.mean == pytest.approx(record["mean_abscissa"], rel=1e-8)
    assert found.second_moment <= record["theorem_bound"]


def test_pairwise_gossip_on_the_complete_graph():
    """Every pair at rate 1: |x|^2 decays by 1/2 of e_ij'x squared at each event, that is by the rate n / 2 in all."""
    n = 5
    events = [Event(1.0, -0.5 * np.outer(e, e)) for _, _, e in edges_of(nx.complete_graph(n))]
    found = theory.generator_rate(np.zeros((n, n)), events, mean_free(n))
    assert found.second_moment == pytest.approx(-n / 2, abs=1e-12)
    assert found.mean == pytest.approx(-n / 2, abs=1e-12)


def test_large_operators_agree_with_dense_ones(monkeypatch):
    drift, events, basis = acid(adozoo.graphs.ring(6), noise=0.3)
    dense = theory.generator_rate(drift, events, basis), theory.generator_stationary(drift, events, basis)
    monkeypatch.setattr(theory.generator, "DENSE_STATES", 3)
    sparse = theory.generator_rate(drift, events, basis), theory.generator_stationary(drift, events, basis)
    np.testing.assert_allclose(sparse[0], dense[0], rtol=1e-9)
    np.testing.assert_allclose(sparse[1], dense[1], atol=1e-9)


def test_poisson_events_simulated():
    """A seeded run of exact events: E ||s||^2 at time 2 over 4000 runs, within four standard errors."""
    rng = np.random.default_rng(0)
    drift, events, basis = acid(adozoo.graphs.ring(4))
    rates = np.array([event.rate for event in events])
    start = basis @ rng.normal(size=basis.shape[1])
    squares = []
    for _ in range(4000):
        s, now = start, 0.0
        while True:
            wait = rng.exponential(1 / rates.sum())
            if now + wait > 2.0:
                break
            now += wait
            s = scipy.linalg.expm(wait * drift) @ s if wait else s
            s = s + events[rng.choice(len(events), p=rates / rates.sum())].jump @ s
        s = scipy.linalg.expm((2.0 - now) * drift) @ s
        squares.append(s @ s)
    operator = theory.generator._on_symmetric(*theory.generator._reduced("test", drift, events, basis))
    size = basis.shape[1]
    rows, columns = np.triu_indices(size)
    inner = basis.T @ start
    S = scipy.linalg.expm(2.0 * operator) @ np.outer(inner, inner)[rows, columns]
    expected = S[rows == columns].sum()
    assert abs(np.mean(squares) - expected) < 4 * np.std(squares) / np.sqrt(len(squares))


def test_unstable_and_misused():
    grows = [Event(1.0, np.array([[0.5]]), np.eye(1))]
    assert theory.generator_rate(np.zeros((1, 1)), grows).second_moment == pytest.approx(1.25)
    assert np.isinf(theory.generator_stationary(np.zeros((1, 1)), grows)).all()
    with pytest.raises(ValueError, match="drift must be a square"):
        theory.generator_rate(np.zeros((2, 3)), [])
    with pytest.raises(ValueError, match=r"events\[0\]"):
        theory.generator_rate(np.zeros((2, 2)), [(0.0, np.zeros((2, 2)))])
    with pytest.raises(ValueError, match="invariant"):
        theory.generator_rate(np.array([[0.0, 1.0], [0.0, 0.0]]), [], np.array([[0.0], [1.0]]))
    with pytest.raises(ValueError, match="orthonormal"):
        theory.generator_rate(np.zeros((2, 2)), [], np.ones((2, 1)))
