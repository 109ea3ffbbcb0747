"""Bounds of accelerated methods: their steps against recorded trajectories, and searches over quadratics."""

import networkx as nx
import numpy as np
import pytest
from references import load

from theory.bounds import _accelerated as accelerated_steps
from theory.bounds import accelerated
from theory.bounds._laplacians import laplacians, mean_free

DATA = load("asynchronous_and_accelerated")
BOUNDS = {bound.name: bound for bound in accelerated.BOUNDS}
TRIED = sorted(name for name, bound in BOUNDS.items() if bound.search is not None)
# The worst ratio of a search of 2000 instances. Half is twice the guaranteed exponent: what quadratics can show.
REACHED = {
    "ssda_rate": 0.499,
    "msda_rate": 0.499,
    "adom_rate": 0.499,
    "adom_plus_rate": 0.44,
    "apapc_rate": 0.27,
    "opapc_rate": 0.14,
}


@pytest.mark.parametrize("name", TRIED)
def test_nothing_breaks_it(name):
    found = BOUNDS[name].falsify(2000)
    assert not found.violated, found
    assert found.instances >= 2000
    assert found.worst_ratio >= REACHED[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIED)
def test_ten_thousand_instances(name):
    assert not BOUNDS[name].falsify(10_000, seed=1).violated


@pytest.mark.parametrize("name", sorted(set(BOUNDS) - set(TRIED)))
def test_orders_are_not_measured(name):
    assert BOUNDS[name].kind == "order"
    assert BOUNDS[name].evidence == "recalled"
    with pytest.raises(ValueError, match="cannot be falsified"):
        BOUNDS[name].falsify(10)


def test_dual_rates_are_exact_on_quadratics():
    """SSDA's factor on two nodes is (1 - sqrt(q))^2, q = 1 / (kappa chi): twice the exponent of the bound."""
    gossip = np.array([[[1.0, -1.0], [-1.0, 1.0]]])
    constants = accelerated_steps.ssda_constants(1.0, 9.0, 2.0, 2.0)
    step = accelerated_steps.matrix(accelerated_steps.ssda, (True, True), np.full((1, 2), 1 / 9.0), gossip, constants)
    value, _ = BOUNDS["ssda_rate"].at(strong_convexity=1.0, smoothness=9.0, gossip_condition=1.0)
    assert np.abs(np.linalg.eigvals(step[0])).max() == pytest.approx(2 / 3, rel=1e-6)
    assert value == pytest.approx(2 / 3)


BASE = DATA["base"]["deterministic_ring5"]
H, B, START = (np.array(BASE[key]) for key in ("H", "b", "x0"))
LAPLACIAN = np.array(BASE["Laplacian_unit"])
SPECTRUM = np.linalg.eigvalsh(LAPLACIAN)
NOTHING = np.zeros_like(START)


def gradient(x):
    return np.einsum("nij,nj->ni", H, x) - B


def dual_gradient(y):
    return np.linalg.solve(H, (y + B)[..., None])[..., 0]


def follow(step, state, oracle, gossip, constants, steps):
    states = [state]
    for k in range(steps):
        states.append(step(states[-1], oracle, gossip(k), constants))
    return states


@pytest.mark.parametrize("name", ["apapc", "opapc", "adom", "ssda"])
def test_steps_as_recorded(name):
    mu, L = BASE["mu"], BASE["L"]
    edges = (SPECTRUM[1], SPECTRUM[-1])
    gossip = LAPLACIAN
    if name == "opapc":
        gossip = accelerated_steps.chebyshev(LAPLACIAN[None], np.array([BASE["opapc"]["T"]]))[0][0]
        np.testing.assert_allclose(gossip, BASE["opapc"]["cheb_matrix"], atol=1e-12)
    constants = {
        "apapc": lambda: accelerated_steps.apapc_constants(mu, L, *edges),
        "opapc": lambda: accelerated_steps.opapc_constants(mu, L),
        "adom": lambda: accelerated_steps.adom_constants(mu, L, *edges),
        "ssda": lambda: accelerated_steps.ssda_constants(mu, L, *edges),
    }[name]()
    primal = name in ("apapc", "opapc")
    step = accelerated_steps.apapc if primal else getattr(accelerated_steps, name)
    start = {"ssda": (NOTHING, NOTHING), "adom": (NOTHING, NOTHING, NOTHING)}.get(name, (START, START, NOTHING))
    states = follow(step, start, gradient if primal else dual_gradient, lambda k: lambda x: gossip @ x, constants, 25)
    for k, recorded in BASE[name]["traj"].items():
        x, second = states[int(k)][:2]
        if name == "ssda":
            x = dual_gradient(x)
        elif name == "adom":
            x = dual_gradient(constants["tau"] * x + (1 - constants["tau"]) * second)
        np.testing.assert_allclose(x, recorded, atol=1e-12)


def least_squares(block):
    """Hessians and right-hand sides of mean squared errors without the factor 1/2."""
    data, labels = np.array(block["data"]), np.array(block["labels"])
    m = data.shape[1]
    return 2 / m * np.einsum("nma,nmb->nab", data, data), 2 / m * np.einsum("nma,nm->na", data, labels)


def laplacian_of(edges, n):
    graph = nx.Graph(edges)
    return nx.laplacian_matrix(graph, nodelist=range(n)).toarray().astype(float)


