"""PowerGossip as recorded from its authors' code: two tensors on a ring of five, from given directions."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references

import adozoo
from adozoo._exchange import OnLinks
from adozoo.gossip.moniqua import modulo_gossip
from adozoo.gossip.power_gossip import Directions

RECORDED = references.load("power_gossip")["powergossip"]
INPUTS = RECORDED["inputs"]
N = INPUTS["n"]
RING = adozoo.graphs.ring(N)


def stacked(nodes):
    """Recorded tensors [node][tensor] as a list of [n, ...]."""
    return [jnp.asarray(np.stack([np.array(node[k]) for node in nodes])) for k in range(2)]


def given_directions(links, rank):
    """The recorded P and Q on both sides of each edge."""

    def on_links(name, tensor):
        edges = [f"{min(pair)}-{max(pair)}" for pair in zip(links.own, links.other, strict=True)]
        return jnp.stack([jnp.asarray(INPUTS[name][edge][tensor])[:, :rank] for edge in edges])

    return tuple(Directions(on_links("p0", k), on_links("q0", k)) for k in range(2))


def still(x, step, key):
    """No gradients: consensus alone."""
    return jax.tree.map(jnp.zeros_like, x)


def transposed(tensors):
    """All matrices transposed."""
    return [jax.vmap(lambda x: x.reshape(x.shape[0], -1).T)(x) for x in tensors]


RUNS = {
    "power_gossip_warm_its1": {"rank": 2, "iterations": 1},
    "power_gossip_warm_its2": {"rank": 2, "iterations": 2},
    "power_gossip_warm_its3": {"rank": 2, "iterations": 3},
    "power_gossip_rank1_warm_its2_g1": {"rank": 1, "iterations": 2},
    "power_gossip_signs_rank1": {"rank": 1, "iterations": 1, "orthogonalization": "sign"},
}


def gossiped(name, relabel=False):
    """[step] -> tensors, step by step, beside the traffic. The authors' first step does nothing but count rounds."""
    links = adozoo.exchange(RING)
    options = RUNS[name]
    tx = adozoo.power_gossip(adozoo.descent(1.0), links, **options)
    x = stacked(INPUTS["X0"])
    directions = given_directions(links, options["rank"])
    # After an even number of rounds in the idle first step, theirs goes on with an even round: ours with M transposed.
    turned = options["iterations"] % 2 == 0
    if turned:
        x, directions = transposed(x), tuple(Directions(one.q, one.p) for one in directions)
    if relabel:  # the smaller node becomes the larger one on every edge: differences change their sign
        x = [leaf[::-1] for leaf in x]
        sides = list(zip(links.own, links.other, strict=True))
        order = np.array([sides.index((N - 1 - i, N - 1 - j)) for i, j in sides])
        directions = jax.tree.map(lambda leaf: -leaf[order], directions)

    def begin(x):
        inner, state = tx.init(x)
        return inner, state._replace(directions=OnLinks(directions))

    begun = optax.GradientTransformationExtraArgs(begin, tx.update)
    _, _, trace = adozoo.simulate(begun, still, x, 11, metrics=lambda x: x)
    path = {}
    for step in range(2, 13):
        shown = [leaf[step - 2][::-1] if relabel else leaf[step - 2] for leaf in trace]
        path[step] = transposed(shown) if turned else shown
    return path


def shortened(factor):
    """Orthonormal columns in the authors' way: divided by their norms plus 1e-8."""
    columns = []
    for column in jnp.moveaxis(factor, -1, 0):
        for unit in columns:
            column = column - jnp.sum(unit * column, axis=-1, keepdims=True) * unit
        columns.append(column / (jnp.linalg.norm(column, axis=-1, keepdims=True) + 1e-8))
    return jnp.stack(columns, axis=-1)


