r"""A2CiD2 against its baseline at once and twice the communication rate, training on digits over a ring.

In place of ResNets on Cifar-10 and ImageNet, which need GPUs: a network 64-32-10 (ReLU, float32) on scikit-learn's
digits, sixteen workers on a ring (`--full`: 32) with Poisson clocks, one gradient a unit of time and worker on average.
A worker takes part in one exchange per unit of time, or in two. As in the paper the inner optimiser is SGD with a
heavy-ball momentum of 0.9 and two divisions of the learning rate by 10, after 50 % and 75 %. Samples are dealt at
random, or by classes drawn from Dir(0.1, ..., 0.1) for each worker; all methods see the same deals and starts.

Deviations: no weight decay, no warm-up, the learning rate is not scaled with the number of workers; random clocks in
place of measured time. The paper's accuracies are not on this data, so that only its comparisons can be tested.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, Int, PyTree

import adozoo
from experiments import data, figures, partition

LAYERS = (64, 32, 10)
LEARNING_RATE, MOMENTUM, DECAYS = 0.05, 0.9, (0.5, 0.75)
SHARES = {"random": "random shares", "skewed": "shares of few classes"}
ALPHA = 0.1
PLATEAU = (0.1, 0.5)
"""The part of the run over which consensus distances are averaged: until the learning rate falls."""


class Sizes(NamedTuple):
    """Workers, samples of each, batch, units of time, records, seeds."""

    n: int
    share: int
    batch: int
    time: int
    records: int
    seeds: int


class Curve(NamedTuple):
    """Title, look, whether accelerated, and the rate of a worker's exchanges."""

    title: str
    look: dict[str, Any]
    accelerated: bool
    rate: float


QUICK, FULL = Sizes(16, 90, 8, 240, 40, 3), Sizes(32, 45, 8, 600, 60, 5)
CURVES = {
    "baseline 1": Curve("baseline, rate 1", {"color": figures.PALETTE["blue"], "ls": "-"}, False, 1.0),
    "baseline 2": Curve("baseline, rate 2", {"color": figures.PALETTE["sky"], "ls": "--"}, False, 2.0),
    "acid 1": Curve("A2CiD2, rate 1", {"color": figures.PALETTE["red"], "ls": "-"}, True, 1.0),
    "acid 2": Curve("A2CiD2, rate 2", {"color": figures.PALETTE["orange"], "ls": "--"}, True, 2.0),
}
REFERENCE = "all-reduce"


def deal(shares: str, seed: int, sizes: Sizes) -> tuple[Int[np.ndarray, "n share"], Int[np.ndarray, " tests"]]:
    """Whose samples are whose, in equal shares, and the samples for testing."""
    labels = data.digits().labels
    train, test = np.split(np.random.default_rng(seed).permutation(len(labels)), [sizes.n * sizes.share])
    if shares == "random":
        return train.reshape(sizes.n, sizes.share), test
    parts = partition.dirichlet_per_client(labels[train], sizes.n, LAYERS[-1] * ALPHA, seed)  # the sum over classes
    return np.stack([train[part] for part in parts]), test


def initial(key: Array) -> list[dict[str, Array]]:
    """One worker's network before training (He's initialisation)."""
    keys = jax.random.split(key, len(LAYERS) - 1)
    return [
        {
            "weights": jax.random.normal(k, (a, b), jnp.float32) * np.float32((2 / a) ** 0.5),
            "bias": jnp.zeros(b, jnp.float32),
        }
        for k, a, b in zip(keys, LAYERS[:-1], LAYERS[1:], strict=True)
    ]


def logits(params: PyTree, features: Float[Array, "samples pixels"]) -> Float[Array, "samples classes"]:
    """The network of one worker."""
    first, second = params
    hidden = jax.nn.relu(features @ first["weights"] + first["bias"][None])
    return hidden @ second["weights"] + second["bias"][None]


def loss(params: PyTree, features: Float[Array, "samples pixels"], labels: Int[Array, " samples"]) -> Float[Array, ""]:
    """Mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, features), labels).mean()


def schedule(time: int) -> optax.Schedule:
    """A worker's number of gradients -> learning rate."""
    return optax.piecewise_constant_schedule(LEARNING_RATE, {round(part * time): 0.1 for part in DECAYS})


class Task(NamedTuple):
    """What one lane trains on: samples of each worker, samples for testing, start, and the key of the batches."""

    mine: Int[Array, "n share"]
    test: Int[Array, " tests"]
    start: PyTree
    key: Array


