"""How fast adozoo is, beside what researchers use instead: one workload a file, run by `make bench`.

`python -m benchmarks` runs all, `python -m benchmarks w1 w4` some; `--quick` shrinks them and writes nothing. A full
run of a workload replaces its part of `benchmarks/results.json`, from which `benchmarks/RESULTS.md` is written.

Warm: the call repeated in one process, contenders taking turns, so that what else the machine does befalls all of them;
minimum, median and maximum are given and ratios are of medians. Cold: tracing, compiling and the first run in a process
of its own, without imports and without making the data. The step size is traced and results are waited for.
"""
