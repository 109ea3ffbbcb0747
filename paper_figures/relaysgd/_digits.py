r"""The reduced deep-learning set-up of the RelaySGD paper: a small network on digits, dealt out unevenly to 16 workers.

In place of VGG-11 on Cifar-10, which needs a GPU: an MLP 64-32-10 (tanh, float32) on scikit-learn's digits, 90 training
samples a worker and 357 for testing. Each worker's mixture of classes is drawn from Dir(alpha, ..., alpha). As in the
paper the learning rate is warmed up over the first 2.5 % of the steps, and divided by 10 after 75 % and after 90 %.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

import adozoo
from experiments import data, figures, partition
from paper_figures.beyond_spectral_gap import _digits as network
from paper_figures.relaysgd._methods import mixing, two_round_exponential

N, SHARE, CLASSES = 16, 90, 10
MOMENTUM = 0.9
WARM_UP, DECAYS = 0.025, (0.75, 0.9)


class Deal(NamedTuple):
    """Who trains on what, and what all are tested on: indices of samples."""

    train: Int[np.ndarray, "n share"]
    test: Int[np.ndarray, " tests"]


@functools.cache
def deal(alpha: float, seed: int) -> Deal:
    """Dir(alpha, ..., alpha) for each worker; the concentration of `dirichlet_per_client` is that of all classes."""
    labels = data.digits().labels
    order = np.random.default_rng(seed).permutation(len(labels))
    train, test = np.split(order, [N * SHARE])
    parts = partition.dirichlet_per_client(labels[train], N, CLASSES * alpha, seed)
    return Deal(np.stack([train[part] for part in parts]), test)


def skew(dealt: Deal) -> float:
    """How far apart the workers' labels are: total variation from all labels, on average."""
    labels = data.digits().labels
    return partition.heterogeneity(
        labels[dealt.train.ravel()], list(np.arange(N * SHARE).reshape(N, SHARE))
    )


def schedule(peak: Any, steps: int) -> Callable[[Any], Array]:
    """Step -> learning rate: linear warm-up, and two divisions by 10."""

    def rate(count: Any) -> Array:
        warm = jnp.minimum((count + 1) / max(1, round(WARM_UP * steps)), 1.0)
        falls = sum((count >= round(part * steps)).astype(float) for part in DECAYS)
        return (peak * warm * 0.1**falls).astype(jnp.float32)

    return rate


Factory = Callable[[Any], optax.GradientTransformationExtraArgs]


def _with_momentum(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The same method on Nesterov directions, each worker with a buffer of its own."""
    return optax.chain(adozoo.momentum(MOMENTUM, nesterov=True), optax.with_extra_args_support(tx))


def _relay(trees: Any, momentum: bool) -> Factory:
    def build(rate: Any) -> optax.GradientTransformationExtraArgs:
        step = adozoo.descent(rate)
        return adozoo.relay_sgd(_with_momentum(step) if momentum else step, trees)

    return build


class Method(NamedTuple):
    """A row of the table: what the figure calls it, its look, how it is built, and learning rates to try first."""

    title: str
    look: dict[str, str]
    build: Factory


def methods() -> dict[str, Method]:
    trees, chain = adozoo.graphs.double_binary_trees(N), adozoo.graphs.path(N)
    ring, lazy_ring, mean, pairs = mixing("ring", N), mixing("lazy ring", N), adozoo.exact_mean(N), two_round_exponential(N)
    look, palette = figures.method, figures.PALETTE
    return {
        "all_reduce": Method(
            "all-reduce, momentum",
            look("all_reduce_sgd"),
            lambda rate: _with_momentum(adozoo.all_reduce_sgd(rate, mean)),
        ),
        "relay_trees": Method("RelaySGD, double trees, momentum", look("relay_sgd"), _relay(trees, True)),
        "relay_chain": Method(
            "RelaySGD, chain, momentum", {"color": palette["brown"], "marker": "X"}, _relay(chain, True)
        ),
        "relay_plain": Method(
            "RelaySGD, double trees", {"color": palette["red"], "marker": "+"}, _relay(trees, False)
        ),
        "push": Method(
            "SGP, momentum",
            look("stochastic_gradient_push"),
            lambda rate: adozoo.stochastic_gradient_push(rate, pairs, MOMENTUM, nesterov=True),
        ),
        "quasi_global": Method(
            "quasi-global momentum, ring",
            look("quasi_global_momentum"),
            lambda rate: adozoo.quasi_global_momentum(rate, ring, MOMENTUM),
        ),
        "d2_momentum": Method(
            "D2, ring, momentum",
            {"color": palette["yellow"], "marker": "^"},
            lambda rate: _with_momentum(adozoo.d2(rate, lazy_ring)),
        ),
        "d2": Method("D2, ring", look("d2"), lambda rate: adozoo.d2(rate, lazy_ring)),
        "gossip": Method("D-SGD, ring", look("dsgd"), lambda rate: adozoo.dsgd(rate, ring)),
    }


def accuracies(
    method: Method, rates: Float[np.ndarray, " rates"], deals: list[Deal], seeds: list[int], steps: int, records: int, batch: int
) -> Float[np.ndarray, "deals rates records n"]:
    """Each worker's test accuracy `records` times, for each deal (with its seed) and learning rate, at the same time."""
    features, labels = network.samples()

    def run(dealt: Deal, key: Array, rate: Array) -> Array:
        def gradient(params: PyTree, step: Any, picked: Array) -> PyTree:
            chosen = jnp.take_along_axis(dealt.train, picked, axis=1)
            return jax.vmap(jax.grad(network.loss))(params, features[chosen], labels[chosen])

        def accuracy(params: PyTree) -> Array:
            hidden = jnp.tanh(features[dealt.test] @ params["hidden"] + params["hidden_bias"][:, None])
            logits = hidden @ params["output"] + params["output_bias"][:, None]
            return jnp.mean(jnp.argmax(logits, -1) == labels[dealt.test][None], axis=1)

        start, draws = jax.random.split(key)
        params = adozoo.replicate(network.initial(start), N)
        tx = method.build(schedule(rate, steps))
        sample = lambda key: jax.random.randint(key, (N, batch), 0, SHARE)
        return adozoo.simulate(tx, gradient, params, steps, draws, {"accuracy": accuracy}, steps // records, sample)[2]["accuracy"]

    stacked = Deal(*(jnp.stack(list(part)) for part in zip(*deals)))
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    over_rates = jax.vmap(run, (None, None, 0))
    return np.asarray(jax.jit(jax.vmap(over_rates, (0, 0, None)))(stacked, keys, jnp.asarray(rates)))
