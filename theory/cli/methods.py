"""python -m theory rate, compare: what a method does on one problem over one graph."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tyro.conf import arg

import adozoo
from theory import linear, verdict
from theory.cli import options
from theory.cli.options import Instance, Method, Network, Reply, Settings
from theory.compare import compare as judge
from theory.observation import distance

Rate = Annotated[float, arg(metavar="STEP")]


def rate(
    method: Method,
    network: Network,
    instance: Instance,
    learning_rate: Rate = 0.1,
    settings: Settings = (),
    json: bool = False,
) -> Reply:
    """The exact linear rate of a method, read off its implementation, and where it converges to.

    The whole step is a map of (params, state), affine on quadratics and linearised at its fixed point elsewhere. Its
    spectral radius on what can be reached is the factor by which errors shrink in a step.

    For example:

        python -m theory rate extra --graph ring:16 --learning-rate 0.3
        python -m theory rate dsgd_atc --problem logistic --heterogeneity 2
        python -m theory rate svl --graph torus:4x4 --set integral_gain=0.4
        python -m theory rate nids --graph ring:10000 --problem common

    Args:
      method: name in adozoo.zoo, such as extra, diging, nids, svl, dsgd_atc.
      network: the graph.
      instance: the problem.
      learning_rate: step size; the problems have L = 1.
      settings: hyper-parameters of the method, such as integral_gain=0.4 for svl.
      json: print JSON.
    """
    entry = adozoo.zoo.entry(method)
    values = options.hyperparameters(entry, settings)
    mix = network.mixing(entry)
    problem = instance.build(mix.n)

    def factory(over: adozoo.Mixing) -> Any:
        return entry.build(learning_rate, over, **values)

    kept = linear.memory(factory, problem, mix)
    size = int(problem.dim * problem.n * (1 + kept.vectors) + problem.n * kept.scalars)
    conserved, bias = None, None
    if size <= linear.LARGE:
        found = linear.linearize(factory, problem, mix)
        factor, conserved, drift = found.rate, found.conserved, found.drift if found.drifts else 0.0
        bias = np.inf if drift else distance(found.params, adozoo.replicate(problem.optimum, problem.n))
    else:
        factor, drift = linear.exact_rate(factory, problem, mix), 0.0
    data = {
        "method": entry.name,
        "learning_rate": learning_rate,
        "hyperparameters": {**entry.hyperparameters, **values},
        "graph": network.graph,
        "nodes": mix.n,
        "problem": instance.problem,
        "strong_convexity": problem.strong_convexity,
        "smoothness": problem.smoothness,
        "heterogeneity": float(problem.heterogeneity),
        "rate": factor,
        "steps_per_digit": verdict.steps_per_digit(factor),
        "bias": bias,
        "drift": drift,
        "conserved": conserved,
        "vectors_kept": kept.vectors,
        "scalars_kept": kept.scalars,
        "vectors_sent": entry.vectors,
        "rounds": entry.rounds,
    }
    limit = f"not computed for {size} numbers of params and state; see theory.limit"
    if bias is not None:
        exact = bias <= 1e-7 * (1 + float(np.linalg.norm(problem.optimum)))
        limit = f"the optimum, to {bias:.1e}" if exact else f"a point at distance {bias:.6g} from the optimum"
    if drift:
        limit = f"none: a conserved quantity drifts by {drift:.3g} a period"
    pairs = [
        ("method", f"{entry.title} ({entry.name}): {entry.paper}"),
        ("problem", f"{instance.problem}, dimension {problem.dim}, condition number {instance.kappa:g}"),
        ("graph", f"{network.graph}, {mix.n} nodes" + ("" if entry.admits(mix) else " (not covered by its theory)")),
        ("learning rate", f"{learning_rate:g}" + "".join(f", {name} {value}" for name, value in values.items())),
        ("exact rate", options.rate_words(factor)),
        ("converges to" if factor < 1 else "fixed point", limit),
        ("conserved quantities", "not counted" if conserved is None else str(conserved)),
        ("kept by a node", f"{kept.vectors:g} vectors and {kept.scalars:g} numbers beside params"),
        ("sent over a link", f"{entry.vectors:g} vectors and {entry.scalars} numbers a step, rounds: {entry.rounds}"),
    ]
    return options.reply(data, options.listing(pairs), json)


def compare(
    method: Method,
    network: Network,
    instance: Instance,
    learning_rate: Rate = 0.1,
    settings: Settings = (),
    steps: Annotated[int | None, arg(metavar="N")] = None,
    plot: Annotated[Path | None, arg(metavar="FILE")] = None,
    json: bool = False,
) -> Reply:
    """Run a method, and set its measured rate beside the exact, certified and theorem rates.

    One line a claim: its rate, the steps that a digit takes at this rate, whether it holds, and how many times as many
    steps as needed a bound asks for. Below, in words, what was found; lines with ! contradict a claim, and then the
    exit status is 1.

    For example:

        python -m theory compare extra --graph ring:16 --learning-rate 0.3
        python -m theory compare diging --graph torus:4x4 --lazy --plot diging.png
        python -m theory compare dsgd_cta --problem logistic --json

    Args:
      method: name in adozoo.zoo, such as extra, diging, nids, svl, dsgd_atc.
      network: the graph.
      instance: the problem.
      learning_rate: step size; the problems have L = 1.
      settings: hyper-parameters of the method, such as integral_gain=0.4 for svl.
      steps: length of the run; by default as long as it takes to reach the rounding floor.
      plot: draw the run and all slopes into this file (PNG, PDF or SVG).
      json: print JSON.
    """
    entry = adozoo.zoo.entry(method)
    values = options.hyperparameters(entry, settings)
    mix = network.mixing(entry)

    def factory(over: adozoo.Mixing) -> Any:
        return entry.build(learning_rate, over, **values)

    found = judge(
        factory,
        instance.build(mix.n),
        mix,
        steps=steps,
        name=entry.name,
        learning_rate=learning_rate,
        parameters={**entry.hyperparameters, **values},
    )
    data, text = found.summary(), str(found)
    if plot is not None:
        found.plot().figure.savefig(plot, dpi=200)
        data, text = data | {"plot": str(plot)}, f"{text}\nPicture: {plot}"
    return options.reply(data, text, json, found.holds)