def tasks(sizes: Sizes) -> Task:
    """All shares and seeds along a leading axis, [shares * seeds]."""
    found = []
    for shares in SHARES:
        for seed in range(sizes.seeds):
            mine, test = deal(shares, seed, sizes)
            start, batches = jax.random.split(jax.random.key(seed))
            found.append(Task(jnp.asarray(mine), jnp.asarray(test), adozoo.replicate(initial(start), sizes.n), batches))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def parts(task: Task, sizes: Sizes) -> tuple[Any, dict[str, Any]]:
    """The gradient and the metrics of one lane."""
    features, labels = jnp.asarray(data.digits().features, jnp.float32), jnp.asarray(data.digits().labels, jnp.int32)
    train = task.mine.ravel()

    def gradient(params: PyTree, count: Any, key: Any) -> PyTree:
        places = jax.random.randint(key, (sizes.n, sizes.batch), 0, sizes.share)
        picks = jnp.take_along_axis(task.mine, places, axis=1)
        return jax.vmap(jax.grad(loss))(params, features[picks], labels[picks])

    def accuracy(params: PyTree) -> Array:
        return jnp.mean(jnp.argmax(logits(params, features[task.test]), axis=1) == labels[task.test])

    metrics = {
        "spread": lambda params: adozoo.consensus_distance(params) ** 2,
        "loss": lambda params: loss(adozoo.node_mean(params), features[train], labels[train]),
        "accuracy": lambda params: accuracy(adozoo.node_mean(params)),
        "own_accuracy": lambda params: jnp.mean(jax.vmap(accuracy)(params)),
    }
    return gradient, metrics


def optimiser(sizes: Sizes) -> optax.GradientTransformation:
    return optax.sgd(schedule(sizes.time), MOMENTUM)


def events(rate: float, lanes: Sequence[int], sizes: Sizes) -> list[adozoo.events.Events]:
    graph = adozoo.resistance.normalize_rates(adozoo.graphs.ring(sizes.n), "node_rate", rate)
    return [adozoo.events.poisson(graph, float(sizes.time), seed=lane, marks=sizes.records) for lane in lanes]


def trained(sizes: Sizes) -> dict[str, Float[np.ndarray, "curve lane record"]]:
    """All curves and lanes in one program; a lane's clocks tick alike for A2CiD2 and the baseline at its rate."""
    every, lanes = tasks(sizes), [*range(sizes.seeds)] * len(SHARES)
    lists = [one for curve in CURVES.values() for one in events(curve.rate, lanes, sizes)]
    constants = [adozoo.acid_parameters(e.chi_1, e.chi_2) for e in lists]
    flat = [
        constant if CURVES[name].accelerated else adozoo.acid_parameters(1.0, 1.0, accelerated=False)
        for constant, name in zip(constants, np.repeat(list(CURVES), len(lanes)), strict=True)
    ]
    parameters = jax.tree.map(lambda *values: jnp.asarray(values), *flat)
    repeated = jax.tree.map(lambda x: jnp.concatenate([x] * len(CURVES)), every)

    def run(events: Any, parameters: Any, task: Task) -> Any:
        gradient, metrics = parts(task, sizes)
        tx = adozoo.acid(optimiser(sizes), events, parameters=parameters)
        return adozoo.simulate_events(tx, gradient, task.start, events, task.key, metrics)[2]

    def run_reference(task: Task) -> Any:
        gradient, metrics = parts(task, sizes)
        tx = optax.chain(adozoo.average_gradients(adozoo.exact_mean(sizes.n)), adozoo.per_node(optimiser(sizes)))
        return adozoo.simulate(
            tx, gradient, task.start, sizes.time, task.key, metrics, every=sizes.time // sizes.records
        )[2]

    found = jax.jit(jax.vmap(run))(adozoo.events.stack(lists), parameters, repeated)
    other = jax.jit(jax.vmap(run_reference))(every)
    keys = ("spread", "loss", "accuracy", "own_accuracy")
    shape = (len(CURVES), len(lanes), sizes.records)
    return {
        key: np.concatenate([np.asarray(found[key])[:, 1:].reshape(shape), np.asarray(other[key])[None]])
        for key in keys
    }


def compute(full: bool) -> xr.Dataset:
    return measured(FULL if full else QUICK)


def measured(sizes: Sizes) -> xr.Dataset:
    axes = ("curve", "shares", "seed", "time")
    shape = (len(CURVES) + 1, len(SHARES), sizes.seeds, sizes.records)
    times = sizes.time / sizes.records * (1 + np.arange(sizes.records))
    return xr.Dataset(
        {key: (axes, values.reshape(shape)) for key, values in trained(sizes).items()},
        {"curve": [*CURVES, REFERENCE], "shares": list(SHARES), "time": times},
        {"workers": sizes.n},
    )