@pytest.mark.parametrize("case", ["", "relabelled", "shortened"])
@pytest.mark.parametrize("name", RUNS)
def test_power_gossip(name, case, monkeypatch):
    """Whichever of two neighbours counts as the larger one, and to the last digit with directions cut as theirs."""
    if case == "shortened":
        monkeypatch.setattr(sys.modules["adozoo.gossip.power_gossip"], "orth", shortened)
    path = gossiped(name, case == "relabelled")
    for step, expected in RECORDED["outputs"][name].items():
        for got, tensor in zip(path[int(step)], stacked(expected), strict=True):
            np.testing.assert_allclose(
                got.reshape(N, -1), tensor.reshape(N, -1), rtol=0, atol=2e-9 if case == "shortened" else 1e-6
            )
    final = path[12]
    apart = float(adozoo.consensus_distance(final)) ** 2
    assert apart == pytest.approx(RECORDED["consensus_error_mean_sq_fro"][name]["12"], rel=1e-3)


SIGN, TOP, SVD = (
    adozoo.compression.scaled_sign(),
    adozoo.compression.top_k(0.3, index_bits=64),
    adozoo.compression.svd(1),
)
COMPRESSED = {
    "simple_gossip": lambda mix: adozoo.dsgd(1.0, mix),
    "choco_sign": lambda mix: adozoo.choco_sgd(1.0, mix, SIGN, 0.3),
    "choco_topk": lambda mix: adozoo.choco_sgd(1.0, mix, TOP, 0.2, overlap=True),
    "choco_svd1": lambda mix: adozoo.choco_sgd(1.0, mix, SVD, 0.2),
    "deepsqueeze_sign": lambda mix: adozoo.deep_squeeze(1.0, mix, SIGN, 0.1, overlap=True),
    "deepsqueeze_topk": lambda mix: adozoo.deep_squeeze(1.0, mix, TOP, 0.1),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_gossip(name):
    mix = adozoo.mixing(RING)
    tx, x = COMPRESSED[name](mix), stacked(INPUTS["X0"])
    final, _, trace = adozoo.simulate(tx, still, x, 12, metrics=lambda x: x)
    for step, expected in RECORDED["outputs"].get(name, {}).items():
        for got, tensor in zip(trace, stacked(expected), strict=True):
            np.testing.assert_allclose(got[int(step) - 1], tensor, rtol=0, atol=2e-9)
    apart = float(adozoo.consensus_distance(final)) ** 2
    assert apart == pytest.approx(RECORDED["consensus_error_mean_sq_fro"][name]["12"], rel=1e-8)
    sent = adozoo.channel.traffic(COMPRESSED[name], mix, x)
    if name.endswith("sign"):  # words of 32 signs and a norm a tensor; what was recorded counts another transport
        assert sent.bits_per_node == 2 * (32 + 2 * 64)
    else:
        assert 12 * sent.bits_per_node == RECORDED["bits_sent_per_worker"][name]["12"][0]


def test_power_gossip_bits():
    """Two rounds a step: one factor each, to two neighbours, in numbers of 64 bits."""
    for name, options in RUNS.items():
        sent = adozoo.channel.traffic(
            lambda links, options=options: adozoo.power_gossip(adozoo.descent(1.0), links, **options),
            adozoo.exchange(RING),
            stacked(INPUTS["X0"]),
        )
        recorded = RECORDED["bits_sent_per_worker"][name]
        if options["iterations"] == 2:
            assert recorded["3"][0] - recorded["2"][0] == sent.bits_per_node
        elif "orthogonalization" not in options:
            assert (recorded["4"][0] - recorded["2"][0]) / 2 == sent.bits_per_node


def test_moniqua():
    """Recorded from independent NumPy, with the noise that all nodes shared."""
    case = references.load("power_gossip")["own_numpy"]["moniqua"]
    links, x = adozoo.exchange(adozoo.graphs.ring(case["n"])), jnp.asarray(case["X0"])
    for step, noise in enumerate(case["noise_shared"]):
        x = x + case["diffusion_rate"] * modulo_gossip(links, x, jnp.asarray(noise), case["theta"], 2, step)
        if str(step + 1) in case["out"]:
            np.testing.assert_allclose(x, case["out"][str(step + 1)], rtol=0, atol=1e-9)
