"""Polynomials of a mixing: Chebyshev's, FastMix and multi-consensus, against closed forms and recorded values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused

import adozoo
import theory
from adozoo import _gossip_matrix, polynomials

RING5 = references.load("asynchronous_and_accelerated")["base"]["deterministic_ring5"]
GRAPHS = {
    "rolls": adozoo.graphs.ring(9),
    "table": adozoo.graphs.path(8),
    "dense": adozoo.graphs.erdos_renyi(7, 0.6, 1),
    "mean": adozoo.graphs.complete(4),
}
MAKERS = {"chebyshev": adozoo.chebyshev, "fast_mix": adozoo.fast_mix, "multi_consensus": adozoo.multi_consensus}
LARGE = adozoo.mixing(adozoo.graphs.ring(polynomials.PRODUCT_LIMIT + 1))


def spectrum(matrix):
    return np.linalg.eigvalsh(np.asarray(matrix))


def closed_form(kind, W, rounds):
    """The polynomial on W's eigenvalues, by cosines and powers of roots rather than by a recursion over vectors."""
    values, vectors = np.linalg.eigh(W)
    gaps = np.sort(1 - values)
    low, high = gaps[1], gaps[-1]
    if kind == "multi_consensus":
        images = values**rounds
    elif kind == "chebyshev":
        x = (high + low - 2 * (1 - values)) / max(high - low, 1e-300)
        top = (high + low) / max(high - low, 1e-300)
        large = np.abs(x) > 1
        inside = np.cos(rounds * np.arccos(np.clip(x, -1, 1))) / np.cosh(rounds * np.arccosh(top))
        images = np.where(large, 1.0, inside)  # only consensus lies outside, at x = top
        near = large & (np.abs(x) < 1 + 1e-9)
        images[near] = np.sign(x[near]) ** rounds / np.cosh(rounds * np.arccosh(top))
    else:
        modulus = np.abs(values)[:-1].max()
        root = np.sqrt(1 - modulus**2)
        e = (1 - root) / (1 + root)
        step = [np.linalg.matrix_power([[(1 + e) * v, -e], [1, 0]], rounds) @ [1, 1] for v in values]
        images = np.array(step)[:, 0]
    return (vectors * images) @ vectors.T


@pytest.mark.parametrize("graph", ["rolls", "table", "dense"])
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_is_the_polynomial_in_closed_form(kind, graph, rounds):
    base = adozoo.mixing(GRAPHS[graph])
    mix = MAKERS[kind](base, rounds)
    expected = closed_form(kind, np.asarray(base.matrix), rounds)
    x = np.random.default_rng(0).normal(size=(base.n, 3))
    np.testing.assert_allclose(mix(x), expected @ x, atol=1e-13)
    np.testing.assert_allclose(jax.jit(mix)(x, 3), expected @ x, atol=1e-13)
    np.testing.assert_allclose(mix.matrix, expected, atol=1e-13)
    np.testing.assert_allclose(mix.sparse_matrix().toarray(), expected, atol=1e-13)
    adozoo.weights.check_mixing_matrix(mix.matrix)
    assert (mix.symmetric, mix.varying, mix.period) == (True, False, 1)
    assert mix.links() == rounds * base.links()


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("rounds", [2, 9])
def test_loops_products_and_watched_rounds_agree(kind, rounds):
    """Large graphs loop over rounds, small ones are one product, and rounds that may be lost are one message each."""
    x = np.random.default_rng(0).normal(size=(LARGE.n, 2))
    looped = MAKERS[kind](LARGE, rounds)
    assert looped.product is None
    expected = closed_form(kind, np.asarray(LARGE.matrix), rounds) @ x
    np.testing.assert_allclose(looped(x), expected, atol=1e-12)
    looping = f"length={rounds - polynomials.UNROLLED}" in str(jax.make_jaxpr(looped)(x))
    assert looping == (rounds > polynomials.UNROLLED)
    np.testing.assert_allclose(looped.sparse_matrix() @ x, expected, atol=1e-12)
    small = adozoo.mixing(adozoo.graphs.ring(6))
    unharmed = adozoo.channel.drops(small, 0.0, jax.random.key(0))
    y = x[:6]
    np.testing.assert_allclose(MAKERS[kind](unharmed, rounds)(y), MAKERS[kind](small, rounds)(y), atol=1e-13)


