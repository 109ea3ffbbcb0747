"""Beyond Spectral Gap's figures 4 and 6 on Fashion-MNIST: training at tiny scale, verdicts on the paper's curves."""

import jax
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex

from experiments import data, figures, sources
from paper_figures.beyond_spectral_gap import _digits, _fashion_mnist, figure_4, figure_6, figure_6_fashion_mnist
from theory.matrices import period_matrices

TINY = figure_6.Scale(("one_peer_exponential",), workers=4, steps=6, seeds=2, rates=(0.25, 1.0), batch=3, every=10)
NAMES = {  # as the record of the paper's curves has them
    "Solo": "solo",
    "Star": "star:32",
    "Binary tree": "heap_binary_tree:32",
    "Ring": "ring:32",
    "Time-varying exponential": "one_peer_exponential",
    "Social network": "social_network",
    "Two cliques": "two_cliques:32",
    "Torus (4x8)": "torus:4x8",
    "Hypercube": "hypercube:32",
    "Fully connected": "groups:32",
}


def softmax_gradient(network, x, y):
    """Gradient of the mean cross-entropy of d-hidden-10 with tanh, by hand, and the loss."""
    units = np.tanh(x @ network["hidden"] + network["hidden_bias"])
    logits = units @ network["output"] + network["output_bias"]
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log(chances[np.arange(len(y)), y]).mean()
    error = (chances - np.eye(10)[y]) / len(y)
    back = error @ network["output"].T * (1 - units**2)
    parts = {"hidden": x.T @ back, "hidden_bias": back.sum(0), "output": units.T @ error, "output_bias": error.sum(0)}
    return parts, loss


def by_hand(setup, matrices, rate, key, scale):
    """Loss of the moving averages, in plain numpy, with the same start and samples."""
    x, y = np.asarray(setup.features, float), np.asarray(setup.labels)
    start = {name: np.asarray(leaf, float) for name, leaf in _digits.initial(setup, key).items()}
    networks, averages = [start] * scale.workers, [start] * scale.workers
    sampler = _digits.sampler(setup, scale.workers, scale.batch)
    for step in range(scale.steps):
        picked = np.asarray(sampler.sample(jax.random.fold_in(key, step)))
        moved = []
        for network, mine in zip(networks, picked, strict=True):
            gradient, _ = softmax_gradient(network, x[mine], y[mine])
            moved.append({name: leaf - rate * gradient[name] for name, leaf in network.items()})
        W = matrices[step % len(matrices)]
        networks = [
            {name: sum(w * other[name] for w, other in zip(row, moved, strict=True)) for name in start} for row in W
        ]
        averages = [
            {name: 0.95 * old[name] + 0.05 * new[name] for name in start}
            for old, new in zip(averages, networks, strict=True)
        ]
    return np.mean([softmax_gradient(network, x[:: scale.every], y[:: scale.every])[1] for network in averages])


@pytest.mark.slow
def test_losses_are_those_of_moving_averages_of_d_sgd():
    setup = _digits.setup(data.digits(), hidden=5)
    found = figure_6.measured(setup, TINY)
    assert found.loss.dims == ("topology", "seed", "learning_rate")
    keys = jax.random.split(jax.random.key(0), TINY.seeds)
    matrices = period_matrices(_digits.mixing("one_peer_exponential", TINY.workers))
    loss = by_hand(setup, matrices, 1.0, keys[1], TINY)
    assert found.loss.sel(seed=1, learning_rate=1.0).item() == pytest.approx(loss, rel=1e-5)


def test_images_become_rows_and_a_start_has_their_size():
    split = sources.load("digits_images")
    setup = _digits.setup(split.train, hidden=3)
    np.testing.assert_array_equal(setup.features[7], split.train.features[7].ravel())
    start = _digits.initial(setup, jax.random.key(0))
    assert {name: leaf.shape for name, leaf in start.items()} == {
        "hidden": (64, 3),
        "hidden_bias": (3,),
        "output": (3, 10),
        "output_bias": (10,),
    }


