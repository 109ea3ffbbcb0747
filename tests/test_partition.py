"""experiments.partition and experiments.data: disjoint, covering, seeded, never empty; the extremes of each scheme."""

import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import data, heterogeneity, partition

SCHEMES = {
    "iid": partition.iid,
    "by_label": partition.by_label,
    "label_shards": lambda labels, nodes, seed: partition.label_shards(labels, nodes, 2, seed),
    "dirichlet_per_class": lambda labels, nodes, seed: partition.dirichlet_per_class(labels, nodes, 0.1, seed),
    "dirichlet_per_client": lambda labels, nodes, seed: partition.dirichlet_per_client(labels, nodes, 0.1, seed),
    "quantity_skew": lambda labels, nodes, seed: partition.quantity_skew(labels, nodes, 0.1, seed),
}
label_arrays = st.lists(st.integers(-1, 4), min_size=24, max_size=80).map(np.array)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@given(labels=label_arrays, nodes=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_partitions_are_disjoint_covering_and_seeded(scheme, labels, nodes, seed):
    parts = scheme(labels, nodes, seed)
    assert len(parts) == nodes
    assert all(len(part) > 0 and (np.diff(part) > 0).all() for part in parts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    for part, again in zip(parts, scheme(labels, nodes, seed), strict=True):
        np.testing.assert_array_equal(part, again)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_another_seed_gives_another_partition(scheme):
    labels = np.repeat(np.arange(5), 20)
    first, second = scheme(labels, 8, 0), scheme(labels, 8, 1)
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["iid", "by_label", "dirichlet_per_client"])
def test_even_schemes_have_sizes_that_differ_by_one(name):
    sizes = [len(part) for part in SCHEMES[name](np.arange(50) % 3, 8, 0)]
    assert max(sizes) - min(sizes) == 1


def test_by_label_gives_one_class_a_node():
    labels = np.tile(np.arange(5), 20)
    assert all(len(set(labels[part])) == 1 for part in partition.by_label(labels, 10))


def test_label_shards_gives_few_classes_a_node():
    labels = np.tile(np.arange(10), 20)
    for shards in (1, 2, 4):
        parts = partition.label_shards(labels, 5, shards, seed=3)
        assert max(len(set(labels[part])) for part in parts) <= shards * (1 if shards > 1 else 2)


@pytest.mark.parametrize("scheme", [partition.dirichlet_per_class, partition.dirichlet_per_client])
def test_dirichlet_spans_the_range_from_even_to_one_class(scheme):
    labels = np.repeat(np.arange(10), 200)
    skews = [partition.heterogeneity(labels, scheme(labels, 10, alpha, 0)) for alpha in (0.1, 5.0, 1e4)]
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.55
    assert skews[-1] < 0.12


def test_dirichlet_per_class_shares_have_the_dirichlet_moments():
    """Var q = (1 / n)(1 - 1 / n) / (n alpha + 1) for the share q of one class at one of n nodes."""
    labels, nodes, alpha = np.repeat(np.arange(200), 400), 4, 0.7
    parts = partition.dirichlet_per_class(labels, nodes, alpha, seed=1)
    shares = np.bincount(labels[parts[0]], minlength=200) / 400
    assert shares.mean() == pytest.approx(1 / nodes, abs=0.06)
    assert shares.var() == pytest.approx(3 / 16 / (nodes * alpha + 1), rel=0.25)


def test_minimum_is_kept():
    labels = np.repeat(np.arange(3), 40)
    for seed in range(5):
        assert min(map(len, partition.dirichlet_per_class(labels, 10, 0.01, seed, minimum=7))) >= 7
        assert min(map(len, partition.quantity_skew(labels, 10, 0.01, seed, minimum=7))) >= 7


def test_quantity_skew_leaves_the_labels_alone():
    labels = np.tile(np.arange(4), 2500)
    parts = partition.quantity_skew(labels, 5, 1.0, 0, minimum=400)
    assert max(map(len, parts)) > 2 * min(map(len, parts))
    assert partition.heterogeneity(labels, parts) < 0.04


@given(labels=label_arrays, nodes=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_stacked_weights_reproduce_the_average_over_all_samples(labels, nodes, seed):
    features = np.random.default_rng(seed).normal(size=(len(labels), 3))
    parts = partition.quantity_skew(labels, nodes, 0.3, seed)
    stacked = partition.stack(features, labels, parts)
    assert stacked.features.shape == (nodes, max(map(len, parts)), 3)

    def loss(x, y):
        return (x @ np.array([1.0, -2.0, 0.5]) - y) ** 2

    weighted = (stacked.weights * loss(stacked.features, stacked.labels)).sum(axis=1).mean()
    np.testing.assert_allclose(weighted, loss(features, labels).mean(), rtol=1e-12)
    assert (stacked.features[stacked.weights == 0] == 0).all()
    assert (stacked.weights > 0).sum() == len(labels)
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(stacked.features[i, : len(part)], features[part])
        np.testing.assert_array_equal(stacked.labels[i, : len(part)], labels[part])


def test_heterogeneity_closed_forms():
    labels = np.tile(np.arange(4), 8)
    assert partition.heterogeneity(labels, partition.by_label(labels, 4)) == pytest.approx(3 / 4)
    assert partition.heterogeneity(labels, np.split(np.arange(32), 8)) == pytest.approx(0)
    assert partition.heterogeneity(labels, [np.arange(32)]) == 0


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda y: partition.iid(y, 7), r"iid: 7 nodes with at least 1 of the 6 samples each .* between 1 and 6 nodes"),
        (lambda y: partition.by_label(y, 0), r"by_label: 0 nodes"),
        (lambda y: partition.label_shards(y, 4, 2), r"label_shards: 4 nodes with at least 2 .* between 1 and 3"),
        (lambda y: partition.dirichlet_per_class(y, 2, 0.0), r"alpha must be positive and finite, got 0.0"),
        (lambda y: partition.dirichlet_per_client(y, 2, np.inf), r"alpha must be positive and finite, got inf"),
        (lambda y: partition.quantity_skew(y, 3, 1.0, minimum=3), r"3 nodes with at least 3 of the 6 samples"),
        (lambda y: partition.stack(np.ones((6, 1)), y, [np.arange(6), np.arange(0)]), r"shares of sizes \[6, 0\]"),
    ],
)
def test_misuse_is_explained(use, message):
    with pytest.raises(ValueError, match=message):
        use(np.array([0, 0, 0, 1, 1, 1]))


