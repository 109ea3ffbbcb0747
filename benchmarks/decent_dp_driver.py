"""D-SGD of the network 64-64-10 on digits by decent-dp, a process a node: run by `torch.distributed.run`.

On the case that `benchmarks.peers` wrote. The topology is decent-dp's ring: a matching in each step, of even and of odd
links in turns, with weights of one half. Process 0 leaves behind how long the loop took and the mean of all models.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from decent_dp.ddp import DecentralizedDataParallel
from decent_dp.utils import initialize_dist
from torch import nn
from torch.nn import functional


def main(folder: Path) -> None:
    rank, nodes = initialize_dist()
    torch.set_num_threads(1)
    case = np.load(folder / "case.npz")
    inputs, labels = (torch.from_numpy(case[name]) for name in ("inputs", "labels"))
    drawn, rate = torch.from_numpy(case["drawn"][:, rank]), float(case["learning_rate"])
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    with torch.no_grad():
        for k, own in enumerate(model.parameters()):
            own.copy_(torch.from_numpy(case[f"x{k}"][rank]))
    wrapped = DecentralizedDataParallel(
        model, optim_fn=lambda named: torch.optim.SGD([x for _, x in named], lr=rate), topology="ring"
    )
    dist.barrier()
    before = time.perf_counter()
    wrapped.train()
    for rows in drawn:
        wrapped.zero_grad()
        functional.cross_entropy(wrapped(inputs[rows]), labels[rows]).backward()
    dist.barrier()
    seconds = time.perf_counter() - before
    wrapped.eval()
    means = []
    for x in model.parameters():
        total = x.detach().clone()
        dist.all_reduce(total)
        means.append(total.numpy() / nodes)
    if rank == 0:
        np.savez(folder / "result.npz", seconds=seconds, **{f"x{k}": x for k, x in enumerate(means)})
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