def test_losses_are_kept_until_the_settings_change(monkeypatch, tmp_path):
    trained = []

    def measured(setup, scale):
        trained.append((setup.hidden, scale.steps))
        return xr.Dataset({"loss": ("seed", np.arange(2.0) + scale.steps)})

    monkeypatch.setattr(_fashion_mnist, "FOLDER", tmp_path)
    monkeypatch.setattr(sources, "load", lambda name: sources.Split(data.digits(), data.digits(), data.digits()))
    monkeypatch.setattr(figure_6, "measured", measured)
    monkeypatch.setattr(_fashion_mnist, "QUICK", TINY)
    first = _fashion_mnist.compute(full=False)
    xr.testing.assert_identical(_fashion_mnist.compute(full=False), first)
    assert trained == [(32, 6)]
    monkeypatch.setattr(_fashion_mnist, "QUICK", TINY._replace(steps=3))
    assert _fashion_mnist.compute(full=False).loss.values.tolist() == [3, 4]
    _fashion_mnist.compute(full=True)
    assert trained == [(32, 6), (32, 3), (32, 1000)]


@pytest.fixture(scope="module")
def places():
    return figure_6.measures(tuple(NAMES.values()), 32)


def as_published(reference, places) -> xr.Dataset:
    curves = reference("beyond_spectral_gap_published_curves")["fig4"]["curves_lr_loss"]
    rates = 2.0 ** np.arange(-11, -1.5, 0.5)
    losses = np.full((len(NAMES), len(rates)), np.inf)  # where the picture ends
    for row, key in enumerate(NAMES):
        for rate, loss in curves[key]:
            near = np.abs(np.log2(rates / rate))
            if near.min() < 0.2:  # rates were rounded to four decimals
                losses[row, near.argmin()] = loss
    losses = losses[:, None] * np.array([0.99, 1.01])[None, :, None]
    data = places.assign(loss=(("topology", "seed", "learning_rate"), losses), seed=[0, 1], learning_rate=rates)
    return data.assign_attrs(workers=32)


def test_the_papers_own_curves_have_the_claims_and_the_published_numbers(reference, places):
    data = as_published(reference, places)
    claims = figure_4.judge(data)
    assert [claim.holds for claim in claims] == [True] * 5
    for claim in claims:
        for name, published in claim.published.items():
            assert np.allclose(claim.numbers[name], published, rtol=0.03), (claim.text, name)


def swapped(data: xr.Dataset, one: str, other: str) -> xr.Dataset:
    losses = data.loss.copy()
    losses.loc[one], losses.loc[other] = data.loss.sel(topology=other), data.loss.sel(topology=one)
    return data.assign(loss=losses)


def test_verdicts_can_turn(reference, places):
    data = as_published(reference, places)
    assert [claim.holds for claim in figure_4.judge(swapped(data, "star:32", "ring:32"))][3] is False
    assert [claim.holds for claim in figure_4.judge(swapped(data, "solo", "ring:32"))][:3] == [False] * 3
    # A learning rate serves all: only averaging itself helps.
    factors = xr.DataArray(np.linspace(1, 0.4, 10), {"topology": data.topology})
    alike = data.assign(loss=(data.loss.sel(topology="solo", drop=True) * factors).transpose(*data.loss.dims))
    assert [claim.holds for claim in figure_4.judge(alike)] == [True, False, False, False, False]


def test_the_picture(reference, places):
    axis = figure_4.draw(as_published(reference, places)).axes[0]
    drawn = {line.get_label(): line for line in axis.lines}
    assert len(drawn) == len(NAMES)
    assert "fully connected" in drawn
    ring = drawn["ring"]
    assert to_hex(ring.get_color()).lower() == figures.topology("ring")["color"].lower()
    (marked,) = ring.get_markevery()
    assert ring.get_xdata()[marked] == pytest.approx(0.0625)


@pytest.mark.parametrize("script", [figure_4, figure_6_fashion_mnist])
def test_where_the_data_are_missing(monkeypatch, capsys, tmp_path, script):
    def without(name):
        raise sources.MissingData(f"{name}: get it so and so")

    monkeypatch.setattr(_fashion_mnist, "FOLDER", tmp_path)
    monkeypatch.setattr(sources, "load", without)
    with pytest.raises(SystemExit) as left:
        script.main(["--output", str(tmp_path)])
    assert left.value.code == 2
    assert capsys.readouterr().err == "fashion_mnist: get it so and so\n"
