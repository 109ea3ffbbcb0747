"""RelaySGD as recorded from its authors' simulator and training code; f_i(x) = ||A_i x - b_i||^2 / 2."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references
from test_recorded import check, common_start, least_squares_gradient, path

import adozoo

RECORDED = references.load("relay_sgd")


TREES = {"chain": adozoo.graphs.path, "binary_tree": adozoo.graphs.heap_binary_tree, "star": adozoo.graphs.star}


def averaged_momentum(lr, mu):
    """v <- mu v + (1 - mu) g."""
    return optax.chain(adozoo.momentum(mu), adozoo.descent(lr * (1 - mu)))


SIMULATED = {
    "relaysum_model": lambda lr, mu, tree: adozoo.relay_sgd(adozoo.descent(lr), tree),
    "relaysum_model_overlap": lambda lr, mu, tree: adozoo.relay_sgd(adozoo.descent(lr), tree, overlap=True),
    "relaysum_model_overlap_mom": lambda lr, mu, tree: adozoo.relay_sgd(averaged_momentum(lr, mu), tree, overlap=True),
    "relaysum_grad": lambda lr, mu, tree: adozoo.relay_sgd_grad(adozoo.descent(lr), tree),
    "relaysum_grad_overlap": lambda lr, mu, tree: adozoo.relay_sgd_grad(adozoo.descent(lr), tree, overlap=True),
    "relaysum_mix_a05": lambda lr, mu, tree: adozoo.relay_mix(adozoo.descent(lr), tree, share=0.5, overlap=True),
}


@pytest.mark.parametrize("name", SIMULATED)
def test_simulator(name):
    recorded = RECORDED["relay_simulator"]
    inputs = recorded["inputs"]
    tried = 0
    for topology, outputs in recorded["outputs"].items():
        if name in outputs:
            tx = SIMULATED[name](inputs["lr"], inputs["momentum"], TREES[topology](inputs["n"]))
            check(path(tx, least_squares_gradient(inputs), common_start(inputs), 30), outputs[name])
            tried += 1
    assert tried >= 2


def nesterov(lr, mu):
    return optax.chain(adozoo.momentum(mu, nesterov=True), adozoo.descent(lr))


def production(name, inputs):
    """The method of a recorded run, by its name "method/topology/variant"."""
    method, topology, variant = name.split("/")
    lr, mu = inputs["lr"], inputs["momentum"]
    tree = {
        "chain": adozoo.graphs.path,
        "binary-tree": adozoo.graphs.heap_binary_tree,
        "double-binary-trees": adozoo.graphs.double_binary_trees,
    }[topology](inputs["n"])
    inner = nesterov(lr, mu) if variant == "nesterov" else adozoo.descent(lr)
    if method == "relaysum-grad":
        return adozoo.relay_sgd_grad(inner, tree)
    normalization = "counts" if variant == "counts" else "initial"
    return adozoo.relay_sgd(inner, tree, normalization, overlap=variant == "overlap")


TRAINED = [name for name in RECORDED["relay_production"]["outputs"] if name.startswith(("relaysum-m", "relaysum-g"))]
MIX = "relaysum-mix/chain/0.5"


@pytest.mark.parametrize("name", [name for name in TRAINED if name != MIX])
def test_training_code(name):
    recorded = RECORDED["relay_production"]
    inputs = recorded["inputs"]
    iterates = path(production(name, inputs), least_squares_gradient(inputs), common_start(inputs), 25)
    check(iterates, recorded["outputs"][name])


@pytest.mark.parametrize("fill", [0.5, 1.0])
def test_mix_differs_from_the_training_code_by_what_it_fills_in(fill):
    """There x^0 stands in for models that have not arrived, although only half of each model is relayed."""
    recorded = RECORDED["relay_production"]
    inputs = recorded["inputs"]
    n, share = inputs["n"], 0.5
    gradient, start = least_squares_gradient(inputs), np.asarray(common_start(inputs))
    x, past, twin = start, [], [start]
    for t in range(25):
        past.append(share * x - inputs["lr"] * np.asarray(gradient(jnp.asarray(x))))
        late = [[t - max(abs(i - j) - 1, 0) for j in range(n)] for i in range(n)]
        averages = [
            sum(past[late[i][j]][j] if late[i][j] >= 0 else fill * start[j] for j in range(n)) / n for i in range(n)
        ]
        x = (1 - share) * x + np.array(averages)
        twin.append(x)
    if fill == share:
        tx = adozoo.relay_mix(adozoo.descent(inputs["lr"]), adozoo.graphs.path(n), share)
        np.testing.assert_allclose(path(tx, gradient, start, 25), twin, rtol=0, atol=1e-12)
    else:
        check(np.array(twin), recorded["outputs"][MIX])


LOSSY = {
    "relaysum-model/chain/world_size_x0fill": lambda lr, links: adozoo.relay_sgd(adozoo.descent(lr), links),
    "relaysum-model/chain/world_size_prevstate": lambda lr, links: adozoo.relay_sgd(
        adozoo.descent(lr), links, normalization="previous"
    ),
    "relaysum-model/chain/counts": lambda lr, links: adozoo.relay_sgd(
        adozoo.descent(lr), links, normalization="counts"
    ),
    "relaysum-grad/chain": lambda lr, links: adozoo.relay_sgd_grad(adozoo.descent(lr), links),
}


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("over", ["exchange", "mixing"])
def test_drops(name, over):
    """The recorded messages get lost, with everything that they relay."""
    recorded = RECORDED["relay_production"]
    inputs = recorded["inputs"]
    n = inputs["n"]
    kept = np.ones((25, n, n), bool)
    chain = adozoo.graphs.path(n)
    neighbors = [[j for j in (i - 1, i + 1) if 0 <= j < n] for i in range(n)]
    for step, receivers in enumerate(inputs["keep"]["chain"]):
        for i, flags in enumerate(receivers):
            kept[step, i, neighbors[i]] = flags
    assert not kept.all()
    links = (adozoo.exchange if over == "exchange" else adozoo.mixing)(chain)
    tx = LOSSY[name](inputs["lr"], adozoo.channel.recorded_drops(links, kept))
    check(path(tx, least_squares_gradient(inputs), common_start(inputs), 25), recorded["outputs"][f"drop/{name}"])


@pytest.mark.parametrize(
    ("name", "tree"), [("chain", adozoo.graphs.path), ("binary-tree", adozoo.graphs.heap_binary_tree)]
)
def test_bytes(name, tree):
    """Of the busiest worker in 25 steps: recorded are eight bytes a number, and eight more for a count."""
    recorded = RECORDED["relay_production"]["bytes_sent_total_after_T"]
    sent = adozoo.channel.traffic(
        lambda links: adozoo.relay_sgd(adozoo.descent(0.1), links), adozoo.exchange(tree(4)), jnp.zeros((4, 3))
    )
    degree = max(dict(tree(4).degree).values())
    assert sent.messages == 6
    assert recorded[f"relaysum-model/{name}/mom0"] == [25 * degree * (sent.bits / sent.messages / 8 + 8)] * 4
