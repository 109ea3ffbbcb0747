"""The reduced deep-learning set-up of the RelaySGD paper: a small deep network on digits, dealt unevenly to 16 workers.

In place of VGG-11 on Cifar-10, which needs a GPU: a network 64-16-16-16-16-10 (ReLU, 2026 parameters, float32) on
scikit-learn's digits, 90 training samples a worker and 357 for testing. Each worker's mixture of classes is drawn from
Dir(alpha, ..., alpha). As in the paper the learning rate is warmed up over the first 2.5 % of the steps, and divided by
10 after 75 % and after 90 %. Depth matters: with one hidden layer of 32 all methods reach 96 % whatever the labels.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

import adozoo
from experiments import data, figures, partition
from paper_figures.relaysgd._methods import mixing, two_round_exponential

N, SHARE = 16, 90
LAYERS = (64, 16, 16, 16, 16, 10)
CLASSES = LAYERS[-1]
MOMENTUM = 0.9
WARM_UP, DECAYS = 0.025, (0.75, 0.9)


class Sizes(NamedTuple):
    """How long to train: steps, samples of a worker's step, and how often the accuracy is measured."""

    steps: int
    batch: int
    records: int


class Deal(NamedTuple):
    """Who trains on what, and what all are tested on: indices of samples."""

    train: Int[np.ndarray, "n share"]
    test: Int[np.ndarray, " tests"]


@functools.cache
def digits() -> data.Dataset:
    return data.digits()


@functools.cache
def deal(alpha: float, seed: int) -> Deal:
    """Classes by Dir(alpha, ..., alpha) for each worker, in equal shares."""
    labels = digits().labels
    train, test = np.split(np.random.default_rng(seed).permutation(len(labels)), [N * SHARE])
    parts = partition.dirichlet_per_client(labels[train], N, CLASSES * alpha, seed)  # its alpha is the sum over classes
    return Deal(np.stack([train[part] for part in parts]), test)


def skew(dealt: Deal) -> float:
    """How far the workers' labels are from all labels: mean total variation."""
    parts = list(np.arange(N * SHARE).reshape(N, SHARE))
    return partition.heterogeneity(digits().labels[dealt.train.ravel()], parts)


def picked(dealt: Deal, seed: int, sizes: Sizes) -> Int[np.ndarray, "steps n batch"]:
    """The samples of each step, drawn from each worker's share with replacement."""
    places = np.random.default_rng((seed, 1)).integers(SHARE, size=(sizes.steps, N, sizes.batch))
    return dealt.train[np.arange(N)[:, None], places]


def initial(key: Array) -> list[dict[str, Array]]:
    """One worker's network before training (He's initialisation)."""
    shapes = list(itertools.pairwise(LAYERS))
    return [
        {
            "weights": jax.random.normal(one, shape, jnp.float32) * np.float32((2 / shape[0]) ** 0.5),
            "bias": jnp.zeros(shape[1], jnp.float32),
        }
        for one, shape in zip(jax.random.split(key, len(shapes)), shapes, strict=True)
    ]


def logits(params: PyTree, features: Float[Array, "samples pixels"]) -> Float[Array, "samples classes"]:
    """The network of one worker."""
    hidden = features
    for layer in params[:-1]:
        hidden = jax.nn.relu(hidden @ layer["weights"] + layer["bias"][None])
    return hidden @ params[-1]["weights"] + params[-1]["bias"][None]


def loss(params: PyTree, features: Float[Array, "samples pixels"], labels: Int[Array, " samples"]) -> Float[Array, ""]:
    """Mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, features), labels).mean()


def schedule(peak: Any, steps: int) -> Callable[[Any], Array]:
    """Step -> learning rate: linear warm-up, and two divisions by 10."""

    def rate(count: Any) -> Array:
        warm = jnp.minimum((count + 1) / max(1, round(WARM_UP * steps)), 1.0)
        falls = sum(jnp.where(count >= round(part * steps), 1.0, 0.0) for part in DECAYS)
        return (peak * warm * 0.1**falls).astype(jnp.float32)

    return rate


class Method(NamedTuple):
    """A method as the figure shows it: title, colour and marker, learning rate -> transformation."""

    title: str
    look: dict[str, str]
    build: Callable[[Any], optax.GradientTransformationExtraArgs]


def with_momentum(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The same method on Nesterov's directions; each worker has a buffer of its own."""
    return optax.chain(adozoo.momentum(MOMENTUM, nesterov=True), optax.with_extra_args_support(tx))


