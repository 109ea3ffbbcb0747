"""DGD by decent-bench's public interface, on the case that `benchmarks.peers` wrote. Runs in the peer's own Python."""

import sys
import time
from pathlib import Path

import networkx as nx
import numpy as np
from decent_array.interoperability import from_numpy, to_numpy
from decent_array.types import Devices, Frameworks
from decent_bench import benchmark
from decent_bench.agents import Agent
from decent_bench.algorithms.p2p import DGD
from decent_bench.costs import L2RegularizerCost, LogisticRegressionCost
from decent_bench.networks import P2PNetwork


def main(folder: Path) -> None:
    case = np.load(folder / "case.npz")
    benchmark.configure(Frameworks.NUMPY, Devices.CPU, seed=0, log_level=40)  # without it "No backend active"
    steps = int(case["steps"])

    def agent(features: np.ndarray, labels: np.ndarray) -> Agent:
        samples = zip(features, labels[:, None], strict=True)
        fit = LogisticRegressionCost([(from_numpy(row), from_numpy(label)) for row, label in samples])
        # One snapshot at the end: the run alone is timed, not the recording of it.
        return Agent(fit + float(case["l2"]) * L2RegularizerCost(fit.shape), state_snapshot_period=steps)

    agents = [agent(*data) for data in zip(case["features"], case["labels"], strict=True)]
    problem = benchmark.BenchmarkProblem(P2PNetwork(nx.cycle_graph(len(agents)), agents))
    seconds = []
    for _ in range(int(case["repeats"])):
        algorithm = DGD(step_size=float(case["learning_rate"]))
        start = time.perf_counter()
        result = benchmark.benchmark([algorithm], problem, steps, progress_step=None)
        seconds.append(time.perf_counter() - start)
    # An exception inside a trial is swallowed and leaves the start: the caller compares these iterates with its own.
    x = np.stack([to_numpy(a.x) for a in result.states[algorithm][0].agents()])
    np.savez(folder / "result.npz", seconds=seconds, x=x)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
