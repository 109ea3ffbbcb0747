"""Bounds of low-rank methods: searches, exact expectations against the implementation, quadratures against draws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compressor_cases import quick
from theory_topologies import ring, topology

import adozoo
from adozoo._exchange import OnLinks
from adozoo.gossip.power_gossip import Directions
from theory.bounds import _low_rank as searches
from theory.bounds import low_rank

BOUNDS = {bound.name: bound for bound in low_rank.BOUNDS}


@pytest.mark.parametrize("name", BOUNDS)
def test_nothing_breaks_it_and_it_is_tight(name):
    found = BOUNDS[name].falsify(2000)
    assert not found.violated, found
    assert found.instances >= 2000
    assert found.worst_ratio >= 0.999


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDS)
def test_ten_thousand_instances(name):
    assert not BOUNDS[name].falsify(10_000, seed=1).violated


@pytest.mark.parametrize("name", BOUNDS)
def test_no_smaller_constant_will_do(name):
    scale = 1.01 if BOUNDS[name].direction == "lower" else 0.99
    assert BOUNDS[name].falsify(2000, scale=scale).violated


def disagreement(x):
    return jnp.sum((x - x.mean(0, keepdims=True)) ** 2)


def expected(W, share, step, x):
    """<x, F x> summed over the matrices' entries, for mean-free x."""
    flat = np.asarray(x).reshape(len(x), -1)
    flat = flat - flat.mean(0)
    form = searches.expected_form(W[None], np.array([share]), np.array([step]))[0]
    return np.einsum("ik,ij,jk->", flat, form, flat)


ONE_ROUND = [
    (adozoo.graphs.path(3), (3, 2), 0.9, False),
    (adozoo.graphs.complete(3), (3, 2), 1.4, False),
    (adozoo.graphs.star(4), (2, 5), 1.1, True),
]


@pytest.mark.parametrize(("graph", "shape", "gamma", "left"), ONE_ROUND)
def test_one_round_exactly(graph, shape, gamma, left):
    """The implementation's round over all three directions of each edge: a quadrature that is exact for projections."""
    W = np.asarray(adozoo.mixing(graph)(jnp.eye(len(graph))))
    links = adozoo.exchange(graph)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(len(graph), *shape)))
    tx = adozoo.power_gossip(adozoo.descent(1.0), graph, diffusion_rate=gamma)
    inner, begun = tx.init(x)
    angles = np.array(list(itertools.product(np.pi / 3 * np.arange(3), repeat=graph.number_of_edges())))
    edges = [tuple(sorted(edge)) for edge in graph.edges]
    place = np.array([edges.index(tuple(sorted(pair))) for pair in zip(links.own, links.other, strict=True)])
    units = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], -1)[:, place, :, None])
    given = begun.directions.value[0]

    def after(v):
        directions = Directions(v, given.q) if left else Directions(given.p, v)
        state = inner, begun._replace(count=begun.count + left, directions=OnLinks((directions,)))
        return disagreement(x + tx.update(0 * x, state, x)[0])

    mean = float(jnp.mean(quick(jax.vmap(after))(units)))
    assert mean == pytest.approx(expected(W, 1 / 2, gamma, x), rel=1e-12)


@pytest.mark.parametrize(
    ("n", "shape", "rank", "gamma", "left"), [(4, (3, 5), 2, 1.0, False), (5, (4, 3), 1, 1.3, True)]
)
def test_one_round_of_fresh_directions(n, shape, rank, gamma, left):
    """The implementation's own draws, over 4000 keys."""
    graph = adozoo.graphs.ring(n)
    W = np.asarray(adozoo.mixing(graph)(jnp.eye(n)))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(n, *shape)))

    def after(key):
        tx = adozoo.power_gossip(adozoo.descent(1.0), graph, rank, key=key, warm_start=False, diffusion_rate=gamma)
        inner, state = tx.init(x)
        state = state._replace(count=state.count + left)
        return disagreement(x + tx.update(0 * x, (inner, state), x)[0])

    drawn = np.asarray(quick(jax.vmap(after))(jax.random.split(jax.random.key(0), 4000)))
    share = rank / (shape[0] if left else shape[1])
    error = drawn.mean() - expected(W, share, gamma, x)
    assert abs(error) < 5 * drawn.std() / np.sqrt(len(drawn))
    values = np.linalg.eigvalsh(W)
    bound, holds = BOUNDS["power_gossip_consensus"].at(
        lambda_2=values[-2], lambda_n=values[0], projection_share=share, diffusion_rate=gamma
    )
    assert holds
    assert drawn.mean() < bound * float(disagreement(x))


@pytest.mark.parametrize(("name", "n"), [("ring", 5), ("star", 4), ("chain", 3)])
def test_long_run_of_fresh_directions(name, n):
    """The factor of E x x' by repeating one round, edge by edge; it lies between the two bounds."""
    W, share, gamma = topology(name, n), 0.3, 1.2
    laplacian, center = np.eye(n) - W, np.eye(n) - 1 / n
    gram = center
    for _ in range(2000):
        noise = np.zeros((n, n))
        for i, j in itertools.combinations(range(n), 2):
            b = np.eye(n)[i] - np.eye(n)[j]
            noise += W[i, j] ** 2 * (b @ gram @ b) * np.outer(b, b)
        moved = gram - gamma * share * (laplacian @ gram + gram @ laplacian)
        moved += gamma**2 * (share**2 * laplacian @ gram @ laplacian + share * (1 - share) * noise)
        factor = np.trace(moved) / np.trace(gram)
        gram = center @ moved @ center / np.trace(moved)
    one = np.array([share]), np.array([gamma])
    found = searches.mean_square_factor(W[None], *one)[0]
    assert found == pytest.approx(factor, rel=1e-9)
    assert found <= searches.one_step_factor(W[None], *one)[0] * (1 + 1e-12)
    values = np.linalg.eigvalsh(W)
    known = {
        "lambda_2": values[-2],
        "lambda_n": values[0],
        "projection_share": share,
        "diffusion_rate": gamma,
    }
    upper = BOUNDS["power_gossip_consensus"].evaluate(**known)
    lower = BOUNDS["power_gossip_mean_square_lower"].evaluate(**known)
    assert upper.holds
    assert lower.rate**2 <= found <= upper.rate**2


