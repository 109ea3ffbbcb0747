"""`python -m benchmarks [workload ...] [--quick]`."""

import argparse
import importlib
import os
import time

import jax

from benchmarks import report

WORKLOADS = {
    "w1": "w1_dgd",
    "w1-sweep": "w1_sweep",
    "w2": "w2_random_quadratics",
    "w3": "w3_digits",
    "w4": "w4_gossip_bandwidth",
    "w5": "w5_certificates",
    "w6": "w6_compressed_steps",
    "w7": "w7_relay_tree",
    "w8": "w8_events",
    "mixing": "mixing_cost",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast adozoo is, beside its peers.")
    parser.add_argument("workloads", nargs="*", metavar="workload", help=f"some of {', '.join(WORKLOADS)}; default all")
    parser.add_argument("--quick", action="store_true", help="smaller cases, fewer repeats; nothing is written")
    options = parser.parse_args()
    unknown = [name for name in options.workloads if name not in WORKLOADS]
    if unknown:
        parser.error(f"no workload is named {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    chosen = [name for name in WORKLOADS if name in options.workloads or not options.workloads]
    results = {}
    for i, name in enumerate(chosen, 1):
        print(f"[{i}/{len(chosen)}] {name} ...", end=" ", flush=True)
        start, load = time.perf_counter(), os.getloadavg()[0]
        module = importlib.import_module(f"benchmarks.{WORKLOADS[name]}")
        with jax.enable_x64(module.X64):
            results[name] = module.run(options.quick)
        results[name].load = load
        missed = sum(target["holds"] is False for target in results[name].targets)
        targets = f"{missed} of {len(results[name].targets)} targets missed"
        print(f"{time.perf_counter() - start:.0f} s, {targets}", flush=True)
        if not options.quick:
            report.save({name: results[name]}, list(WORKLOADS))
        print("\n".join(["", *report.text(results[name]), ""]), flush=True)


if __name__ == "__main__":
    main()
