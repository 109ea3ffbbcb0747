"""The methods of the RelaySGD paper's figures on quadratics, each on its topology."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax

import adozoo
from experiments import figures

GRAPHS = {
    "ring": adozoo.graphs.ring,
    "chain": adozoo.graphs.path,
    "tree": adozoo.graphs.heap_binary_tree,
    "star": adozoo.graphs.star,
}
BELOW_D2S_BOUND = 1e-6
"""Metropolis weights on a ring of even length have -1/3 as an eigenvalue, where the theory of D2 just ends."""


@functools.cache
def mixing(topology: str, n: int) -> adozoo.Mixing:
    """Metropolis weights; on a "lazy ring" 1/3 - 0.01 instead of 1/3."""
    if topology == "lazy ring":
        return adozoo.relaxed(mixing("ring", n), 1 - 3 * 0.01)
    return adozoo.mixing(GRAPHS[topology](n))


@functools.cache
def two_round_exponential(n: int) -> adozoo.Mixing:
    """The one-peer exponential graph, two rounds a step: node i averages with i - 2^k, and then with i - 2^(k + 1)."""
    rounds = (n - 1).bit_length()
    halves = [(np.eye(n) + np.roll(np.eye(n), 2**k, axis=0)) / 2 for k in range(rounds)]
    period = rounds if rounds % 2 else rounds // 2
    pairs = [halves[(2 * t + 1) % rounds] @ halves[2 * t % rounds] for t in range(period)]
    return adozoo.cycle([adozoo.mixing(pair, require_connected=False) for pair in pairs])


def gossip(learning_rate: Any, topology: str, n: int) -> optax.GradientTransformationExtraArgs:
    return adozoo.dsgd(learning_rate, mixing(topology, n))


def d2(learning_rate: Any, topology: str, n: int) -> optax.GradientTransformationExtraArgs:
    return adozoo.d2(learning_rate, adozoo.relaxed(mixing(topology, n), 1 - BELOW_D2S_BOUND))


def gradient_tracking(learning_rate: Any, topology: str, n: int) -> optax.GradientTransformationExtraArgs:
    return adozoo.gradient_tracking(learning_rate, mixing(topology, n), variant="atc")


def relay_sgd(learning_rate: Any, topology: str, n: int) -> optax.GradientTransformationExtraArgs:
    return adozoo.relay_sgd(adozoo.descent(learning_rate), GRAPHS[topology](n))


def relay_sgd_grad(learning_rate: Any, topology: str, n: int) -> optax.GradientTransformationExtraArgs:
    return adozoo.relay_sgd_grad(adozoo.descent(learning_rate), GRAPHS[topology](n))


def push(learning_rate: Any, topology: str, n: int) -> optax.GradientTransformationExtraArgs:
    del topology
    return adozoo.stochastic_gradient_push(learning_rate, two_round_exponential(n))


def all_reduce(learning_rate: Any, topology: str, n: int) -> optax.GradientTransformationExtraArgs:
    del topology
    return adozoo.all_reduce_sgd(learning_rate, adozoo.exact_mean(n))


@dataclass(frozen=True)
class Method:
    """A method as the figures show it.

    Attributes:
      title: what the legend calls it.
      look: colour and marker.
      build: (learning rate, topology, n) -> transformation.
    """

    title: str
    look: dict[str, str]
    build: Callable[[Any, str, int], optax.GradientTransformationExtraArgs]


METHODS = {
    "relay_sgd": Method("RelaySGD", figures.method("relay_sgd"), relay_sgd),
    "relay_sgd_grad": Method("RelaySGD/Grad", {"color": figures.PALETTE["violet"], "marker": "X"}, relay_sgd_grad),
    "gossip": Method("D-SGD", figures.method("dsgd"), gossip),
    "d2": Method("D2", figures.method("d2"), d2),
    "gradient_tracking": Method("gradient tracking", figures.method("gradient_tracking"), gradient_tracking),
    "push": Method("SGP, exponential graph", figures.method("stochastic_gradient_push"), push),
    "all_reduce": Method("all-reduce SGD", figures.method("all_reduce_sgd"), all_reduce),
}


@functools.cache
def on(key: str, topology: str, n: int) -> Callable[[Any], optax.GradientTransformationExtraArgs]:
    """Learning rate -> transformation; always the same function, so that it is compiled once."""
    return functools.partial(METHODS[key].build, topology=topology, n=n)
