"""Event-driven methods against recorded trajectories, event by event, most of them from the authors' own code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references

import adozoo

RECORDED = references.load("asynchronous_and_accelerated")
TOLERANCE = {"rtol": 0, "atol": 1e-9}


def cut(rows, count, form="pairs", **options):
    """The first `count` events, everyone left at its own last one; all cuts have one padded length."""
    events = adozoo.events.recorded(rows[:count], synchronised=False, form=form, **options)
    return adozoo.events.pad(events, len(rows) + 2, len(rows))


def least_squares(block):
    data, labels = jnp.asarray(block["data"]), jnp.asarray(block["labels"])

    def gradient(x, step=None, key=None):
        return 2 / data.shape[1] * jnp.einsum("nmd,nm->nd", data, jnp.einsum("nmd,nd->nm", data, x) - labels)

    return gradient


def logistic(block):
    data, labels = jnp.asarray(block["data"]), jnp.asarray(block["labels"])

    def gradient(x, step=None, key=None):
        scores = labels * jnp.einsum("nmd,nd->nm", data, x)
        slopes = -labels * jax.nn.sigmoid(-scores) / data.shape[1]
        return jnp.einsum("nmd,nm->nd", data, slopes) + block["mu"] * x

    return gradient


DADAO = {"dadao_ring4_linear": least_squares, "dadao_timevarying5_logistic": logistic}
NAMES = {"x": "X", "x_tilde": "X_tilde", "y": "Y", "y_tilde": "Y_tilde", "z": "Z", "z_tilde": "Z_tilde"}


@functools.cache
def dadao_run(name):
    """(events) -> the six vectors at their end."""
    block = RECORDED["dadao"][name]
    gradient, start = DADAO[name](block), jnp.asarray(block["x0"])

    @jax.jit
    def run(events):
        parameters = adozoo.dadao_parameters(block["mu"], block["L"], block["chi1_star"])
        tx = adozoo.dadao(events, block["mu"], block["L"], parameters)
        x, state, _ = adozoo.simulate_events(tx, gradient, start, events)
        return {"x": x} | {key: getattr(state, key) for key in list(NAMES)[1:]}

    return block, run


@pytest.mark.parametrize("form", ["pairs", "levels"])
@pytest.mark.parametrize("name", DADAO)
def test_dadao(name, form):
    block, run = dadao_run(name)
    for snapshot in block["lazy_snapshots_after_event"]:
        found = run(cut(block["events"], snapshot["k"] + 1, form, n=block["n"]))
        for key in NAMES:
            np.testing.assert_allclose(found[key], snapshot[NAMES[key]], **TOLERANCE)
    found = run(adozoo.events.recorded(block["events"], block["n"]))
    for key in NAMES:
        np.testing.assert_allclose(found[key], block["eager_final"][NAMES[key]], **TOLERANCE)
    np.testing.assert_allclose(found["z"].sum(0), 0, atol=1e-12)


ACID = [name for name, block in RECORDED["acid"].items() if "variants" in block]
VARIANTS = {"sde": "sde", "msg_before_mix": "unflowed", "authors_code": "authors"}


@functools.cache
def acid_run(name, variant):
    """(events) -> x and x~ at their end."""
    block = RECORDED["acid"][name]
    noise = jnp.asarray([draw or [0.0, 0.0] for draw in block["grad_noise"]])
    H, b = jnp.asarray(block["H"]), jnp.asarray(block["b"])
    decay = optax.add_decayed_weights(block["weight_decay"])
    inner = optax.chain(decay, optax.sgd(block["lr"], momentum=block["sgd_momentum"]))
    parameters = adozoo.asynchronous.acid.AcidParameters(block["eta"], block["alpha"], block["alpha_tilde"])
    start = jnp.tile(jnp.asarray(block["x0_all_nodes"]), (block["n"], 1))

    @jax.jit
    def run(events):
        def gradient(x, number, key):
            return jnp.einsum("nij,nj->ni", H, x) - b + noise[events.row(events.order, number)]

        tx = adozoo.acid(inner, events, parameters=parameters, variant=VARIANTS[variant])
        x, state, _ = adozoo.simulate_events(tx, gradient, start, events)
        return {"x": x, "x_tilde": state.tilde}

    return block, run


@pytest.mark.parametrize("form", ["pairs", "levels"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ACID)
def test_acid(name, variant, form):
    block, run = acid_run(name, variant)
    for snapshot in block["variants"][variant]["lazy_snapshots"]:
        found = run(cut(block["events"], snapshot["k"] + 1, form, n=block["n"]))
        for key in found:
            np.testing.assert_allclose(found[key], snapshot[key], **TOLERANCE)
    found = run(adozoo.events.recorded(block["events"], block["n"], form=form))
    for key in found:
        np.testing.assert_allclose(found[key], block["variants"][variant]["eager_final"][key], **TOLERANCE)


@pytest.mark.parametrize("name", ACID)
def test_acid_parameters(name):
    block = RECORDED["acid"][name]
    chi_1, chi_2 = adozoo.resistance.chi(np.asarray(block["Laplacian"]))
    assert (chi_1, chi_2) == pytest.approx((block["chi1"], block["chi2"]), abs=1e-9)
    found = adozoo.acid_parameters(chi_1, chi_2, accelerated=block["eta"] > 0)
    assert found == pytest.approx((block["eta"], block["alpha"], block["alpha_tilde"]), abs=1e-9)


def test_ad_psgd():
    """Each recorded event is an exchange, then a gradient of one node at what it was so many events of all ago."""
    block, start = RECORDED["base"]["stochastic_ring4"], 4
    case, n = block["ad_psgd"], block["n"]
    seen, rows, lags, samples = [np.zeros(n, int)], [], [], []
    for number, (i, j, sample, delay) in enumerate(case["events_i_j_sample_delay"]):
        rows += [(1, number + 1.0, i, j), (0, number + 1.0, i, -1)]
        after = seen[-1] + (np.arange(n) == j) + 2 * (np.arange(n) == i)
        lags += [0, after[i] - 1 - seen[max(0, number - delay)][i]]
        samples += [0, sample]
        seen.append(after)
    A, y, samples = jnp.asarray(block["A"]), jnp.asarray(block["y"]), jnp.asarray(samples)
    start = jnp.tile(jnp.asarray(block["x0"]), (n, 1))
    assert max(lags) > 2

    @jax.jit
    def run(events):
        def gradient(x, number, key):
            drawn = samples[events.row(events.order, number)]
            a, target = A[jnp.arange(n), drawn], y[jnp.arange(n), drawn]
            return (jnp.sum(a * x, axis=1) - target)[:, None] * a

        _, state, _ = adozoo.simulate_events(adozoo.ad_psgd(optax.sgd(case["gamma"]), events), gradient, start, events)
        return state.current

    for form in ("pairs", "levels"):
        for count, expected in case["traj"].items():
            events = adozoo.events.recorded(rows[: 2 * int(count)], n, lags=lags[: 2 * int(count)], form=form)
            np.testing.assert_allclose(run(events), expected, **TOLERANCE)


def conjugate(block):
    """grad f_i^* of least squares without the factor 1/2."""
    data, labels = np.asarray(block["data"]), np.asarray(block["labels"])
    curvature = 2 / data.shape[1] * np.einsum("nmd,nme->nde", data, data)
    linear = 2 / data.shape[1] * np.einsum("nmd,nm->nd", data, labels)
    inverse = jnp.asarray(np.linalg.inv(curvature))
    return lambda y, step=None, key=None: jnp.einsum("nde,ne->nd", inverse, y + linear)


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_continuized_dual(scale):
    """Recorded with a total rate of 1; its constants do not depend on the unit of time."""
    block = RECORDED["dadao"]["continuized_ring5"]
    n, gradient = block["n"], conjugate(block)
    rows = [(1, time / scale, i, j) for time, i, j in block["events"]]
    laplacian = (
        scale
        / len(block["edges"])
        * sum(np.outer(np.eye(n)[i] - np.eye(n)[j], np.eye(n)[i] - np.eye(n)[j]) for i, j in block["edges"])
    )
    zero = jnp.zeros((n, block["d"]))
    for snapshot in block["traj"]:
        events = cut(rows, snapshot["k"] + 1, n=n, graph=laplacian, paired=True)
        tx = adozoo.continuized_dual(events, block["mu"], block["L"])
        y, state, _ = adozoo.simulate_events(tx, gradient, zero, events)
        np.testing.assert_allclose(y, snapshot["Y"], **TOLERANCE)
        np.testing.assert_allclose(state.z, snapshot["Z"], **TOLERANCE)


def test_continuized_nesterov():
    common = RECORDED["base"]["deterministic_ring5"]
    block = common["continuized_nesterov_node0"]
    times = np.cumsum(block["waits"])
    H, b = jnp.asarray(common["H"])[0], jnp.asarray(common["b"])[0]
    for count, expected in block["traj"].items():
        rows = [(0, time, 0, -1) for time in times[: int(count)]]
        events = adozoo.events.recorded(rows, n=1)
        tx = adozoo.continuized_nesterov(events, smoothness=common["L"], strong_convexity=common["mu"])
        start = jnp.asarray(common["x0"])[:1]
        x, state, _ = adozoo.simulate_events(tx, lambda x, *_: x @ H - b[None], start, events)
        np.testing.assert_allclose(x[0], expected, **TOLERANCE)
    np.testing.assert_allclose(state.z[0], block["z_final"], **TOLERANCE)


@pytest.mark.parametrize("name", RECORDED["acid"]["acid_constants"])
def test_acid_constants(name):
    """The authors' exponential graph counts the neighbour at half the way round twice."""
    kind, n = name.split("_")
    n = int(n)
    if kind == "cycle":
        graph = adozoo.graphs.ring(n)
    else:
        graph = adozoo.graphs.path(n).__class__()
        graph.add_nodes_from(range(n))
        for k in range(int(np.log2(n))):
            graph.add_edges_from((i, (i + 2**k) % n, {"weight": 2.0 if 2**k == n // 2 else 1.0}) for i in range(n))
    chi_1, chi_2 = adozoo.resistance.chi(adozoo.resistance.normalize_rates(graph, "node_rate"))
    eta, _, alpha_tilde = adozoo.acid_parameters(chi_1, chi_2)
    found = {"chi1": chi_1, "chi2": chi_2, "eta": eta, "alpha_tilde": alpha_tilde}
    assert found == pytest.approx(RECORDED["acid"]["acid_constants"][name], abs=1e-9)


EXACT = {
    "extra": adozoo.extra,
    "nids": adozoo.nids,
    "diging": adozoo.gradient_tracking,
    "gt_atc_augdgm": functools.partial(adozoo.gradient_tracking, variant="aug_dgm"),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_methods_that_asynchronous_ones_are_compared_with(name):
    """The recorded NIDS begins without communication, AugDGM with a tracker that was not mixed: ours one step later."""
    common = RECORDED["base"]["deterministic_ring5"]
    case, H, b = common[name], jnp.asarray(common["H"]), jnp.asarray(common["b"])
    mix = adozoo.mixing(np.asarray(common["W_metropolis"]))

    def gradient(x, step=None, key=None):
        return jnp.einsum("nij,nj->ni", H, x) - b

    start = jnp.asarray(common["x0"])
    local = start - case["step"] * gradient(start)
    begin = {"nids": local, "gt_atc_augdgm": mix(local)}.get(name, start)
    late = int(begin is not start)
    path = adozoo.simulate(EXACT[name](case["step"], mix), gradient, begin, 25, metrics=lambda x: x)[2]
    for count, expected in case["traj"].items():
        found = begin if int(count) == late else path[int(count) - 1 - late]
        np.testing.assert_allclose(found, expected, **TOLERANCE)
