"""The methods of the RelaySGD paper's figures on quadratics, each on its topology, by the name in our registry."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax

import adozoo

Build = Callable[[int], Callable[[Any], optax.GradientTransformationExtraArgs]]


@functools.cache
def two_round_exponential(n: int) -> adozoo.Mixing:
    """The one-peer exponential graph with two rounds a step: node i averages with i - 2^k, then with i - 2^(k + 1)."""
    rounds = (n - 1).bit_length()
    shifts = [np.roll(np.eye(n), 2**k, axis=0) for k in range(rounds)]
    halves = [(np.eye(n) + shift) / 2 for shift in shifts]
    steps = rounds if rounds % 2 else max(rounds // 2, 1)
    products = [halves[(2 * t + 1) % rounds] @ halves[2 * t % rounds] for t in range(steps)]
    return adozoo.cycle([adozoo.mixing(product, require_connected=False) for product in products])
