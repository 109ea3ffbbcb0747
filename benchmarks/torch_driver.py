"""PowerSGD and CHOCO-SGD in plain PyTorch, as one writes them for simulated nodes: all nodes at once, tensor by tensor.

Runs in the peer's own Python, on the case that `benchmarks.peers` wrote. Each line of its input is a method and a
number of threads: it takes the method's steps, answers with the seconds they took, and leaves the last iterates behind.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

SMALLEST = 1e-30  # no column here is shorter


def orthonormal(p: torch.Tensor) -> torch.Tensor:
    """Gram-Schmidt from left to right, twice, as rounding may ask for."""
    columns: list[torch.Tensor] = []
    for column in p.unbind(1):
        rest = column
        for _ in range(2):
            for unit in columns:
                rest = rest - (unit @ rest) * unit
        columns.append(rest / rest.norm().clamp_min(SMALLEST))
    return torch.stack(columns, 1)


def power_sgd(xs: list[Any], targets: list[Any], factors: list[Any], steps: int, rate: float, decay: float) -> None:
    """In place. Matrices have a factor Q [b, r], the same for all nodes; other tensors have None."""
    errors = [None if q is None else torch.zeros_like(x).flatten(2) for x, q in zip(xs, factors, strict=True)]
    momenta, factors = [torch.zeros_like(x) for x in xs], list(factors)
    for _ in range(steps):
        for k, (x, target) in enumerate(zip(xs, targets, strict=True)):
            average = x - target
            if factors[k] is None:
                average = average.mean(0)
            else:
                delta = average.flatten(2).add_(errors[k])
                p = orthonormal((delta @ factors[k]).mean(0))
                own = delta.mT @ p
                factors[k] = own.mean(0)
                errors[k] = delta.sub_(p @ own.mT)
                average = (p @ factors[k].T).view(x.shape[1:])
            momenta[k].mul_(decay).add_(average)
            x.sub_(momenta[k] + average, alpha=rate)


def choco_sgd(xs: list[Any], targets: list[Any], send: Any, steps: int, rate: float, consensus_step: float) -> None:
    """In place, on a ring with weights 1/3. `send` adds what it compresses to the replica and to the weighted sum."""
    xs, targets = [x.flatten(1) for x in xs], [target.flatten(1) for target in targets]
    replicas, sums = ([torch.zeros_like(x) for x in xs] for _ in range(2))
    for _ in range(steps):
        for x, target, replica, total in zip(xs, targets, replicas, sums, strict=True):
            x.sub_(x - target, alpha=rate)
            send(x - replica, replica, total)
            x.add_(total - replica, alpha=consensus_step)


def top_k(fraction: float) -> Any:
    def send(v: torch.Tensor, replica: torch.Tensor, total: torch.Tensor) -> None:
        places = v.abs().topk(max(1, int(fraction * v.shape[1])), dim=1, sorted=False).indices
        values = v.gather(1, places)
        replica.scatter_add_(1, places, values)
        for shift in (-1, 0, 1):
            total.scatter_add_(1, places.roll(shift, 0), values.roll(shift, 0) / 3)

    return send


def scaled_sign(v: torch.Tensor, replica: torch.Tensor, total: torch.Tensor) -> None:
    scale = v.abs().mean(1, keepdim=True)
    sent = torch.where(v >= 0, scale, -scale)
    replica.add_(sent)
    total.add_((sent + sent.roll(1, 0) + sent.roll(-1, 0)) / 3)


def main(folder: Path) -> None:
    case = dict(np.load(folder / "case.npz"))
    start, targets = ([torch.from_numpy(case[f"{name}{k}"]) for k in range(int(case["leaves"]))] for name in "xt")
    factors = [torch.from_numpy(case[f"q{k}"]) if f"q{k}" in case else None for k in range(len(start))]
    steps, rate, consensus_step = int(case["steps"]), float(case["learning_rate"]), float(case["consensus_step"])
    methods = {
        "power_sgd": lambda xs: power_sgd(xs, targets, factors, steps, rate, float(case["momentum"])),
        "top_k": lambda xs: choco_sgd(xs, targets, top_k(float(case["fraction"])), steps, rate, consensus_step),
        "scaled_sign": lambda xs: choco_sgd(xs, targets, scaled_sign, steps, rate, consensus_step),
    }
    last: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for line in sys.stdin:
            method, threads = line.split()
            torch.set_num_threads(int(threads))
            before = time.perf_counter()
            xs = [x.clone() for x in start]
            methods[method](xs)
            print(time.perf_counter() - before, flush=True)
            last |= {f"{method}{k}": x.numpy() for k, x in enumerate(xs)}
    np.savez(folder / "result.npz", **last)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
