"""Recorded trajectories of other people's code, and of independent NumPy, reproduced by the named methods."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references

import adozoo


def path(tx, gradient, start, steps):
    """[steps + 1, n, d]: the params from the start on."""
    start = jnp.asarray(start)
    _, _, trace = adozoo.simulate(tx, gradient, start, steps, metrics=lambda x: x)
    return np.concatenate([start[None], trace])


def printed(values):
    """Half a unit of the tenth significant digit, and a little for its propagation."""
    return 2e-9 * max(1.0, np.abs(values).max())


# decent-bench: f_i(x) = x'A_i x / 2 + b_i'x, on a ring of five nodes.

DECENT_BENCH = {
    "DGD": functools.partial(adozoo.dsgd, variant="cta"),
    "ATC": functools.partial(adozoo.dsgd, variant="atc"),
    "EXTRA": adozoo.extra,
    "ED": adozoo.exact_diffusion,
    "ATC_Tracking": functools.partial(adozoo.gradient_tracking, variant="atc"),
    "NIDS": adozoo.nids,
    "AugDGM": functools.partial(adozoo.gradient_tracking, variant="aug_dgm"),
}


@pytest.mark.parametrize("name", DECENT_BENCH)
def test_decent_bench(name):
    recorded = references.load("peers_decent_bench")
    A, b, W = (jnp.asarray(recorded[key]) for key in ("A", "b", "W"))
    run = recorded["runs"][name]
    mix, step_size = adozoo.mixing(W), run["hyper"]["step_size"]

    def gradient(x, step=None, key=None):
        return jnp.einsum("nij,nj->ni", A, x) + b

    # The published NIDS begins with a step without communication, AugDGM with a tracker that was not mixed: both are
    # our methods one step later.
    start = jnp.asarray(recorded["x0"])
    local = start - step_size * gradient(start)
    begin = {"NIDS": local, "AugDGM": mix(local)}.get(name)
    iterates = path(DECENT_BENCH[name](step_size, mix), gradient, start if begin is None else begin, 12)
    late = 0 if begin is None else 1
    for iteration, expected in zip(run["x_at_iterations"], run["x"], strict=True):
        np.testing.assert_allclose(iterates[iteration - late], expected, rtol=0, atol=1e-9)


# Our own prototype of the theory: ten numbers a step, from x^0 = arange(10) / 10.


@pytest.mark.parametrize("name", references.PROTOTYPE)
def test_prototype(name):
    case = references.load("theory_checks")["case"]
    inputs, expected = case["inputs"], np.array(case["iterates_x0_arange_over_10"][name])
    problem = adozoo.problems.quadratic(inputs["A"], inputs["b"])
    tx = adozoo.zoo.entry(references.PROTOTYPE[name]).build(inputs["alpha"], adozoo.mixing(np.array(inputs["W"])))
    iterates = path(tx, problem.gradient, (np.arange(10) / 10).reshape(5, 2), len(expected))
    np.testing.assert_allclose(iterates[1:].reshape(-1, 10), expected, rtol=0, atol=1e-12)


# Vogels et al. 2022: D-SGD with momentum, weight decay, given noise and time-varying graphs.

TOPOLOGIES = {
    "ring": adozoo.graphs.ring,
    "star": adozoo.graphs.star,
    "fully_connected": adozoo.graphs.complete,
}
TRAJECTORIES = references.load("beyond_spectral_gap")["dsgd_trajectories"]["items"]


@pytest.mark.parametrize("item", TRAJECTORIES, ids=lambda item: f"{item['name']}-{item['variant']}")
def test_beyond_spectral_gap(item):
    n, name = item["n"], item["name"]
    mix = adozoo.one_peer_exponential(n) if name == "one_peer_exponential" else adozoo.mixing(TOPOLOGIES[name](n))
    a, b, start, noise = (jnp.asarray(item[key]) for key in ("a", "b", "x0", "noise"))

    def gradient(x, step, key):
        return a * (x - b) + noise[step] + item["weight_decay"] * x

    tx = adozoo.dsgd(item["lr"], mix, variant=item["variant"].lower(), momentum=item["momentum"])
    np.testing.assert_allclose(path(tx, gradient, start, len(noise))[1:], item["x"], rtol=0, atol=1e-9)


# RelaySGD's simulator and production code: the baselines. f_i(x) = ||A_i x - b_i||^2 / 2.

RELAY = references.load("relay_baselines")


def least_squares_gradient(inputs):
    A, b = jnp.asarray(inputs["A"]), jnp.asarray(inputs["b"])

    def gradient(x, step=None, key=None):
        return jnp.einsum("nij,ni->nj", A, jnp.einsum("nij,nj->ni", A, x) - b)

    return gradient


def common_start(inputs):
    return adozoo.replicate(jnp.asarray(inputs["x0"]), inputs["n"])


def check(iterates, outputs):
    for count, expected in outputs.items():
        np.testing.assert_allclose(iterates[int(count)], expected, rtol=0, atol=printed(expected))


def exponential(n, offsets):
    """In each step every node averages, for one offset after the other, with the node `offset` behind it."""
    steps = []
    for step in offsets:
        rounds = [(np.eye(n) + np.roll(np.eye(n), offset, axis=0)) / 2 for offset in step]
        steps.append(adozoo.mixing(functools.reduce(lambda done, W: W @ done, rounds), require_connected=False))
    return adozoo.cycle(steps)


SIMULATED = {
    "gossip": adozoo.dsgd,
    "gossip_overlap": functools.partial(adozoo.dsgd, variant="cta"),
    # Its momentum is an average, v <- mu v + (1 - mu) g: ours with the learning rate times 1 - mu.
    "gossip_ema_mom": lambda lr, mix: adozoo.dsgd(lr * (1 - 0.8), mix, momentum=0.8),
    "d2": adozoo.d2,
    "exact_diffusion": adozoo.exact_diffusion,
    "gradient_tracking": functools.partial(adozoo.gradient_tracking, variant="atc"),
}


@pytest.mark.parametrize("name", SIMULATED)
def test_relay_simulator(name):
    simulator = RELAY["relay_simulator"]
    inputs = simulator["inputs"]
    gradient, start = least_squares_gradient(inputs), common_start(inputs)

    @jax.jit
    def run(W):
        # A traced W is not checked: on the even ring D2 sits at the edge of stability, and was recorded all the same.
        _, _, trace = adozoo.simulate(
            SIMULATED[name](inputs["lr"], adozoo.mixing(W)), gradient, start, 30, metrics=lambda x: x
        )
        return jnp.concatenate([start[None], trace])

    tried = 0
    for topology, outputs in simulator["outputs"].items():
        if name in outputs:
            # Ten digits are recorded of W; thirds and the like are meant.
            W = np.round(np.array(simulator["metropolis_W"][topology]) * 60) / 60
            check(run(W), outputs[name])
            tried += 1
    assert tried >= (4 if name in ("gossip", "d2", "gradient_tracking") else 1)


def test_relay_simulator_d2_with_safe_weights():
    simulator = RELAY["relay_simulator"]
    inputs = simulator["inputs"]
    W = 0.36 * np.eye(6) + 0.32 * (np.roll(np.eye(6), 1, 0) + np.roll(np.eye(6), -1, 0))
    tx = adozoo.d2(inputs["lr"], adozoo.mixing(W))
    iterates = path(tx, least_squares_gradient(inputs), common_start(inputs), 30)
    check(iterates, simulator["outputs"]["ring"]["d2_w0.32"])


@pytest.mark.parametrize("rounds", [1, 2])
def test_relay_simulator_exponential(rounds):
    """Averaging rounds are counted through, one or two a step; three offsets for six nodes."""
    simulator = RELAY["relay_simulator"]
    inputs = simulator["inputs"]
    offsets = [[2 ** ((step * rounds + j) % 3) for j in range(rounds)] for step in range(3)]
    tx = adozoo.dsgd(inputs["lr"], exponential(6, offsets))
    name = f"time_varying_sgp_{rounds}round{'s' if rounds > 1 else ''}"
    iterates = path(tx, least_squares_gradient(inputs), common_start(inputs), 30)
    check(iterates, simulator["outputs"]["ring"][name])


def test_relay_simulator_all_reduce():
    simulator = RELAY["relay_simulator"]
    inputs = simulator["inputs"]
    tx = adozoo.all_reduce_sgd(inputs["lr"], adozoo.exact_mean(6))
    iterates = path(tx, least_squares_gradient(inputs), common_start(inputs), 30)
    check(iterates, simulator["outputs"]["ring"]["all_reduce"])


def with_nesterov(method):
    """The production code gives any method the direction g + mu m in place of g."""
    return lambda lr, mix, mu: optax.chain(adozoo.momentum(mu, nesterov=True), method(lr, mix))


atc_tracking = functools.partial(adozoo.gradient_tracking, variant="atc")
PRODUCTION = {
    "gossip/ring/nesterov": lambda lr, mix, mu: adozoo.dsgd(lr, mix, momentum=mu, nesterov=True),
    "d2/ring/mom0": lambda lr, mix, mu: adozoo.d2(lr, mix),
    "d2/ring/nesterov": with_nesterov(adozoo.d2),
    "gradient-tracking/ring/mom0": lambda lr, mix, mu: atc_tracking(lr, mix),
    "gradient-tracking/ring/nesterov": with_nesterov(atc_tracking),
    "quasi-global-momentum/ring": lambda lr, mix, mu: adozoo.quasi_global_momentum(lr, mix, mu),
    "all-reduce/nesterov": lambda lr, mix, mu: adozoo.all_reduce_sgd(lr, adozoo.exact_mean(4), mu, True),
}


@pytest.mark.parametrize("name", PRODUCTION)
def test_relay_production(name):
    production = RELAY["relay_production"]
    inputs = production["inputs"]
    ring = adozoo.weights.metropolis(adozoo.graphs.ring(4))

    @jax.jit
    def run(W):  # traced for D2's sake, as above
        tx = PRODUCTION[name](inputs["lr"], adozoo.mixing(W), inputs["momentum"])
        start = common_start(inputs)
        _, _, trace = adozoo.simulate(tx, least_squares_gradient(inputs), start, 25, metrics=lambda x: x)
        return jnp.concatenate([start[None], trace])

    check(run(ring), production["outputs"][name])


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_relay_production_exponential(rounds):
    """Meant as offset 2^((i rounds + j) mod L), written so that it is 2^((i (rounds + j)) mod L), and recorded so."""
    production = RELAY["relay_production"]
    inputs = production["inputs"]
    offsets = [[2 ** ((i * (rounds + j)) % 2) for j in range(rounds)] for i in range(2)]
    tx = adozoo.dsgd(inputs["lr"], exponential(4, offsets))
    iterates = path(tx, least_squares_gradient(inputs), common_start(inputs), 25)
    check(iterates, production["outputs"][f"push-sum/exponential/{rounds}"])


def test_relay_production_drops():
    """What arrived is divided by the weights that arrived."""
    production = RELAY["relay_production"]
    inputs = production["inputs"]
    kept = np.ones((25, 4, 4), bool)
    neighbors = [[3, 1], [0, 2], [1, 3], [2, 0]]
    for step, receivers in enumerate(inputs["keep"]["ring"]):
        for i, flags in enumerate(receivers):
            kept[step, i, neighbors[i]] = flags
    mix = adozoo.channel.recorded_drops(adozoo.mixing(adozoo.graphs.ring(4)), kept)
    assert not kept.all()
    iterates = path(adozoo.dsgd(inputs["lr"], mix), least_squares_gradient(inputs), common_start(inputs), 25)
    check(iterates, production["outputs"]["drop/gossip/ring"])


@pytest.mark.parametrize("name", ["sgp_pushsum", "sgp_overlap"])
def test_stochastic_gradient_push(name):
    """Node j sends to j + 1, and to j + 2 too whenever 3 divides t + j: weights that are not uniform."""
    case = RELAY["own_numpy"][name]
    n = case["n"]
    matrices = np.zeros((3, n, n))
    for t in range(3):
        for j in range(n):
            reached = [j, (j + 1) % n] + ([(j + 2) % n] if (t + j) % 3 == 0 else [])
            matrices[t, reached, j] = 1 / len(reached)
    mix = adozoo.cycle([adozoo.mixing(P, stochastic="column") for P in matrices])
    tx = adozoo.stochastic_gradient_push(case["lr"], mix, overlap=case["overlap"])
    start = common_start(case)
    _, _, trace = adozoo.simulate(
        tx,
        least_squares_gradient(case),
        start,
        20,
        metrics={"z": lambda x: x, "w": lambda x, state: state.weight},
    )
    for count, expected in case["out"].items():
        z, w = trace["z"][int(count) - 1], trace["w"][int(count) - 1]
        np.testing.assert_allclose(w, expected["w"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(z, expected["z"], rtol=0, atol=printed(expected["z"]))
        np.testing.assert_allclose(w[:, None] * z, expected["x"], rtol=0, atol=printed(expected["x"]))