@pytest.mark.parametrize(
    ("load", "shape", "classes", "blank"), [(data.breast_cancer, (569, 30), 2, 0), (data.digits, (1797, 64), 10, 3)]
)
def test_bundled_data_are_standardised(load, shape, classes, blank):
    dataset = load()
    assert dataset.features.shape == shape
    assert dataset.features.dtype == np.float64
    assert dataset.labels.shape == shape[:1]
    assert set(dataset.labels) == set(range(classes))
    np.testing.assert_allclose(dataset.features.mean(axis=0), 0, atol=1e-12)
    deviation = dataset.features.std(axis=0)
    assert (deviation == 0).sum() == blank
    np.testing.assert_allclose(deviation[deviation > 0], 1, rtol=1e-12)
    np.testing.assert_array_equal(load(intercept=True).features, np.column_stack([dataset.features, np.ones(shape[0])]))


def test_missing_scikit_learn_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'adozoo\[experiments\]'"):
        data.digits()


def turn_by_turn(labels, nodes, alpha, seed):
    """dirichlet_per_client as it is described, one numpy draw a sample."""
    rng = np.random.default_rng(seed)
    classes, left = np.unique(labels, return_counts=True)
    pools = [list(rng.permutation(np.flatnonzero(labels == label))) for label in classes]
    mixtures = rng.dirichlet(alpha * left / left.sum(), size=nodes)
    parts = [[] for _ in range(nodes)]
    for turn in range(len(labels)):
        chances = mixtures[turn % nodes] * (left > 0)
        chances = chances if chances.sum() > 0 else left
        label = rng.choice(len(classes), p=chances / chances.sum())
        parts[turn % nodes].append(pools[label].pop())
        left[label] -= 1
    return parts


@given(
    labels=label_arrays,
    nodes=st.integers(1, 12),
    alpha=st.sampled_from([1e-3, 0.1, 1.0, 100.0]),
    seed=st.integers(0, 10**6),
)
def test_dirichlet_per_client_draws_turn_by_turn(labels, nodes, alpha, seed):
    found = partition.dirichlet_per_client(labels, nodes, alpha, seed)
    for part, expected in zip(found, turn_by_turn(labels, nodes, alpha, seed), strict=True):
        np.testing.assert_array_equal(part, np.sort(expected))


@given(groups=st.lists(st.integers(0, 9), min_size=12, max_size=60).map(np.array), data=st.data())
def test_natural_deals_whole_groups_evenly(groups, data):
    codes = set(groups.tolist())
    nodes, seed = data.draw(st.integers(1, len(codes))), data.draw(st.integers(0, 10**6))
    parts = partition.natural(groups, nodes, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(groups)))
    assert sum(len(set(groups[part].tolist())) for part in parts) == len(codes)
    # Without its last, smallest group, each node was the one with the fewest samples.
    for part in parts:
        assert len(part) - np.unique(groups[part], return_counts=True)[1].min() <= min(map(len, parts))
    for part, again in zip(parts, partition.natural(groups, nodes, seed), strict=True):
        np.testing.assert_array_equal(part, again)


@given(sizes=st.lists(st.integers(1, 9), min_size=3, max_size=6))
def test_natural_is_within_a_third_of_the_best(sizes):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    hands = itertools.product(range(3), repeat=len(sizes))
    best = min(np.bincount(hand, weights=sizes, minlength=3).max() for hand in hands)
    assert max(map(len, partition.natural(groups, 3))) <= (4 / 3 - 1 / 9) * best + 1e-9


