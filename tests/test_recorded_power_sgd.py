"""PowerSGD, and what its paper compares it with, as recorded from the authors' code: three workers, three tensors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references

import adozoo
from adozoo.averaging.power_sgd import Factors

RECORDED = references.load("power_sgd")["powersgd"]
INPUTS = RECORDED["inputs"]
N, STEPS = INPUTS["n"], INPUTS["T"]
GRADS = [jnp.asarray(np.array([[worker[k] for worker in step] for step in INPUTS["grads"]])) for k in range(3)]
START = adozoo.replicate([jnp.asarray(np.array(tensor)) for tensor in INPUTS["params0"]], N)
Q = tuple(jnp.asarray(np.array(q)) for q in INPUTS["q0"])
P = tuple(jnp.asarray(np.array(p)) for p in INPUTS["p0"])
SHORTENED = 1e-6
"""The authors divide columns by their norms plus 1e-8; ours are of length one."""
SHARE = 0.5 * INPUTS["topk_compression"]


def inner():
    """Weight decay and momentum after the compression, and x <- x - lr (d + m)."""
    decay, momentum = INPUTS["weight_decay"], INPUTS["momentum"]
    return optax.chain(optax.add_decayed_weights(decay), adozoo.post_momentum(momentum), adozoo.descent(INPUTS["lr"]))


def run(tx, state=None, params=START):
    """(params, state) after each step."""
    state, path = tx.init(params) if state is None else state, []
    update = jax.jit(tx.update)
    for step in range(STEPS):
        grads = [leaf[step][: len(params[0])] for leaf in GRADS]
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        path.append((params, state))
    return path


def begin(tx, factors):
    """The initial state, with the recorded factors."""
    own, *rest = tx.init(START)
    stacked = tuple(
        Factors(*(() if isinstance(f, tuple) else jnp.broadcast_to(f, (N, *f.shape)) for f in one)) for one in factors
    )
    return (own._replace(factors=stacked), *rest)


def assert_recorded(path, outputs, apart=2e-9):
    for step, expected in outputs.items():
        for leaf, tensor in zip(path[int(step) - 1][0], expected, strict=True):
            np.testing.assert_allclose(leaf, np.broadcast_to(np.array(tensor), leaf.shape), rtol=0, atol=apart)


@pytest.mark.parametrize("feedback", [True, False])
def test_power_sgd(feedback):
    tx = adozoo.power_sgd(inner(), rank=INPUTS["rank"], feedback=feedback)
    path = run(tx, begin(tx, [Factors((), q) for q in Q]))
    recorded = RECORDED["outputs"]["powersgd_rankK_warm" if feedback else "powersgd_rankK_warm_noEF"]
    assert_recorded(path, recorded["params"], SHORTENED)
    sent = adozoo.channel.traffic(lambda mean: adozoo.power_sgd(inner(), mean=mean), adozoo.exact_mean(N), START)
    assert sent.bits / sent.messages * 2 == recorded["bits"][0]  # two messages of half the bits, on the same links
    if feedback:  # theirs subtract the average of what was decompressed: the same on average
        errors = path[-1][1][0].errors
        for error, place in zip(errors, (0, 2), strict=True):
            theirs = np.array([worker[place] for worker in recorded["memory_last"]]).reshape(error.shape)
            np.testing.assert_allclose(error.mean(0), theirs.mean(0), rtol=0, atol=SHORTENED)
            assert np.abs(error - theirs).max() > 0.1


COMPRESSED = {
    "exact": (adozoo.compression.identity(), False),
    "svd_rankK_local": (adozoo.compression.svd(INPUTS["rank"]), True),
    "sign_and_norm_EF": (adozoo.compression.scaled_sign(), True),
    "topk_per_tensor_EF": (adozoo.compression.top_k(SHARE), True),
    "global_topk_EF": (adozoo.compression.global_top_k(SHARE), True),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_other_compressors(name):
    compressor, feedback = COMPRESSED[name]
    tx = adozoo.compressed_sgd(inner(), compressor, feedback=feedback)
    path, recorded = run(tx), RECORDED["outputs"][name]
    assert_recorded(path, recorded["params"])
    if feedback:
        for error, place in zip(path[-1][1][0].error, range(3), strict=True):
            theirs = np.array([worker[place] for worker in recorded["memory_last"]])
            np.testing.assert_allclose(error, theirs, rtol=0, atol=2e-9)


def matrices_first(tensors):
    """The tensors with the matrices transposed; the vector stays."""
    return [x if x.ndim < 3 else jax.vmap(lambda m: m.reshape(m.shape[0], -1).T)(x) for x in tensors]


def test_half_steps_are_those_of_the_package_from_the_other_side():
    """One factor a step, beginning with M Q where the package begins with M'P."""
    tx = adozoo.power_sgd(inner(), rank=INPUTS["rank"], variant="package", minimum_compression=0)
    params = matrices_first(START)
    own, *rest = tx.init(params)
    factors = tuple(Factors(jnp.broadcast_to(q, (N, *q.shape)), one.q) for q, one in zip(Q, own.factors, strict=True))
    state, update, recorded = (
        (own._replace(factors=factors), *rest),
        jax.jit(tx.update),
        RECORDED["outputs"]["half_rankK_EF"],
    )
    for step in range(STEPS):
        updates, state = update(matrices_first([leaf[step] for leaf in GRADS]), state, params)
        params = optax.apply_updates(params, updates)
        if str(step + 1) in recorded["params"]:
            expected = [jnp.asarray(np.array(tensor))[None] for tensor in recorded["params"][str(step + 1)]]
            for leaf, tensor in zip(params, matrices_first(expected), strict=True):
                np.testing.assert_allclose(leaf, jnp.broadcast_to(tensor, leaf.shape), rtol=0, atol=SHORTENED)


