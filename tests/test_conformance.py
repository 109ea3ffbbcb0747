"""Every registered method keeps the contract, and does what its entry says. Nothing here knows a method by its name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from twins import TWINS

import adozoo

ENTRIES = adozoo.zoo.entries()
NODES, DIM, STEPS, MATCHED = 5, 3, 1000, 12
RNG = np.random.default_rng(7)
PROBLEM = adozoo.problems.random_quadratic(NODES, DIM, strong_convexity=0.3, seed=3)
START = RNG.normal(size=(NODES, DIM))


def symmetric(*edges):
    """Irregular weights on the given edges, no smaller than 1/2 on the diagonal."""
    W = np.eye(NODES)
    for number, (i, j) in enumerate(edges):
        share = 0.12 + 0.02 * number
        W -= share * np.outer(np.eye(NODES)[i] - np.eye(NODES)[j], np.eye(NODES)[i] - np.eye(NODES)[j])
    return W


def directed(own, *permutations):
    """Doubly stochastic, not symmetric, and no circulant."""
    share = (1 - own) / len(permutations)
    return own * np.eye(NODES) + sum(share * np.eye(NODES)[list(p)] for p in permutations)


def column(*edges):
    """Sender j splits what it has evenly among itself and those it reaches; edges are (sender, receiver)."""
    reach = np.eye(NODES)
    for j, i in edges:
        reach[i, j] = 1
    return reach / reach.sum(0)


RING = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]
# One period of each kind. In the last three no single step connects the nodes.
MATRICES = {
    "symmetric": [symmetric(*RING, (0, 2))],
    "directed": [directed(0.4, [1, 2, 3, 4, 0], [2, 0, 1, 4, 3])],
    "column": [column(*RING, (0, 2), (0, 3), (3, 1))],
    "varying": [symmetric((0, 1), (2, 3)), symmetric((1, 2), (3, 4), (0, 4))],
    "varying_directed": [directed(0.5, [1, 0, 3, 4, 2]), directed(0.3, [3, 1, 0, 4, 2])],
    "varying_column": [column((0, 1), (0, 2), (3, 4)), column((1, 0), (2, 3), (4, 0)), column((0, 4), (2, 0))],
    "mean": [np.full((NODES, NODES), 1 / NODES)],
}


def build_mixing(kind, matrices):
    demanded = "column" if "column" in kind else "doubly"
    parts = [adozoo.mixing(W, stochastic=demanded, require_connected=len(matrices) == 1) for W in matrices]
    return parts[0] if len(parts) == 1 else adozoo.cycle(parts)


MIXINGS = {kind: build_mixing(kind, matrices) for kind, matrices in MATRICES.items()}
PAIRS = [(name, kind) for name, entry in ENTRIES.items() for kind, mix in MIXINGS.items() if entry.admits(mix)]
EACH = pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
OVER_GRAPHS = pytest.mark.parametrize(
    "entry", [pytest.param(e, id=name) for name, e in ENTRIES.items() if e.admits(MIXINGS["symmetric"])]
)


def widest(entry):
    """The least restricted kind of fixed mixing that a method admits."""
    return next(kind for kind in ("column", "directed", "symmetric", "mean") if entry.admits(MIXINGS[kind]))


def step_size(t):
    """Varies while twins are compared, is constant while methods converge. For JAX and NumPy counts alike."""
    return 0.2 + 0.05 * np.array([1, -1, 0.5, 0.2] * (MATCHED // 4) + [0])[np.minimum(t, MATCHED)]


def jax_step_size(count):
    table = jnp.asarray([step_size(t) for t in range(MATCHED + 1)])
    return table[jnp.minimum(count, MATCHED)]


def beginning(entry):
    return np.repeat(START[:1], NODES, 0) if entry.equal_start else START


@functools.cache
def trajectory(name, kind):
    """[STEPS, n, d] over the mixing called `kind`."""
    tx = ENTRIES[name].build(jax_step_size, MIXINGS[kind])
    run = jax.jit(lambda x: adozoo.simulate(tx, PROBLEM.gradient, x, STEPS, metrics=lambda x: x)[2])
    return np.asarray(run(jnp.asarray(beginning(ENTRIES[name]))))


def steps(tx, params, count, gradient=jnp.zeros_like):
    """`count` steps of a transformation, op by op; the params after each."""
    state, path = tx.init(params), []
    for _ in range(count):
        updates, state = tx.update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        path.append((params, state))
    return path


def test_twins_cover_the_registry():
    assert sorted(TWINS) == sorted(ENTRIES)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_equals_its_twin(name, kind):
    matrices, A, b = MATRICES[kind], np.asarray(PROBLEM.matrices), np.asarray(PROBLEM.centers)
    path = TWINS[name](
        dict(enumerate(beginning(ENTRIES[name]))),
        lambda i, x: A[i] @ (x - b[i]),
        lambda t: matrices[t % len(matrices)].tolist(),
        step_size,
        MATCHED,
        **ENTRIES[name].hyperparameters,
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


@EACH
def test_protocol(entry):
    """The types that optax knows; one state after another of the same kind; every leaf of params treated alike."""
    tx = entry.build(0.1, MIXINGS[widest(entry)])
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    flat = jnp.asarray(RNG.normal(size=(NODES, 10)))
    tree = tree_of(flat)

    def bend(x):
        return jax.tree.map(lambda leaf: leaf + jnp.sin(3 * leaf), x)

    alone = steps(tx, flat, 3, bend)
    together = steps(tx, tree, 3, bend)
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


@EACH
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16])
def test_shapes_and_dtypes_are_kept(entry, dtype):
    """Under a scan, whatever the dtypes of traced hyper-parameters; traced only, never run."""
    params = {"w": jax.ShapeDtypeStruct((NODES, 2, 3), dtype), "b": jax.ShapeDtypeStruct((NODES,), dtype)}
    fractions = {key: value for key, value in entry.hyperparameters.items() if type(value) is float}

    def run(params, learning_rate, hyperparameters):
        tx = entry.build(learning_rate, MIXINGS[widest(entry)], **hyperparameters)
        x, state, _ = adozoo.simulate(tx, lambda x, step, key: x, params, 2)
        return x, (tx.init(params), state)

    for scalar in (None, jnp.float64, jnp.float32, jnp.bfloat16):
        if scalar is None:
            after, states = jax.eval_shape(lambda p: run(p, 0.1, fractions), params)
        else:
            one = jax.ShapeDtypeStruct((), scalar)
            after, states = jax.eval_shape(run, params, one, dict.fromkeys(fractions, one))
        assert shapes(after) == shapes(params)
        assert shapes(states[0]) == shapes(states[1])


@EACH
def test_half_precision_runs(entry):
    tx = entry.build(0.1, MIXINGS["mean"])
    x, _ = steps(tx, jnp.ones((NODES, DIM), jnp.bfloat16), 3, lambda x: x)[-1]
    assert x.dtype == jnp.bfloat16
    assert bool((jnp.abs(x) < 1).all())


@EACH
def test_a_second_call_does_not_recompile(entry):
    tx = entry.build(0.1, MIXINGS[widest(entry)])
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

    def run(learning_rate, W, start, A, b, noise):
        mix = (
            MIXINGS[kind]
            if kind == "mean"
            else adozoo.mixing(W, method="dense", stochastic="column" if kind == "column" else "doubly")
        )
        tx = entry.build(learning_rate, mix)

        def gradient(x, step, key):
            return jnp.einsum("nij,nj->ni", A, x - b) + noise[step]

        return adozoo.simulate(tx, gradient, start, len(noise), metrics=lambda x: x)[2]

    return run, jax.jit(run)


def arguments(entry):
    noise = 0.1 * np.random.default_rng(1).normal(size=(6, NODES, DIM))
    W = MATRICES[widest(entry)][0]
    return [jnp.asarray(a) for a in (0.2, W, START, PROBLEM.matrices, PROBLEM.centers, noise)]


@EACH
def test_vmap_equals_a_loop(entry):
    """Over step sizes, matrices, starts and noise (seeds) at once."""
    run, jitted = runner(entry.name)
    learning_rate, W, start, A, b, noise = arguments(entry)
    dial = jnp.array([1.0, 0.5, 0.1])
    matrices = jnp.stack([share * W + (1 - share) * jnp.eye(NODES) for share in dial])
    starts, noises = jnp.stack([start, -start, 2 * start]), jnp.stack([noise, noise[::-1], -noise])
    together = jax.jit(jax.vmap(run, (0, 0, 0, None, None, 0)))(learning_rate * dial, matrices, starts, A, b, noises)
    for lane in range(3):
        alone = jitted(learning_rate * dial[lane], matrices[lane], starts[lane], A, b, noises[lane])
        np.testing.assert_allclose(together[lane], alone, rtol=0, atol=1e-12)


@EACH
def test_nodes_have_no_number(entry):
    """Relabelling the nodes of everything relabels the result."""
    _, run = runner(entry.name)
    learning_rate, W, start, A, b, noise = arguments(entry)
    order = np.array([3, 0, 4, 1, 2])
    relabelled = run(learning_rate, W[order][:, order], start[order], A[order], b[order], noise[:, order])
    plain = run(learning_rate, W, start, A, b, noise)
    np.testing.assert_allclose(relabelled, plain[:, order], rtol=0, atol=1e-12)


@EACH
def test_linear_means_affine(entry):
    """update(2 u - v) = 2 update(u) - update(v) in params, gradients and state, at any count, iff declared."""
    kind = widest(entry)
    tx = entry.build(0.1, MIXINGS[kind])
    template = (jnp.asarray(START), tx.init(jnp.asarray(START)), jnp.asarray(START))
    leaves, structure = jax.tree.flatten(template)

    def update(values):
        x, state, g = jax.tree.unflatten(structure, values)
        return jax.tree.leaves(tx.update(g, state, x))

    def affine(count):
        def point():
            return [
                jnp.full_like(leaf, count)
                if jnp.issubdtype(leaf.dtype, jnp.integer)
                else jnp.asarray(1 + RNG.random(leaf.shape))
                for leaf in leaves
            ]

        u, v = point(), point()
        between = update([2 * a - b for a, b in zip(u, v, strict=True)])
        expected = [2 * a - b for a, b in zip(update(u), update(v), strict=True)]
        return all(bool(jnp.allclose(a, b, rtol=0, atol=1e-10)) for a, b in zip(between, expected, strict=True))

    assert affine(0) is affine(5) is entry.linear


def weighted_mean(params, state):
    """The mean over nodes, by push-sum weights where the state has them."""
    weight = optax.tree.get(state, "weight", jnp.ones(NODES))
    return jnp.mean(weight[:, None] * params, axis=0)


@pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if ENTRIES[pair[0]].preserves_mean])
def test_communication_preserves_the_mean(name, kind):
    tx = ENTRIES[name].build(0.1, MIXINGS[kind])
    for params, state in steps(tx, jnp.asarray(START), 4):
        np.testing.assert_allclose(weighted_mean(params, state), START.mean(0), rtol=0, atol=1e-13)


def repeated(fault, entry):
    return steps(entry.build(0.1, fault), jnp.asarray(START), 5)


@OVER_GRAPHS
def test_failures_on_both_sides_preserve_the_mean(entry):
    ring, key = MIXINGS["symmetric"], jax.random.key(2)
    up = RNG.random((4, NODES)) < 0.6
    for fault in (adozoo.channel.link_failures(ring, 0.5, key), adozoo.channel.node_failures(ring, up)):
        path = repeated(fault, entry)
        for params, state in path:
            np.testing.assert_allclose(weighted_mean(params, state), START.mean(0), rtol=0, atol=1e-13)
        assert not np.allclose(path[-1][0], repeated(ring, entry)[-1][0])


@pytest.mark.parametrize("name", [name for name, kind in PAIRS if kind == "column"])
def test_returned_messages_preserve_the_sum_of_push_sum(name):
    lossy = adozoo.channel.drops(MIXINGS["column"], 0.4, jax.random.key(5))
    for params, state in repeated(lossy, ENTRIES[name]):
        np.testing.assert_allclose(weighted_mean(params, state), START.mean(0), rtol=0, atol=1e-13)


@OVER_GRAPHS
@pytest.mark.parametrize("lost", ["keep", "renormalize"])
def test_nodes_that_agree_stay_in_agreement_under_drops(entry, lost):
    lossy = adozoo.channel.drops(MIXINGS["symmetric"], 0.5, jax.random.key(3), lost)
    common = jnp.broadcast_to(jnp.arange(1.0, DIM + 1), (NODES, DIM))
    for params, _ in steps(entry.build(0.1, lossy), common, 4):
        np.testing.assert_allclose(params, common, rtol=0, atol=1e-13)


@OVER_GRAPHS
def test_no_delay_is_no_fault_and_delays_stay_finite(entry):
    mix = MIXINGS[widest(entry)]
    start, gradient = jnp.asarray(START), PROBLEM.exact_gradient

    def build(mix):
        return entry.build(0.1, mix)

    on_time = steps(adozoo.channel.delayed(build, mix, 0), start, 4, gradient)
    plain = steps(build(mix), start, 4, gradient)
    np.testing.assert_allclose(on_time[-1][0], plain[-1][0], rtol=0, atol=1e-13)
    late = steps(adozoo.channel.delayed(build, mix, 2), start, 6, gradient)
    assert bool(jnp.isfinite(late[-1][0]).all())
    assert not np.allclose(late[3][0], plain[3][0], atol=1e-6)


@EACH
def test_declared_traffic_is_what_is_sent(entry):
    mix = MIXINGS[widest(entry)]
    params = {"w": jnp.zeros((NODES, 2, 3), jnp.float32), "b": jnp.zeros((NODES, 4), jnp.float32)}
    traffic = adozoo.channel.traffic(lambda mix: entry.build(0.1, mix), mix, params)
    links = adozoo.channel.mean_links(mix)
    assert traffic.bits == pytest.approx(links * 32 * (10 * entry.vectors + entry.scalars))
    assert traffic.bits_per_node == pytest.approx(traffic.bits / NODES)


class Disturbed(adozoo.Mixing):
    """Adds to what the k-th message of a step brings, and writes down what is sent."""

    is_mean = varying = remembers = True

    def __init__(self, base, added=()):
        self.base, self.added, self.sent = base, added, []
        self.n, self.stochastic, self.symmetric = base.n, base.stochastic, base.symmetric

    def __call__(self, tree, step=0, message=0):
        number = len(self.sent)
        self.sent.append(tree)
        heard = self.base(tree, step, message)
        if number < len(self.added):
            heard = jax.tree.map(lambda x: x + self.added[number], heard)
        return heard


@EACH
def test_declared_rounds_are_the_longest_chain_of_messages(entry):
    start, base = jnp.asarray(START), MIXINGS[widest(entry)]

    def sent(added):
        mix = Disturbed(base, added)
        tx = entry.build(0.1, mix)
        tx.update(start, tx.init(start), start)
        return [sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(message)) for message in mix.sent]

    count = len(sent(()))
    depth = [1] * count
    for k in range(count):
        tangents = [jnp.array(float(k == other)) for other in range(count)]
        _, changes = jax.jvp(sent, ([jnp.zeros(())] * count,), (tangents,))
        for later in range(k + 1, count):
            if changes[later] != 0:
                depth[later] = max(depth[later], depth[k] + 1)
    assert max(depth) == entry.rounds