def test_natural_breaks_ties_by_the_seed():
    groups = np.repeat(np.arange(8), 3)
    assert len({tuple(part.tobytes() for part in partition.natural(groups, 4, seed)) for seed in range(10)}) > 5


def named(labels, groups=None):
    return data.Dataset(np.ones((len(labels), 1)), labels, "some", "", groups)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("iid", lambda y: partition.iid(y, 4, 5)),
        ("by_label", lambda y: partition.by_label(y, 4, 5)),
        ("label_shards:3", lambda y: partition.label_shards(y, 4, 3, 5)),
        ("dirichlet_per_class:0.1", lambda y: partition.dirichlet_per_class(y, 4, 0.1, 5)),
        ("dirichlet_per_client:0.1", lambda y: partition.dirichlet_per_client(y, 4, 0.1, 5)),
        ("quantity_skew:.5", lambda y: partition.quantity_skew(y, 4, 0.5, 5)),
        ("natural", lambda y: partition.natural(y % 7, 4, 5)),
    ],
)
def test_schemes_by_name(text, same):
    labels = np.arange(100) % 10
    found = partition.by_name(text, named(labels, labels % 7), 4, 5)
    for part, expected in zip(found, same(labels), strict=True):
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize(
    ("text", "dataset", "message"),
    [
        ("dirichlet_per_clas:0.1", named(np.arange(9)), r"unknown scheme 'dirichlet_per_clas'.*'dirichlet_per_class'"),
        ("xyz", named(np.arange(9)), r"Choose one of iid, by_label"),
        ("dirichlet_per_class", named(np.arange(9)), r"needs a number, got 'dirichlet_per_class'.*class:0.1"),
        ("label_shards:half", named(np.arange(9)), r"needs a number, got 'label_shards:half'.*'label_shards:2'"),
        ("iid:3", named(np.arange(9)), r"'iid' takes no number"),
        ("natural", named(np.arange(9)), r"some has no groups"),
        ("natural", named(np.arange(9), np.arange(9) // 5), r"2 groups cannot go whole to 3 nodes"),
        ("by_label", named(np.linspace(0, 1, 9)), r"labels of some are no classes.*'quantity_skew:0.5'"),
        ("by_label", named(np.zeros((9, 4), int)), r"labels of some are no classes"),
    ],
)
def test_unsuitable_names_are_explained(text, dataset, message):
    with pytest.raises(ValueError, match=message):
        partition.by_name(text, dataset, 3)


def test_heterogeneity_by_chance_is_the_expectation_over_uniform_shares():
    labels, sizes = np.repeat([0, 1, 2], [30, 9, 1]), [25, 10, 4, 1]
    by_chance = heterogeneity.heterogeneity_by_chance(labels, sizes)
    summed = np.mean(
        [
            sum(
                abs(k / m - count / 40) * math.comb(count, k) * math.comb(40 - count, m - k) / math.comb(40, m) / 2
                for count in (30, 9, 1)
                for k in range(min(count, m) + 1)
            )
            for m in sizes
        ]
    )
    assert by_chance == pytest.approx(summed, rel=1e-12)
    rng = np.random.default_rng(0)
    drawn = [partition.heterogeneity(labels, np.split(rng.permutation(40), np.cumsum(sizes)[:-1])) for _ in range(2000)]
    assert by_chance == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 2000**0.5)


def test_what_is_measured():
    labels = np.arange(40) % 4
    parts = [np.flatnonzero(labels == 0), np.flatnonzero(labels > 0)]
    found = partition.measure(named(labels, labels // 2), parts)
    assert found == {
        "nodes": 2,
        "smallest_share": 10,
        "largest_share": 30,
        "heterogeneity": pytest.approx((3 / 4 + 1 / 4) / 2),
        "heterogeneity_by_chance": heterogeneity.heterogeneity_by_chance(labels, [10, 30]),
        "fewest_classes": 1,
        "mean_classes": 2.0,
        "most_classes": 3,
        "mean_groups": 1.5,
    }
    assert set(partition.measure(named(labels / 2), parts)) == {"nodes", "smallest_share", "largest_share"}


def test_images_and_sequences_are_stacked_too():
    images, following = np.arange(60.0).reshape(5, 2, 2, 3), np.arange(20).reshape(5, 4)
    stacked = partition.stack(images, following, [np.array([0, 4]), np.array([1, 2, 3])])
    assert (stacked.features.shape, stacked.labels.shape) == ((2, 3, 2, 2, 3), (2, 3, 4))
    np.testing.assert_array_equal(stacked.features[0, 1], images[4])
    np.testing.assert_array_equal(stacked.labels[1, 2], following[3])
    assert not stacked.features[0, 2].any()


def test_other_samples_are_standardised_by_the_scale_of_these():
    known, others = np.random.default_rng(0).normal(3, 2, size=(2, 50, 4, 4, 2))
    found = data.standardise(others.astype(np.float32), data.scale(known.astype(np.float32)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (others - known.mean((0, 1, 2))) / known.std((0, 1, 2)), atol=1e-5)
