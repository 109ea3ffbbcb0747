"""Runs: what is recorded when, what is drawn from which key, and what may be done to a run as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adozoo

N, DIM = 4, 2
PROBLEM = adozoo.problems.random_quadratic(N, DIM, noise=0.3, seed=2)
MIX = adozoo.mixing(adozoo.graphs.ring(N))
START = jnp.asarray(np.random.default_rng(0).normal(size=(N, DIM)))
KEY = jax.random.key(3)


def method(learning_rate=0.1):
    return adozoo.dsgd(learning_rate, MIX, momentum=0.5)


def by_hand(tx, gradient, steps, key=None, sample=None):
    """A Python loop; the params after each step, from the start on."""

    @jax.jit
    def step(x, state, t):
        drawn = None if key is None else jax.random.fold_in(key, t)
        drawn = sample(drawn) if sample is not None else drawn
        updates, state = tx.update(gradient(x, t, drawn), state, x)
        return optax.apply_updates(x, updates), state

    x, state, path = START, tx.init(START), [START]
    for t in range(steps):
        x, state = step(x, state, t)
        path.append(x)
    return np.asarray(path), state


@pytest.mark.parametrize(("steps", "every"), [(7, 1), (7, 3), (6, 3), (4, 5), (0, 1)])
def test_what_is_recorded(steps, every):
    path, state = by_hand(method(), PROBLEM.gradient, steps, KEY)
    x, last, trace = adozoo.simulate(
        method(), PROBLEM.gradient, START, steps, KEY, {"x": lambda x: x, "mean": adozoo.node_mean}, every
    )
    recorded = np.arange(every, steps + 1, every)
    np.testing.assert_allclose(x, path[-1], rtol=0, atol=1e-14)
    np.testing.assert_array_equal(trace["step"], recorded)
    np.testing.assert_allclose(trace["x"], path[recorded], rtol=0, atol=1e-14)
    np.testing.assert_allclose(trace["mean"], path[recorded].mean(1), rtol=0, atol=1e-14)
    assert jax.tree.structure(last) == jax.tree.structure(state)
    for left, right in zip(jax.tree.leaves(last), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-14)
        assert left.dtype == right.dtype


def test_metrics_take_what_they_ask_for():
    metrics = {
        "one": lambda x: x.sum(),
        "two": lambda x, state: optax.tree.get(state, "momentum").sum(),
        "three": lambda x, state, count: count,
        "default": lambda x, scale=2.0: scale * x.sum(),
        "star": lambda *arguments: len(arguments),
    }
    _, state, trace = adozoo.simulate(method(), PROBLEM.gradient, START, 3, metrics=metrics)
    np.testing.assert_array_equal(trace["three"], [1, 2, 3])
    np.testing.assert_array_equal(trace["star"], [3, 3, 3])
    np.testing.assert_allclose(trace["default"], 2 * trace["one"], rtol=1e-14)
    np.testing.assert_allclose(trace["two"][-1], optax.tree.get(state, "momentum").sum(), rtol=1e-12)
    assert set(trace) == {"step", *metrics}
    x, _, single = adozoo.simulate(method(), PROBLEM.gradient, START, 3, metrics=lambda x: {"sum": x.sum()})
    np.testing.assert_allclose(single["sum"][-1], x.sum(), rtol=1e-14)
    assert list(adozoo.simulate(method(), PROBLEM.gradient, START, 2)[2]) == ["step"]


def test_without_a_key_gradients_are_exact():
    path, _ = by_hand(method(), lambda x, step, key: PROBLEM.exact_gradient(x), 4)
    x, _, _ = adozoo.simulate(method(), PROBLEM.gradient, START, 4)
    np.testing.assert_allclose(x, path[-1], rtol=0, atol=1e-14)


@pytest.mark.parametrize(("steps", "every", "block"), [(11, 2, 4), (11, 5, 3), (3, 1, 100), (2, 3, 1)])
def test_drawing_in_blocks_is_drawing_step_by_step(steps, every, block):
    """Also where neither the block nor the record divides the run."""
    isotropic = adozoo.problems.isotropic_quadratic(N, DIM, batch=2)

    def gradient(x, step, drawn):
        return isotropic.gradient_of(x, drawn)

    path, _ = by_hand(method(), gradient, steps, KEY, isotropic.sample)
    x, _, trace = adozoo.simulate(
        method(), gradient, START, steps, KEY, {"x": lambda x: x}, every, isotropic.sample, block
    )
    np.testing.assert_allclose(x, path[-1], rtol=0, atol=1e-13)
    np.testing.assert_allclose(trace["x"], path[every::every], rtol=0, atol=1e-13)
    alone, _, _ = adozoo.simulate(method(), isotropic.gradient, START, steps, KEY)
    np.testing.assert_allclose(alone, x, rtol=0, atol=1e-13)


def run(learning_rate, key):
    return adozoo.simulate(method(learning_rate), PROBLEM.gradient, START, 6, key, {"x": lambda x: x}, 2)


def test_vmap_over_step_sizes_and_seeds():
    rates, keys = jnp.array([0.05, 0.1]), jax.random.split(KEY, 3)
    grid = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(rates, keys)[2]["x"]
    assert grid.shape == (2, 3, 3, N, DIM)
    for i, rate in enumerate(rates):
        for j, key in enumerate(keys):
            np.testing.assert_allclose(grid[i, j], run(rate, key)[2]["x"], rtol=0, atol=1e-13)


def test_gradients_go_through_a_run():
    def final_loss(learning_rate):
        x, _, _ = adozoo.simulate(method(learning_rate), PROBLEM.gradient, START, 5)
        return PROBLEM.loss(adozoo.node_mean(x))

    slope = jax.grad(final_loss)(0.1)
    difference = (final_loss(0.1 + 1e-5) - final_loss(0.1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-7)


def test_nothing_is_compiled_twice():
    traces = 0

    def gradient(x, step, key):
        nonlocal traces
        traces += 1
        return PROBLEM.gradient(x, step, key)

    once = jax.jit(lambda rate, x, key: adozoo.simulate(method(rate), gradient, x, 50, key, every=7)[0])
    for seed in range(3):
        once(0.1 + 0.01 * seed, START, jax.random.key(seed))
    assert once._cache_size() == 1
    assert traces <= 4  # the records, and the steps left over; not one a step


def test_the_answer_is_what_is_measured():
    """Where a method answers at another point than its params, metrics see the answer."""

    class Shifted(tuple):
        __slots__ = ()

    jax.tree_util.register_pytree_node(Shifted, lambda s: (tuple(s), None), lambda _, children: Shifted(children))
    adozoo.nodes.register_eval_params(Shifted)(lambda state, params: params + state[0])
    tx = optax.GradientTransformation(
        lambda params: Shifted((jnp.ones(()),)), lambda grads, state, params=None: (jnp.zeros_like(grads), state)
    )
    x, _, trace = adozoo.simulate(tx, PROBLEM.gradient, START, 2, metrics={"x": lambda x: x})
    np.testing.assert_array_equal(x, START)
    np.testing.assert_allclose(trace["x"][-1], np.asarray(START) + 1)


def test_plain_optax_runs():
    x, _, _ = adozoo.simulate(optax.adam(0.1), PROBLEM.gradient, START, 3)
    assert x.shape == START.shape


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": -1}, "steps must be a Python integer of at least 0.*-1"),
        ({"steps": True}, "steps must be.*True"),
        ({"every": 0}, "every must be a Python integer of at least 1.*0"),
        ({"block": 0}, "block must be"),
        ({"sample": jax.random.normal}, r"sample draws random numbers and needs key.*jax.random.key\(seed\)"),
    ],
)
def test_misuse(arguments, words):
    with pytest.raises(ValueError, match=words):
        adozoo.simulate(method(), PROBLEM.gradient, START, **{"steps": 2, **arguments})