def test_signum():
    """Momentum before the vote, as an average that begins with the first gradient, and weight decay after it."""
    vote = adozoo.signum(1.0, adozoo.exact_mean(N), INPUTS["momentum"])
    tx = optax.chain(
        vote, optax.scale(-1.0), optax.add_decayed_weights(INPUTS["weight_decay"]), adozoo.descent(INPUTS["lr"])
    )
    (votes, *rest), *others = tx.init(START)
    state = ((votes._replace(momentum=[leaf[0] for leaf in GRADS]), *rest), *others)
    assert_recorded(run(tx, state), RECORDED["outputs"]["signum_majority_vote"]["params"])


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_package(iterations):
    """Matrices only, aggregated gradients, residuals that each round leaves."""
    recorded = RECORDED["package_BasicPowerSGD"][f"iters{iterations}"]
    tx = adozoo.power_sgd(
        optax.identity(), INPUTS["rank"], variant="package", iterations=iterations, minimum_compression=0
    )
    params = [START[0], START[2]]
    own, *rest = tx.init(params)
    factors = tuple(Factors(*(jnp.broadcast_to(f, (N, *f.shape)) for f in pair)) for pair in zip(P, Q, strict=True))
    state, update = (own._replace(factors=factors), *rest), jax.jit(tx.update)
    for step in range(STEPS):
        out, state = update([GRADS[0][step], GRADS[2][step]], state, params)
        if str(step + 1) in recorded["aggregated"]:
            for leaf, tensor in zip(out, recorded["aggregated"][str(step + 1)], strict=True):
                np.testing.assert_allclose(leaf[0], np.array(tensor).reshape(leaf[0].shape), rtol=0, atol=2e-9)
    for error, place in zip(state[0].errors, range(2), strict=True):
        theirs = np.array([worker[place] for worker in recorded["error_last"]]).reshape(error.shape)
        np.testing.assert_allclose(error, theirs, rtol=0, atol=2e-9)
