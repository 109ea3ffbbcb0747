"""D-SGD of small networks on digits in plain PyTorch, in the two forms in which nodes are simulated there.

"loop" is a module for each node, one after the other; "vmap" is `torch.func` over the stacked parameters of one. Runs
in the peer's own Python, on the case that `benchmarks.peers` wrote. Each line of its input is a form and a number of
threads: it takes all steps, answers with the seconds they took, and leaves the last iterates behind.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def network(name: str) -> nn.Module:
    if name == "mlp":
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def loop(name: str, start: list[Any], inputs: Any, labels: Any, drawn: Any, rate: float) -> list[Any]:
    nodes = [network(name) for _ in start[0]]
    with torch.no_grad():
        for i, node in enumerate(nodes):
            for own, value in zip(node.parameters(), start, strict=True):
                own.copy_(value[i])
    optimisers = [torch.optim.SGD(node.parameters(), lr=rate) for node in nodes]
    for rows in drawn:
        for node, optimiser, own in zip(nodes, optimisers, rows, strict=True):
            optimiser.zero_grad()
            functional.cross_entropy(node(inputs[own]), labels[own]).backward()
            optimiser.step()
        with torch.no_grad():
            for xs in zip(*(node.parameters() for node in nodes), strict=True):
                mixed = [(xs[i - 1] + x + xs[(i + 1) % len(xs)]) / 3 for i, x in enumerate(xs)]
                for x, new in zip(xs, mixed, strict=True):
                    x.copy_(new)
    return [torch.stack([x.detach() for x in xs]) for xs in zip(*(node.parameters() for node in nodes), strict=True)]


def stacked(name: str, start: list[Any], inputs: Any, labels: Any, drawn: Any, rate: float) -> list[Any]:
    one = network(name)
    names = [key for key, _ in one.named_parameters()]

    def loss(params: dict[str, Any], batch: Any, wanted: Any) -> Any:
        return functional.cross_entropy(torch.func.functional_call(one, params, (batch,)), wanted)

    gradient = torch.func.vmap(torch.func.grad(loss))
    params = dict(zip(names, (value.clone() for value in start), strict=True))
    for rows in drawn:
        found = gradient(params, inputs[rows], labels[rows])
        for key, x in params.items():
            x = x - rate * found[key]
            params[key] = (x + x.roll(1, 0) + x.roll(-1, 0)) / 3
    return list(params.values())


def accuracy(name: str, params: list[Any], inputs: Any, labels: Any) -> float:
    """Of the mean of all nodes' parameters."""
    one = network(name)
    with torch.no_grad():
        for own, value in zip(one.parameters(), params, strict=True):
            own.copy_(value.mean(0))
        return float((one(inputs).argmax(1) == labels).float().mean())


FORMS = {"loop": loop, "vmap": stacked}


def main(folder: Path) -> None:
    case = dict(np.load(folder / "case.npz"))
    start = [torch.from_numpy(case[f"x{k}"]) for k in range(int(case["leaves"]))]
    data = [torch.from_numpy(case[name]) for name in ("inputs", "labels", "drawn")]
    test = [torch.from_numpy(case[name]) for name in ("test_inputs", "test_labels")]
    last: dict[str, np.ndarray] = {}
    for line in sys.stdin:
        form, threads = line.split()
        torch.set_num_threads(int(threads))
        before = time.perf_counter()
        found = FORMS[form](str(case["model"]), start, *data, float(case["learning_rate"]))
        print(time.perf_counter() - before, flush=True)
        last |= {f"{form}{k}": x.numpy() for k, x in enumerate(found)}
        last[f"{form} accuracy"] = np.array(accuracy(str(case["model"]), found, *test))
    np.savez(folder / "result.npz", **last)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