def test_recorded_values():
    x = np.array(RING5["x0"])
    laplacian = adozoo.mixing(np.eye(5) - np.array(RING5["Laplacian_unit"]))
    case = RING5["cheby_gossip"]
    mix = adozoo.chebyshev(laplacian, case["K"])
    np.testing.assert_allclose(x - np.asarray(mix(x)), case["output_x_minus_avgpoly"], rtol=0, atol=1e-12)
    default = adozoo.chebyshev(laplacian)
    assert default.rounds == RING5["opapc"]["T"]
    np.testing.assert_allclose(np.eye(5) - default.matrix, RING5["opapc"]["cheb_matrix"], rtol=0, atol=1e-12)
    case = RING5["fastmix"]
    mix = adozoo.fast_mix(adozoo.mixing(np.array(RING5["W_metropolis"])), case["K"])
    np.testing.assert_allclose(mix(x), case["output"], rtol=0, atol=1e-12)
    assert mix.factors[0] - 1 == pytest.approx(case["eta_w"], abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(3, 12), seed=st.integers(0, 10**6), scale=st.floats(0.1, 1.0))
def test_chebyshev_promises(n, seed, scale):
    """The default number of rounds brings P's eigenvalues into [11/15, 19/15]; the scale of I - W does not matter."""
    base = adozoo.mixing(adozoo.graphs.erdos_renyi(n, 0.5, seed))
    mix = adozoo.chebyshev(base)
    ends = _gossip_matrix.extremes("test", base)
    width = polynomials.chebyshev_width(*ends, mix.rounds)
    values = spectrum(mix.matrix)[:-1]
    assert np.abs(values).max() <= width + 1e-12
    assert width <= 4 / 15
    assert values.max() == pytest.approx(width if mix.rounds > 1 or n > 2 else 0, abs=1e-9) or base.is_mean
    again = adozoo.chebyshev(adozoo.relaxed(base, scale), mix.rounds)
    np.testing.assert_allclose(again.matrix, mix.matrix, atol=1e-11)
    plain = np.abs(spectrum(base.matrix)[:-1]).max() ** mix.rounds
    assert np.abs(spectrum(adozoo.chebyshev(base, 3).matrix)[:-1]).max() <= plain ** (3 / mix.rounds) + 1e-12


def test_rounds_are_counted_exactly_where_the_root_is_an_integer():
    """chi = 4 on a star of four: two rounds, in spite of rounding; floor would not do for 3 < chi < 4."""
    assert adozoo.chebyshev(adozoo.mixing(adozoo.weights.max_degree(adozoo.graphs.star(4)))).rounds == 2
    assert polynomials.chebyshev_width(1 / 3.9, 1.0, 1) > 4 / 15 > polynomials.chebyshev_width(1 / 3.9, 1.0, 2)


def test_fast_mix_keeps_its_published_rate():
    """(1 - sqrt(1 - sigma))^K up to a constant; more rounds always help."""
    base = adozoo.mixing(adozoo.weights.lazy(adozoo.weights.metropolis(adozoo.graphs.ring(20))))
    sigma = np.abs(spectrum(base.matrix))[:-1].max()
    left = [np.abs(spectrum(adozoo.fast_mix(base, K).matrix)[:-1]).max() for K in (5, 10, 20, 40, 80)]
    bound = [np.sqrt(14) * (1 - (1 - 1 / np.sqrt(2)) * np.sqrt(1 - sigma)) ** K for K in (5, 10, 20, 40, 80)]
    assert (np.array(left) <= bound).all()
    assert (np.diff(left) < 0).all()
    assert left[-1] < 1e-3 * sigma**80


def test_exact_averages_stay_what_they_are():
    for kind, make in MAKERS.items():
        mix = make(adozoo.exact_mean(5), 3)
        assert mix.is_mean, kind
        np.testing.assert_allclose(mix.sparse_matrix().toarray(), np.full((5, 5), 0.2), atol=1e-15)
        np.testing.assert_allclose(mix(jnp.arange(5.0)), 2 * np.ones(5), atol=1e-15)
    assert adozoo.chebyshev(adozoo.exact_mean(5)).rounds == 1


def schedule():
    """Three graphs, none of which is connected."""
    edges = [[(0, 1), (2, 3)], [(1, 2), (4, 5)], [(3, 4), (5, 0)]]
    matrices = []
    for pairs in edges:
        W = np.eye(6)
        for i, j in pairs:
            W[[i, j], [i, j]] = W[[i, j], [j, i]] = 0.5
        matrices.append(W)
    return matrices, adozoo.cycle([adozoo.mixing(W, require_connected=False) for W in matrices])