def test_msda_as_the_authors_run_it():
    block = DATA["dadao"]["msda_ring6"]
    hessians, right = least_squares(block)
    gossip = laplacian_of(block["edges"], 6) / 6
    polynomial, radius = accelerated_steps.chebyshev(gossip[None], np.array([block["K_inner"]]))
    constants = accelerated_steps.ssda_constants(block["mu"], block["L"], 1 - radius[0], 1 + radius[0])
    assert constants["eta"] == pytest.approx(block["eta"], rel=1e-12)
    assert constants["momentum"] == pytest.approx(block["momentum"], rel=1e-12)

    def conjugate(y):
        return np.linalg.solve(hessians, (y + right)[..., None])[..., 0]

    zero = np.zeros((6, 2))
    states = follow(
        accelerated_steps.ssda, (zero, zero), conjugate, lambda k: lambda x: polynomial[0] @ x, constants, 30
    )
    for snapshot in block["traj"]:
        x, y = states[snapshot["k"] + 1]
        np.testing.assert_allclose(x, snapshot["X"], atol=1e-10)
        np.testing.assert_allclose(y, snapshot["Y"], atol=1e-10)


@pytest.mark.parametrize("name", ["adomplus_tv5", "adomplus_mc_tv5"])
def test_adom_plus_as_the_authors_run_it(name):
    block = DATA["dadao"][name]
    hessians, right = least_squares(block)
    graphs = [laplacian_of(edges, 5) for edges in block["edges"]]
    graphs = [graph / np.linalg.eigvalsh(graph)[-1] for graph in graphs]
    rounds = block["T_multi_consensus"]

    def gossip(k):
        product = np.eye(5)
        for q in range(k * rounds, (k + 1) * rounds):
            product = product @ (np.eye(5) - graphs[q % len(graphs)])
        return lambda x: x - product @ x

    constants = accelerated_steps.adom_plus_constants(block["mu"], block["L"], block["chi"])
    for key, value in block["constants"].items():
        assert constants[key] == pytest.approx(value, rel=1e-9)
    start, zero = np.array(block["x0"]), np.zeros((5, 2))
    state = (start, start, zero, zero, zero, zero, zero)
    states = follow(
        accelerated_steps.adom_plus,
        state,
        lambda x: np.einsum("nij,nj->ni", hessians, x) - right,
        gossip,
        constants,
        40,
    )
    for snapshot in block["traj"]:
        for part, key in zip(states[snapshot["k"] + 1], ("X", "X_f", "Y", "Y_f", "Z", "Z_f", "M"), strict=True):
            np.testing.assert_allclose(part, snapshot[key], atol=1e-9)


def test_matrices_are_the_steps():
    """The matrix on coordinates of the state does what the step does on the state itself."""
    rng = np.random.default_rng(0)
    gossip = next(laplacians(rng.uniform(size=(50, 7)), (4,)))[1][:5]
    h = rng.uniform(1, 10, (5, 4))
    chi = np.ones(5) * 20
    constants = accelerated_steps.adom_plus_constants(np.ones(5), np.full(5, 10.0), chi)
    gossip = gossip / np.linalg.eigvalsh(gossip)[:, -1:, None]
    parts = (False, False, False, False, True, True, True)
    found = accelerated_steps.matrix(accelerated_steps.adom_plus, parts, h, gossip, constants)
    bases = [mean_free(4) if part else np.eye(4) for part in parts]
    coordinates = [rng.normal(size=(5, basis.shape[1])) for basis in bases]
    for k in range(5):
        one = {name: value[k] if np.ndim(value) else value for name, value in constants.items()}
        state = tuple(basis @ part[k] for basis, part in zip(bases, coordinates, strict=True))
        moved = accelerated_steps.adom_plus(state, lambda x, k=k: h[k] * x, lambda x, k=k: gossip[k] @ x, one)
        after = np.concatenate([basis.T @ part for basis, part in zip(bases, moved, strict=True)])
        np.testing.assert_allclose(found[k] @ np.concatenate([part[k] for part in coordinates]), after, atol=1e-12)


def test_chebyshev_polynomial_as_recorded():
    recorded = BASE["cheby_gossip"]
    polynomial, radius = accelerated_steps.chebyshev(LAPLACIAN[None], np.array([recorded["K"]]))
    applied = polynomial[0] @ np.array(recorded["input"])
    np.testing.assert_allclose(applied, recorded["output_x_minus_avgpoly"], atol=1e-12)
    spectrum = np.linalg.eigvalsh(polynomial[0])[1:]
    assert np.abs(spectrum - 1).max() <= radius[0] + 1e-12
    # The radius in terms of chi, as the theorem on MSDA has it.
    c = (np.sqrt(recorded["chi"]) - 1) / (np.sqrt(recorded["chi"]) + 1)
    assert radius[0] == pytest.approx(2 * c**3 / (1 + c**6), rel=1e-9)


def test_opapc_needs_the_ceiling():
    """With floor(sqrt(chi)) rounds the eigenvalues leave [11/15, 19/15]; at chi = 6.83 they reach [.617, 1.383]."""
    chi = 6.83
    gossip = np.diag([0.0, 1.0, 2.0, chi])
    for rounds, inside in ((np.floor(chi**0.5), False), (np.ceil(chi**0.5), True)):
        _, radius = accelerated_steps.chebyshev(gossip[None], np.array([rounds]))
        assert (radius[0] <= 4 / 15) == inside
    assert accelerated_steps.chebyshev(gossip[None], np.array([2.0]))[1][0] == pytest.approx(1 - 0.617, abs=1e-3)


def test_a_wrong_momentum_is_found(monkeypatch):
    """SSDA without extrapolation is slower than its rate, and the search says so."""
    right = accelerated_steps.ssda_constants
    monkeypatch.setattr(accelerated_steps, "ssda_constants", lambda *known: right(*known) | {"momentum": 0.0})
    assert BOUNDS["ssda_rate"].falsify(500).violated
    monkeypatch.undo()
    assert not BOUNDS["ssda_rate"].falsify(500).violated