def test_beyond_the_limit_the_disagreement_may_grow():
    W = ring(4)
    step = 1.01 * 2 / (1 - np.linalg.eigvalsh(W)[0])
    assert searches.one_step_factor(W[None], np.ones(1), np.array([step]))[0] > 1


def test_a_warm_start_has_no_bound_for_one_round():
    """Directions of the last round, orthogonal to the difference."""
    first, second = np.zeros((2, 3, 3)), np.zeros((2, 3, 3))
    first[1, 0, 0], second[1, 1, 1] = 1.0, 1.0
    tx = adozoo.power_gossip(adozoo.descent(1.0), adozoo.graphs.path(2))
    update = quick(tx.update)
    _, state = update(0 * first, tx.init(jnp.asarray(first)), first)
    np.testing.assert_allclose(second + update(0 * second, state, second)[0], second, atol=1e-12)


def test_shares_of_power_iteration_by_draws():
    """What is caught adds up to one, grows with the weight, and is the mean over 10^5 draws."""
    weights, counts = np.array([[1.0, 0.5, 1e-4], [1.0, 1.0, 1e-9]]), np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 2.0]])
    shares = searches.caught(weights, counts)
    np.testing.assert_allclose(np.sum(counts * shares, 1), 1, rtol=1e-12)
    assert (np.diff(shares[0]) < 0).all()
    every = counts[0].astype(int)
    drawn = np.random.default_rng(0).normal(size=(100_000, 6)) ** 2 * np.repeat(weights[0], every)
    drawn = drawn / drawn.sum(1, keepdims=True)
    means, errors = drawn.mean(0), drawn.std(0) / np.sqrt(len(drawn))
    assert (np.abs(means - np.repeat(shares[0], every)) < 5 * errors + 1e-12).all()


@pytest.mark.parametrize(("rank", "iterations"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_loss_of_the_compressor_by_draws(rank, iterations):
    """adozoo's fresh power iteration on a 4 x 4 matrix, over 20 000 keys."""
    sizes = np.array([1.0, 0.8, 0.8, 0.3])
    fresh = adozoo.compression.low_rank(rank, warm_start=False, iterations=iterations)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 4, 4)))[0]
    matrix = jnp.asarray(turn[0] * sizes @ turn[1])

    def lost(key):
        payload, _ = fresh.compress(matrix, (key,))
        return jnp.sum((fresh.decompress(payload, matrix) - matrix) ** 2)

    drawn = np.asarray(quick(jax.vmap(lost))(jax.random.split(jax.random.key(1), 20_000))) / np.sum(sizes**2)
    power = (2 * iterations - 1) * (1 if rank == 1 else -1)
    shares = searches.caught(sizes[None] ** (2 * power), np.ones((1, 4)))[0]
    exact = np.sum(sizes**2 * (1 - shares if rank == 1 else shares)) / np.sum(sizes**2)
    assert abs(drawn.mean() - exact) < 5 * drawn.std() / np.sqrt(len(drawn))
    assert exact < fresh.loss(jax.ShapeDtypeStruct((4, 4), float)) == pytest.approx(1 - rank / 4)


def test_moments_of_a_random_projection():
    for b, r in searches.SKETCHES:
        np.testing.assert_allclose(searches.sketch_moment(b, r), (b + 1) / r * np.eye(b), atol=1e-12)


def test_the_step_of_power_sgd_is_the_implemented_one():
    """One step without feedback from a given Q: what is averaged is projected."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 5, 4)))
    tx = adozoo.power_sgd(adozoo.descent(1.0), rank=2, feedback=False)
    state = tx.init(x)
    sent = -np.asarray(quick(tx.update)(x, state, x)[0][0])
    start, mean = np.asarray(state[0].factors[0].q[0]), np.asarray(x.mean(0))
    p = np.linalg.qr(mean @ start)[0]
    np.testing.assert_allclose(sent, p @ p.T @ mean, atol=1e-12)
    size = np.sum(mean**2)
    value, _ = BOUNDS["power_sgd_projection"].at(captured=np.sum((p.T @ mean) ** 2) / size)
    assert np.sum((mean - sent) ** 2) / size == pytest.approx(float(value), rel=1e-12)


@pytest.mark.parametrize("total", [1, 4])
def test_probabilities_of_atoms(total):
    """Water-filling of blocks is that of their entries one by one."""
    sizes = -np.sort(-np.random.default_rng(0).lognormal(sigma=2, size=(20, 4)), 1)
    counts = np.array([1, 3, 1, 2])
    found = searches.water_filling(sizes, np.tile(1.0 * counts, (20, 1)), np.full(20, float(total)))
    known = quick(jax.vmap(lambda x: adozoo.compression.inclusion_probabilities(x, total)))
    np.testing.assert_allclose(np.repeat(found, counts, 1), known(np.repeat(sizes, counts, 1)), rtol=1e-9)
