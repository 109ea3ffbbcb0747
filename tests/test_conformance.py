"""Every registered method keeps the contract, and does what its entry says. Nothing here knows a method by its name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import (
    DIM,
    EACH_FACTORY,
    ENTRIES,
    MATRICES,
    MIXINGS,
    NODES,
    OVER_GRAPHS,
    PAIRS,
    PROBLEM,
    START,
    beginning,
    built,
    local_oracle,
    oracle,
    relabelled,
    resting,
    steps,
    widest,
)
from twins import TWINS as PLAIN
from twins_accelerated import TWINS as ACCELERATED
from twins_compressed import TWINS as COMPRESSED
from twins_dual import TWINS as DUAL
from twins_events import TWINS as EVENTS

import adozoo

STEPS, MATCHED = 1000, 12
TWINS = PLAIN | COMPRESSED | ACCELERATED | DUAL | EVENTS


def step_size(t):
    """Varies while twins are compared, is constant while methods converge. For JAX and NumPy counts alike."""
    return 0.2 + 0.05 * np.array([1, -1, 0.5, 0.2] * (MATCHED // 4) + [0])[np.minimum(t, MATCHED)]


def jax_step_size(count):
    table = jnp.asarray([step_size(t) for t in range(MATCHED + 1)])
    return table[jnp.minimum(count, MATCHED)]


@functools.cache
def trajectory(name, kind):
    """The evaluated params [patience STEPS, n, d] over the mixing called `kind`."""
    entry = ENTRIES[name]
    tx, count = built(entry, jax_step_size, MIXINGS[kind]), entry.patience * STEPS
    run = jax.jit(lambda x: adozoo.simulate(tx, oracle(entry), x, count, metrics=lambda x: x)[2])
    return np.asarray(run(jnp.asarray(beginning(entry))))


def test_twins_cover_the_registry():
    assert sorted(TWINS) == sorted(ENTRIES)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_equals_its_twin(name, kind):
    matrices, entry = MATRICES[kind], ENTRIES[name]
    path = TWINS[name](
        dict(enumerate(beginning(entry))),
        local_oracle(entry),
        lambda t: matrices[t % len(matrices)].tolist(),
        step_size,
        MATCHED,
        **entry.hyperparameters,
    )
    twin = np.array([[x[i] for i in range(NODES)] for x in path])
    np.testing.assert_allclose(trajectory(name, kind)[:MATCHED], twin, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_exact_methods_alone_reach_the_optimum(name, kind):
    entry = ENTRIES[name]
    distance = np.abs(trajectory(name, kind)[-1] - np.asarray(PROBLEM.optimum)).max()
    if entry.exact:
        assert distance < 1e-9
    elif kind != "mean":  # with exact averaging some of the others are exact as well
        assert 1e-3 < distance < 10


def containers(tree):
    yield tree
    if isinstance(tree, tuple):
        for part in tree:
            yield from containers(part)


def tree_of(flat):
    """Leaves of several ranks; one row a node."""
    return {
        "a": flat[:, :3],
        "b": (flat[:, 3:7].reshape(NODES, 2, 2), flat[:, 7]),
        "c": flat[:, 8:].reshape(NODES, 1, 2),
    }


def rows_of(tree):
    return jnp.concatenate([leaf.reshape(NODES, -1) for leaf in jax.tree.leaves(tree)], axis=1)


@EACH_FACTORY
def test_protocol(entry):
    """The types that optax knows; one state after another of the same kind; every leaf of params treated alike."""
    tx = entry.build(0.1, MIXINGS[widest(entry)])
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    flat = jnp.asarray(np.random.default_rng(0).normal(size=(NODES, 10)))
    tree = tree_of(flat)

    def bend(x):
        return jax.tree.map(lambda leaf: leaf + jnp.sin(3 * leaf), x)

    alone = steps(tx, flat, 3, bend)
    together = steps(tx, tree, 3, bend)
    if not entry.leafwise:
        np.testing.assert_allclose(rows_of(together[-1][0]), alone[-1][0], rtol=0, atol=1e-13)
    assert jax.tree.structure(together[-1][0]) == jax.tree.structure(tree)
    assert jax.tree.structure(together[-1][1]) == jax.tree.structure(tx.init(tree))
    for part in containers(alone[-1][1]):
        assert isinstance(part, tuple | jax.Array), f"{type(part).__name__} in the state"
        assert type(part) in (tuple, optax.EmptyState) or hasattr(part, "_fields") or isinstance(part, jax.Array)

    harmless = optax.clip_by_global_norm(1e6)
    chained = optax.chain(adozoo.per_node(harmless), tx, optax.identity())
    np.testing.assert_array_equal(steps(chained, flat, 3, bend)[-1][0], alone[-1][0])


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@EACH_FACTORY
@pytest.mark.parametrize("dtype", [jnp.float64, pytest.param(jnp.float32, marks=pytest.mark.slow), jnp.bfloat16])
def test_shapes_and_dtypes_are_kept(entry, dtype):
    """Under a scan, whatever the dtypes of traced hyper-parameters; traced only, never run."""
    params = {"w": jax.ShapeDtypeStruct((NODES, 2, 3), dtype), "b": jax.ShapeDtypeStruct((NODES,), dtype)}
    fractions = {key: value for key, value in entry.hyperparameters.items() if type(value) is float}

    def run(params, learning_rate, hyperparameters):
        tx = entry.build(learning_rate, MIXINGS[widest(entry)], **hyperparameters)
        state = tx.init(params)
        updates, after = tx.update(params, state, params)
        adozoo.simulate(tx, lambda x, step, key: x, params, 2)  # whose scan is strict about what it carries
        return updates, (state, after)

    for scalar in (None, jnp.float64, jnp.float32, jnp.bfloat16):
        if scalar is None:
            updates, states = jax.eval_shape(lambda p: run(p, 0.1, fractions), params)
        else:
            one = jax.ShapeDtypeStruct((), scalar)
            updates, states = jax.eval_shape(run, params, one, dict.fromkeys(fractions, one))
        assert shapes(updates) == shapes(params)
        assert shapes(states[0]) == shapes(states[1])


@EACH_FACTORY
def test_half_precision_runs(entry):
    tx = built(entry, 0.1, MIXINGS["mean" if entry.admits(MIXINGS["mean"]) else widest(entry)])
    signs = jnp.array([1, -1, 1, -1, 0]) if entry.oracle == "dual" else jnp.ones(NODES)
    start = jnp.repeat(signs[:, None], DIM, 1).astype(jnp.bfloat16)
    x, _ = steps(tx, start, 3, lambda x: x)[-1]
    assert x.dtype == jnp.bfloat16
    assert bool((jnp.abs(x) < 3).all())
    assert bool((x != start).any())


@EACH_FACTORY
def test_a_second_call_does_not_recompile(entry):
    tx = built(entry, 0.1, MIXINGS[widest(entry)])
    params = jnp.asarray(START)
    update = jax.jit(tx.update)
    state = tx.init(params)
    for _ in range(3):
        _, state = update(params, state, params)
    assert update._cache_size() == 1


@functools.cache
def runner(name):
    """(learning rate, W, start, A, b, noise) -> the params after each of a few steps; all of them may be traced."""
    entry = ENTRIES[name]
    kind = widest(entry)

    def run(learning_rate, W, start, A, b, noise, mix=None):
        if mix is None and (kind == "mean" or entry.fixed_graph):
            mix = MIXINGS[kind]
        elif mix is None:
            mix = adozoo.mixing(W, method="dense", stochastic="column" if kind == "column" else "doubly")
        tx = built(entry, learning_rate, mix)

        def gradient(x, step, key):
            return jnp.einsum("nij,nj->ni", A, x - b) + noise[step]

        return adozoo.simulate(tx, gradient, start, len(noise), metrics=lambda x: x)[2]

    return run, jax.jit(run)


def arguments(entry):
    noise = 0.1 * np.random.default_rng(1).normal(size=(6, NODES, DIM))
    W = np.eye(NODES) if entry.fixed_graph else MATRICES[widest(entry)][0]
    return [jnp.asarray(a) for a in (0.2, W, START, PROBLEM.matrices, PROBLEM.centers, noise)]


@EACH_FACTORY
def test_vmap_equals_a_loop(entry):
    """Over step sizes, matrices (unless the graph must be known), starts and noise (seeds) at once."""
    run, jitted = runner(entry.name)
    learning_rate, W, start, A, b, noise = arguments(entry)
    dial = jnp.array([1.0, 0.5, 0.1])
    matrices = jnp.stack([share * W + (1 - share) * jnp.eye(NODES) for share in dial])
    starts, noises = jnp.stack([start, -start, 2 * start]), jnp.stack([noise, noise[::-1], -noise])
    together = jax.jit(jax.vmap(run, (0, 0, 0, None, None, 0)))(learning_rate * dial, matrices, starts, A, b, noises)
    for lane in range(3):
        alone = jitted(learning_rate * dial[lane], matrices[lane], starts[lane], A, b, noises[lane])
        np.testing.assert_allclose(together[lane], alone, rtol=0, atol=1e-12)


@EACH_FACTORY
def test_nodes_have_no_number(entry):
    """Relabelling the nodes of everything relabels the result, but for what nodes or links draw for themselves."""
    run, jitted = runner(entry.name)
    learning_rate, W, start, A, b, noise = arguments(entry)
    order = np.array([3, 0, 4, 1, 2])
    plain = jitted(learning_rate, W, start, A, b, noise)
    others = learning_rate, W[order][:, order], start[order], A[order], b[order], noise[:, order]
    found = run(*others, relabelled(widest(entry), order)) if entry.fixed_graph else jitted(*others)
    if entry.random:
        assert not np.allclose(found, plain[:, order], rtol=0, atol=1e-6)
    else:
        np.testing.assert_allclose(found, plain[:, order], rtol=0, atol=1e-12)


def weighted_mean(params, state):
    """The mean over nodes, by push-sum weights where the state has them."""
    weight = optax.tree.get(state, "weight", jnp.ones(NODES))
    return jnp.mean(weight[:, None] * params, axis=0)


@pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if ENTRIES[pair[0]].preserves_mean])
def test_communication_preserves_the_mean(name, kind):
    entry = ENTRIES[name]
    for params, state in steps(built(entry, 0.1, MIXINGS[kind]), jnp.asarray(START), 4, resting(entry)):
        np.testing.assert_allclose(weighted_mean(params, state), START.mean(0), rtol=0, atol=1e-13)


def repeated(fault, entry):
    return steps(built(entry, 0.1, fault), jnp.asarray(START), 5, resting(entry))


@OVER_GRAPHS
def test_failures_on_both_sides_preserve_the_mean(entry):
    ring = MIXINGS["symmetric"]
    coins = np.random.default_rng(0).random((4, NODES, NODES)) < 0.6
    both_ways = adozoo.channel.recorded_drops(ring, coins & coins.transpose(0, 2, 1), "keep")
    for fault in (both_ways, adozoo.channel.node_failures(ring, coins[0])):
        path = repeated(fault, entry)
        for params, state in path if entry.preserves_mean else ():
            np.testing.assert_allclose(weighted_mean(params, state), START.mean(0), rtol=0, atol=1e-13)
        assert entry.equal_start or not np.allclose(path[-1][0], repeated(ring, entry)[-1][0])


@pytest.mark.parametrize("name", [name for name, kind in PAIRS if kind == "column"])
def test_returned_messages_preserve_the_sum_of_push_sum(name):
    lossy = adozoo.channel.drops(MIXINGS["column"], 0.4, jax.random.key(5))
    for params, state in repeated(lossy, ENTRIES[name]):
        np.testing.assert_allclose(weighted_mean(params, state), START.mean(0), rtol=0, atol=1e-13)


@OVER_GRAPHS
@pytest.mark.parametrize("lost", ["keep", "renormalize"])
def test_nodes_that_agree_stay_in_agreement_under_drops(entry, lost):
    kept = np.random.default_rng(1).random((3, NODES, NODES)) < 0.5
    lossy = adozoo.channel.recorded_drops(MIXINGS["symmetric"], kept, lost)
    # Numbers whose sums do not tie: the larger of two equal ones would be a matter of rounding.
    common = jnp.broadcast_to(jnp.sqrt(jnp.array([2.0, 3.0, 5.0, 7.0])), (NODES, DIM))
    path, undisturbed = (steps(built(entry, 0.1, m), common, 4, resting(entry)) for m in (lossy, MIXINGS["symmetric"]))
    for (params, _), (expected, _) in zip(path, undisturbed, strict=True):
        np.testing.assert_allclose(params, common if entry.preserves_mean else expected, rtol=0, atol=1e-13)


@OVER_GRAPHS
def test_no_delay_is_no_fault_and_delays_stay_finite(entry):
    mix = MIXINGS[widest(entry)]
    start, gradient = jnp.asarray(START), oracle(entry)

    def build(mix):
        return built(entry, 0.1, mix)

    on_time = steps(adozoo.channel.delayed(build, mix, 0), start, 4, gradient)
    plain = steps(build(mix), start, 4, gradient)
    np.testing.assert_allclose(on_time[-1][0], plain[-1][0], rtol=0, atol=1e-13)
    late = steps(adozoo.channel.delayed(build, mix, 2), start, 6, gradient)
    assert bool(jnp.isfinite(late[-1][0]).all())
    assert not np.allclose(late[3][0], plain[3][0], atol=1e-6)
