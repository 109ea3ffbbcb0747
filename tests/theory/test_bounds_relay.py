"""Bounds of RelaySGD: searches, the searches' map against the implementation, the proof's root, recalled orders."""

import networkx as nx
import numpy as np
import pytest

import adozoo
import theory
from theory.bounds import _relays as relays
from theory.bounds import relay

BOUNDS = {bound.name: bound for bound in relay.BOUNDS}
TRIED = sorted(name for name, bound in BOUNDS.items() if bound.search is not None)
REACHED = {"relay_sgd_rate": 0.91, "relay_sgd_rate_lower": 0.9999}


def as_tree(distances):
    return nx.from_numpy_array((distances == 1).astype(int))


def shape(distances):
    """A mark of the tree that does not depend on the order of its nodes."""
    return tuple(sorted(tuple(sorted(row)) for row in distances.tolist()))


@pytest.mark.parametrize("name", TRIED)
def test_nothing_breaks_it(name):
    found = BOUNDS[name].falsify(2000)
    assert not found.violated, found
    assert found.instances >= 2000
    assert found.worst_ratio >= REACHED.get(name, 0.999999)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIED)
def test_ten_thousand_instances(name):
    assert not BOUNDS[name].falsify(10_000, seed=1).violated


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("relay_response", 1.001),
        ("relay_response", 0.999),
        ("relay_sgd_rate", 0.9),
        ("relay_sgd_rate_lower", 1.001),
        ("relay_sgd_grad_disagreement", 0.999),
    ],
)
def test_what_is_tight_has_no_smaller_constant(name, scale):
    assert BOUNDS[name].falsify(2000, scale=scale).violated


def test_searches_see_all_kinds_of_trees():
    points = np.random.default_rng(0).uniform(size=(3000, relays.TREE_DIMENSION))
    shapes = {n: set() for n in relays.SIZES}
    for _, distances, delays in relays.trees(points):
        n = distances.shape[1]
        shapes[n] |= set(map(shape, distances))
        for matrix, late in zip(distances[:20], delays[:20], strict=True):
            tree = as_tree(matrix)
            assert nx.is_tree(tree)
            expected = [theory.delay_matrix(tree, overlap) for overlap in (False, True)]
            assert any((late == each).all() for each in expected)
    for n, found in shapes.items():
        assert found == {shape(theory.delay_matrix(tree, overlap=True)) for tree in nx.nonisomorphic_trees(n)}


@pytest.mark.parametrize("common", [False, True])
def test_searches_measure_the_implementation(common):
    points = np.random.default_rng(1).uniform(size=(5, relays.RATE_DIMENSION))
    points[:, 0] = 0.7  # six nodes
    points[:, relays.TREE_DIMENSION] *= 0.3  # learning rates that are not tiny
    measured, values = relays.rates(points, common)
    (_, distances, delays), *others = relays.trees(points)
    assert not others
    shares = np.ones((5, 6)) if common else points[:, relays.TREE_DIMENSION + 1 :][:, np.arange(6) % 8]
    shares[:, 0] = 1.0
    for k in range(5):
        tree, overlap = as_tree(distances[k]), bool((delays[k] == distances[k]).all())
        learning_rate = float(values["learning_rate"][k])
        problem = adozoo.problems.quadratic(shares[k][:, None, None], np.zeros((6, 1)))
        found = theory.exact_rate(
            lambda mix, step=learning_rate, overlap=overlap: adozoo.relay_sgd(
                adozoo.descent(step), mix, overlap=overlap
            ),
            problem,
            adozoo.mixing(tree),
        )
        assert measured[k] == pytest.approx(found, abs=1e-9)
        assert values["mean_delay"][k] == pytest.approx(theory.mean_delay(tree, overlap))


def test_the_root_of_the_proof_is_the_spectral_radius():
    rng = np.random.default_rng(3)
    for name in ("path", "star", "heap_binary_tree"):
        delays = theory.delay_matrix(adozoo.graphs.FAMILIES[name](7), overlap=True)
        factors = rng.uniform(size=7)
        rate = np.abs(np.linalg.eigvals(relays.transitions(factors[None], delays[None])[0])).max()
        kernel = rate ** -delays.astype(float) / 7 * factors
        assert np.abs(np.linalg.eigvals(kernel)).max() == pytest.approx(rate, rel=1e-9)


def test_the_upper_bound_covers_commuting_hessians():
    """Two coordinates in one basis; heterogeneity as large as it gets."""
    tree = adozoo.graphs.path(6)
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    curvatures = np.array([[1.0, 0.0], [0.0, 0.5]] * 3)
    hessians = turn @ (curvatures[:, :, None] * np.eye(2)) @ turn.T
    bound = BOUNDS["relay_sgd_rate"]
    for overlap, longest in ((False, 4), (True, 5)):
        found = bound.evaluate(learning_rate=1.0, smoothness=1.0, mean_curvature=0.25, longest_delay=longest)
        assert found.holds
        assert theory.relay_rate(tree, hessians, 1.0, overlap) <= found.rate


def test_bounds_of_the_methods():
    assert set(theory.bounds.of_method("relay_sgd_overlap")) == {
        "relay_response",
        "relay_sgd_rate",
        "relay_sgd_convex",
        "relay_sgd_strongly_convex",
        "relay_sgd_nonconvex",
    }
    assert set(theory.bounds.of_method("relay_sgd_grad")) == {"relay_sgd_grad_disagreement"}


@pytest.mark.parametrize("name", ["relay_sgd_convex", "relay_sgd_strongly_convex", "relay_sgd_nonconvex"])
def test_orders_are_recalled_and_agree_with_mini_batches_in_the_limit(name):
    """The leading term for small errors is that of SGD with n times the batch, whatever the tree."""
    bound = BOUNDS[name]
    assert (bound.kind, bound.evidence) == ("order", "recalled")
    known = dict.fromkeys(bound.symbols, 1.0) | {"nodes": 8.0, "accuracy": 1e-12, "gradient_variance": 2.0}
    values = []
    for constant in (1.0, 10.0):
        known["tree_constant"] = constant
        values.append(float(bound.at(**known)[0]))
    assert values[1] == pytest.approx(values[0], rel=1e-3)
    exponent = 1 if name == "relay_sgd_strongly_convex" else 2
    assert values[0] == pytest.approx(2.0 / (8 * known["accuracy"] ** exponent), rel=1e-3)
    with pytest.raises(ValueError, match="cannot be falsified"):
        bound.falsify(10)