@pytest.mark.parametrize(("rounds", "period"), [(1, 3), (2, 3), (3, 1), (6, 1), (7, 3)])
def test_multi_consensus_goes_through_a_schedule(rounds, period):
    matrices, base = schedule()
    mix = adozoo.multi_consensus(base, rounds)
    assert (mix.period, mix.varying, mix.symmetric) == (period, True, rounds == 1)
    x = np.random.default_rng(0).normal(size=(6, 2))
    for step in range(4):
        expected = x
        for q in range(step * rounds, (step + 1) * rounds):
            expected = matrices[q % 3] @ expected
        np.testing.assert_allclose(mix(x, step), expected, atol=1e-14)
        np.testing.assert_allclose(jax.jit(mix)(x, step), expected, atol=1e-14)
        np.testing.assert_allclose(np.asarray(mix.at(step).matrix) @ x, expected, atol=1e-14)
    assert adozoo.channel.mean_links(mix) == 4 * rounds


def test_chebyshev_of_a_schedule_is_that_of_each_step():
    parts = [adozoo.mixing(adozoo.graphs.ring(6)), adozoo.mixing(adozoo.graphs.star(6))]
    base = adozoo.cycle(parts)
    ends = _gossip_matrix.extremes("test", base)
    mix, x = adozoo.chebyshev(base, 3), np.random.default_rng(0).normal(size=(6, 2))
    for step in range(3):
        alone = adozoo.chebyshev(parts[step % 2], 3, ends)
        np.testing.assert_allclose(mix(x, step), alone(x), atol=1e-13)


def test_every_round_meets_its_own_fault():
    """Against the recursion by hand, with messages numbered through; the second message of a step differs."""
    base = adozoo.mixing(adozoo.graphs.ring(6))
    lossy = adozoo.channel.link_failures(base, 0.4, jax.random.key(3))
    x = np.random.default_rng(0).normal(size=(6, 2))
    mix = adozoo.multi_consensus(adozoo.channel.node_failures(base, jnp.eye(4, 6) == 0), 2)
    expected = mix.base(mix.base(x, 6), 7)  # step 3 goes through steps 6 and 7
    np.testing.assert_allclose(mix(x, 3), expected, atol=1e-14)
    mix = adozoo.fast_mix(lossy, 3)
    results = []
    for message in (0, 1):
        before = now = x
        for k in range(3):
            drawn = np.asarray(lossy(now, 5, 3 * message + k))
            before, now = now, mix.factors[k] * drawn + (1 - mix.factors[k]) * before
        np.testing.assert_allclose(mix(x, 5, message), now, atol=1e-13)
        results.append(now)
    assert np.abs(results[0] - results[1]).max() > 1e-3
    np.testing.assert_allclose(results[0].mean(0), x.mean(0), atol=1e-14)


def test_whoever_counts_or_delays_sees_every_round():
    base, x = adozoo.mixing(adozoo.graphs.ring(6)), jnp.ones((6, 3))
    for rounds in (2, 7):
        one = adozoo.channel.traffic(lambda mix: adozoo.extra(0.1, mix), base, x)
        many = adozoo.channel.traffic(lambda mix, K=rounds: adozoo.extra(0.1, adozoo.chebyshev(mix, K)), base, x)
        assert many.bits == rounds * one.bits
    by_itself = adozoo.channel.traffic(lambda mix: adozoo.extra(0.1, adozoo.chebyshev(mix)), base, x)
    assert by_itself.bits == 2 * one.bits  # chi = 4 / 3 / (1 / 3): the rounds are those of the graph, not of a counter

    def fast(mix):
        return adozoo.dsgd(0.1, adozoo.chebyshev(mix, 2))

    start = jnp.arange(18.0).reshape(6, 3)
    late = adozoo.channel.delayed(fast, base, 0)
    runs = [adozoo.simulate(tx, lambda x, step, key: x, start, 4)[0] for tx in (late, fast(base))]
    np.testing.assert_allclose(*runs, atol=1e-13)
    assert len(adozoo.channel.delayed(fast, base, 1).init(start).sent) == 2


def test_methods_theory_and_placement_take_them():
    base = adozoo.mixing(adozoo.graphs.ring(8))
    problem = adozoo.problems.random_quadratic(8, 2, strong_convexity=0.3, seed=1)
    rates = [
        theory.exact_rate(lambda mix: adozoo.extra(0.5, mix), problem, adozoo.chebyshev(base, 2)),
        theory.exact_rate(lambda mix: adozoo.extra(0.5, adozoo.chebyshev(mix, 2)), problem, base),
        theory.exact_rate(lambda mix: adozoo.extra(0.5, mix), problem, adozoo.mixing(adozoo.chebyshev(base, 2).matrix)),
    ]
    np.testing.assert_allclose(rates, rates[0], atol=1e-12)
    assert rates[0] < theory.exact_rate(lambda mix: adozoo.extra(0.5, mix), problem, base)
    mesh = adozoo.placement.node_mesh(jax.devices()[:1])
    x = adozoo.placement.shard(jnp.asarray(np.random.default_rng(0).normal(size=(8, 2))), mesh)
    for kind, make in MAKERS.items():
        below, around = make(adozoo.placement.place(base, mesh), 3), adozoo.placement.place(make(base, 3), mesh)
        np.testing.assert_allclose(below(x), make(base, 3)(x), atol=1e-13, err_msg=kind)
        np.testing.assert_allclose(around(x), make(base, 3)(x), atol=1e-13, err_msg=kind)