PANELS = {
    "spread": r"$\frac{1}{n}\sum_i \|x_i - \bar x\|^2$",
    "loss": "training loss of the mean",
    "own_accuracy": "workers' own test accuracy [%]",
}


def draw(data: xr.Dataset) -> figures.Figure:
    figure, axes = figures.panels(len(SHARES), len(PANELS), (3.6, 2.7), sharex=True)
    for row, (shares, title) in zip(axes, SHARES.items(), strict=True):
        for axis, (key, label) in zip(row, PANELS.items(), strict=True):
            scale = 100 if key == "own_accuracy" else 1
            for name in map(str, data.curve.values):
                if key == "spread" and name == REFERENCE:
                    continue
                look = CURVES[name].look if name in CURVES else {"color": "k", "ls": ":"}
                values = scale * data[key].sel(curve=name, shares=shares)
                axis.plot(data.time, values.mean("seed"), label=CURVES[name].title if name in CURVES else name, **look)
                axis.fill_between(
                    data.time, values.min("seed"), values.max("seed"), color=look["color"], alpha=0.15, lw=0
                )
            axis.set(title=title, ylabel=label)
            if scale == 1:
                axis.set_yscale("log")
            else:
                axis.set_ylim(85, 99)
    for axis in axes[-1]:
        axis.set_xlabel("gradients of a worker")
    figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def plateau(data: xr.Dataset) -> xr.DataArray:
    """Squared consensus distances, averaged while the learning rate is high, [curve, shares, seed]."""
    first, last = (part * float(data.time[-1]) for part in PLATEAU)
    return data.spread.sel(time=slice(first, last)).mean("time")


def below(smaller: xr.DataArray, larger: xr.DataArray) -> tuple[bool | None, str]:
    """Whether one is below the other by two standard errors, paired by seed; None: neither is below the other."""
    gaps = (larger - smaller).values
    mean, error = gaps.mean(), gaps.std(ddof=1) / np.sqrt(gaps.size)
    verdict = None if abs(mean) < 2 * error or not mean else bool(mean > 0)
    return verdict, f"{mean:.3g} +- {error:.2g}"


def judge(data: xr.Dataset) -> list[figures.Claim]:
    claims = []
    for shares, title in SHARES.items():
        here = data.sel(shares=shares)
        spread, last = plateau(here), here.isel(time=-1)
        own = here.own_accuracy.sel(time=PLATEAU[1] * float(data.time[-1]), method="nearest")
        mean = {name: float(spread.sel(curve=name).mean()) for name in CURVES}
        pairs = [("acid 1", "baseline 1"), ("acid 2", "baseline 2")]
        found = {CURVES[a].title: below(spread.sel(curve=a), spread.sel(curve=b)) for a, b in pairs}
        claims += [
            figures.Claim(
                f"{title}: A2CiD2 lowers the squared consensus distance of the baseline at either rate",
                all(verdict is True for verdict, _ in found.values()),
                {f"squared distance, {CURVES[name].title}": value for name, value in mean.items()}
                | {f"gap of {name} to its baseline": text for name, (_, text) in found.items()}
                | {"baseline / A2CiD2, rate 1 and 2": [mean[b] / mean[a] for a, b in pairs]},
            ),
            figures.Claim(
                f"{title}: it does as much as doubling the rate, to 25 % of the squared consensus distance",
                mean["acid 1"] <= 1.25 * mean["baseline 2"],
                {"A2CiD2 at rate 1 / baseline at rate 2": mean["acid 1"] / mean["baseline 2"]},
            ),
        ]
        verdict, text = below(last.loss.sel(curve="acid 1"), last.loss.sel(curve="baseline 1"))
        doubled, by = below(last.loss.sel(curve="acid 1"), last.loss.sel(curve="baseline 2"))
        claims += [
            figures.Claim(
                f"{title}: its final training loss is below the baseline's at the same rate",
                verdict,
                {f"loss, {name}": float(last.loss.sel(curve=name).mean()) for name in map(str, data.curve.values)}
                | {"gap at rate 1": text},
            ),
            figures.Claim(
                f"{title}: ... and not above the baseline's at twice the rate",
                doubled is not False,
                {"gap to the baseline at rate 2": by},
            ),
        ]
        verdict, text = below(own.sel(curve="baseline 1"), own.sel(curve="acid 1"))
        claims.append(
            figures.Claim(
                f"{title}: before the learning rate falls, its workers' own networks are more accurate at rate 1",
                verdict,
                {f"own accuracy, {name}": float(own.sel(curve=name).mean()) for name in map(str, data.curve.values)}
                | {"gap": text}
                | {
                    f"final accuracy of the mean, {name}": float(last.accuracy.sel(curve=name).mean())
                    for name in map(str, data.curve.values)
                },
            )
        )
    return claims


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