@functools.cache
def methods() -> dict[str, Method]:
    """All that are compared; the exponential graph has two rounds a step, as in the paper."""
    ring, lazy_ring, pairs = mixing("ring", N), mixing("lazy ring", N), two_round_exponential(N)
    trees, chain, mean = adozoo.graphs.double_binary_trees(N), adozoo.graphs.path(N), adozoo.exact_mean(N)
    look, palette = figures.method, figures.PALETTE
    return {
        "all_reduce": Method(
            "all-reduce, momentum",
            look("all_reduce_sgd"),
            lambda rate: with_momentum(adozoo.all_reduce_sgd(rate, mean)),
        ),
        "relay_trees": Method(
            "RelaySGD, double trees, momentum",
            look("relay_sgd"),
            lambda rate: adozoo.relay_sgd(with_momentum(adozoo.descent(rate)), trees),
        ),
        "relay_chain": Method(
            "RelaySGD, chain, momentum",
            {"color": palette["brown"], "marker": "X"},
            lambda rate: adozoo.relay_sgd(with_momentum(adozoo.descent(rate)), chain),
        ),
        "relay_plain": Method(
            "RelaySGD, double trees",
            {"color": palette["yellow"], "marker": "*"},
            lambda rate: adozoo.relay_sgd(adozoo.descent(rate), trees),
        ),
        "push": Method(
            "SGP, exponential graph, momentum",
            look("stochastic_gradient_push"),
            lambda rate: adozoo.stochastic_gradient_push(rate, pairs, MOMENTUM, nesterov=True),
        ),
        "d2_momentum": Method(
            "D2, ring, momentum",
            {"color": palette["violet"], "marker": "^"},
            lambda rate: with_momentum(adozoo.d2(rate, lazy_ring)),
        ),
        "d2": Method("D2, ring", look("d2"), lambda rate: adozoo.d2(rate, lazy_ring)),
        "quasi_global": Method(
            "quasi-global momentum, ring",
            look("quasi_global_momentum"),
            lambda rate: adozoo.quasi_global_momentum(rate, ring, MOMENTUM),
        ),
        "gossip": Method("D-SGD, ring", look("dsgd"), lambda rate: adozoo.dsgd(rate, ring)),
    }


def accuracies(
    method: Method, rates: Sequence[float] | np.ndarray, deals: Sequence[Deal], seeds: Sequence[int], sizes: Sizes
) -> Float[np.ndarray, "deals rates records n"]:
    """Each worker's test accuracy over time, for all deals (each with its seed) and learning rates in one program."""
    features, labels = jnp.asarray(digits().features, jnp.float32), jnp.asarray(digits().labels, jnp.int32)

    def run(picks: Array, tests: Array, params: PyTree, rate: Array) -> Array:
        def gradient(params: PyTree, step: Any, key: Any) -> PyTree:
            del key
            return jax.vmap(jax.grad(loss))(params, features[picks[step]], labels[picks[step]])

        def accuracy(params: PyTree) -> Array:
            guesses = jax.vmap(lambda one: jnp.argmax(logits(one, features[tests]), axis=1))(params)
            return jnp.mean(guesses == labels[tests][None], axis=1)

        tx, every = method.build(schedule(rate, sizes.steps)), sizes.steps // sizes.records
        return adozoo.simulate(tx, gradient, params, sizes.steps, metrics=accuracy, every=every)[2]

    picks = np.stack([picked(*pair, sizes) for pair in zip(deals, seeds, strict=True)])
    tests = np.stack([dealt.test for dealt in deals])
    starts = [adozoo.replicate(initial(jax.random.key(seed)), N) for seed in seeds]
    start = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    lanes = jax.vmap(jax.vmap(run, (None, None, None, 0)), (0, 0, 0, None))
    return np.asarray(jax.jit(lanes)(picks, tests, start, jnp.asarray(rates)))