def test_eigenvalues_may_be_given_where_the_matrix_is_traced():
    base = adozoo.mixing(adozoo.graphs.ring(6))
    ends = _gossip_matrix.extremes("test", base)
    x = np.random.default_rng(0).normal(size=(6, 2))
    traced = jax.jit(lambda W: adozoo.chebyshev(adozoo.mixing(W), 5, ends)(x))(base.matrix)
    np.testing.assert_allclose(traced, adozoo.chebyshev(base, 5)(x), atol=1e-13)
    table = jax.jit(lambda W: adozoo.chebyshev(adozoo.mixing(W), 2, ends).table()[1])(base.matrix)
    np.testing.assert_allclose(table.sum(axis=1), np.ones(6), atol=1e-13)


@pytest.mark.parametrize("kind", MAKERS)
def test_half_precision_keeps_its_dtype_and_mean(kind):
    mix = MAKERS[kind](LARGE, 5)
    x = jnp.linspace(0, 1, LARGE.n).astype(jnp.bfloat16)
    assert mix(x).dtype == jnp.bfloat16
    np.testing.assert_allclose(mix(x).astype(jnp.float32), mix(x.astype(jnp.float32)), atol=2e-2)


def test_gossip_matrix_of_large_graphs_and_below_faults():
    """Lanczos where n is large, against the closed form of a ring; faults and relaxation do not hide the design."""
    n = 1201
    low, high = _gossip_matrix.extremes("test", adozoo.mixing(adozoo.graphs.ring(n)))
    assert low == pytest.approx(2 / 3 * (1 - np.cos(2 * np.pi / n)), rel=1e-6)
    assert high == pytest.approx(2 / 3 * (1 - np.cos(np.pi * (n - 1) / n)), rel=1e-9)
    base = adozoo.mixing(adozoo.graphs.path(5))
    lossy = adozoo.channel.noisy(adozoo.channel.drops(base, 0.3, jax.random.key(0)), 0.1, jax.random.key(1))
    ends = _gossip_matrix.extremes("test", base)
    assert _gossip_matrix.extremes("test", lossy) == ends
    assert _gossip_matrix.extremes("test", adozoo.relaxed(lossy, 0.5)) == pytest.approx((ends[0] / 2, ends[1] / 2))
    assert _gossip_matrix.contraction("test", base) == pytest.approx(max(1 - ends[0], ends[1] - 1))


def test_misuse():
    ring, directed = adozoo.mixing(adozoo.graphs.ring(6)), adozoo.mixing(adozoo.graphs.directed_ring(6))
    for make in MAKERS.values():
        for rounds in (0, -1, True, 2.0):
            assert_refused(
                lambda make=make, rounds=rounds: make.__wrapped__(ring, rounds), "rounds", repr(rounds), "positive"
            )
    for make in (adozoo.chebyshev, adozoo.fast_mix):
        assert_refused(lambda make=make: make(directed, 2), make.__name__, "symmetric")
        assert_refused(lambda make=make: make(schedule()[1], 2), "connected at every step", "multi_consensus")
        drawn = adozoo.random_matching(adozoo.graphs.ring(6), jax.random.key(0))
        assert_refused(lambda make=make, drawn=drawn: make(drawn, 2), "never repeats", "adozoo.cycle")
        assert_refused(
            lambda make=make: jax.jit(lambda W: make(adozoo.mixing(W), 2)(W))(ring.matrix), "traced", "outside"
        )
    assert_refused(lambda: adozoo.chebyshev(ring, 2, (0.0, 1.0)), "eigenvalues", "(0.0, 1.0)")
    flip = adozoo.mixing(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert_refused(lambda: adozoo.fast_mix(flip, 2), "(-1, 1)", "adozoo.relaxed")
    assert_refused(lambda: adozoo.chebyshev(ring, 2).exchange(), "polynomial")
    compressed = adozoo.choco_sgd(0.1, adozoo.chebyshev(ring, 2), adozoo.compression.top_k(0.5), 0.5)
    assert_refused(
        lambda: compressed.update(jnp.ones((6, 4)), compressed.init(jnp.ones((6, 4))), jnp.ones((6, 4))), "compressed"
    )
