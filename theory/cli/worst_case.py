"""python -m theory certify, tune: worst cases over all objectives of a class and all graphs of a gap."""

from typing import Annotated, Any

import numpy as np
from tyro.conf import arg

import adozoo
from adozoo.zoo import Entry
from theory import verdict
from theory.certificate import LARGEST, Certificate, worst_case_rate
from theory.cli import options
from theory.cli.options import Method, Reply, Settings
from theory.tuning import tune as search

Kappa = Annotated[float, arg(metavar="KAPPA")]
Sigma = Annotated[float, arg(metavar="SIGMA")]
Ranges = Annotated[tuple[str, ...], arg(name="range", metavar="NAME=LOW:HIGH [...]", help_behavior_hint="")]


def certify(
    method: Method,
    learning_rate: Annotated[float, arg(metavar="STEP")],
    kappa: Kappa = 10.0,
    sigma: Sigma = 0.3,
    settings: Settings = (),
    verify: bool = False,
    json: bool = False,
) -> Reply:
    """Certify the worst rate of a method over a class of objectives and graphs.

    The class: functions that are L-smooth and mu-strongly convex with L = 1 and mu = 1 / kappa, as different from node
    to node as can be, and doubly stochastic W_t with ||W_t - 11'/n|| <= sigma, another one in every step. The answer is
    a bracket: no member converges more slowly than the certified rate, and one is known that does so at the lower one.

    For example:

        python -m theory certify nids --learning-rate 1 --kappa 10 --sigma 0.3
        python -m theory certify svl --learning-rate 0.3 --set integral_gain=0.4 --verify

    Args:
      method: name in adozoo.zoo of an exact, linear method: diging, extra, nids, exact_diffusion, svl ...
      learning_rate: step size; L = 1.
      kappa: condition number L / mu.
      sigma: the largest ||W_t - 11'/n||, one minus the spectral gap; 0 is exact averaging.
      settings: hyper-parameters of the method.
      verify: prove the rate in exact rational arithmetic.
      json: print JSON.
    """
    entry = adozoo.zoo.entry(method)
    values = options.hyperparameters(entry, settings)
    mu = _strong_convexity(kappa)
    found = worst_case_rate(
        lambda mix: entry.build(learning_rate, mix, **values), mu, 1.0, _sigma(entry, sigma), entry.equal_start
    )
    data = {"method": entry.name, "learning_rate": learning_rate, "hyperparameters": values} | _data(found)
    pairs = [("method", f"{entry.title} ({entry.name})"), *_pairs(found)]
    holds = True
    if verify:
        proof = found.verify()
        holds = proof.holds
        data["proof"] = {"holds": proof.holds, "rate": proof.rate, "reason": proof.reason}
        pairs.append(("proof", f"{'holds' if proof else 'FAILS'}: {proof.reason}"))
    return options.reply(data, options.listing(pairs), json, holds)


def tune(
    method: Method,
    kappa: Kappa = 10.0,
    sigma: Sigma = 0.3,
    settings: Settings = (),
    ranges: Ranges = (),
    json: bool = False,
) -> Reply:
    """Find the step size, and the hyper-parameters, with the best certificate.

    The learning rate is searched between 1e-4 and 4 (L = 1), and so are the method's tunable hyper-parameters around
    their usual values, unless --set fixes them.

    For example:

        python -m theory tune extra --kappa 10 --sigma 0.4
        python -m theory tune svl --kappa 10 --sigma 0.5
        python -m theory tune svl --set integral_gain=0.4 --range learning_rate=0.1:1

    Args:
      method: name in adozoo.zoo of an exact, linear method: diging, extra, nids, exact_diffusion, svl ...
      kappa: condition number L / mu.
      sigma: the largest ||W_t - 11'/n||, one minus the spectral gap; 0 is exact averaging.
      settings: hyper-parameters to keep fixed.
      ranges: where to search, as NAME=LOW:HIGH.
      json: print JSON.
    """
    entry = adozoo.zoo.entry(method)
    fixed = options.hyperparameters(entry, settings)
    mu = _strong_convexity(kappa)
    where = {"learning_rate": (1e-4, 4.0)}
    where |= {name: (min(values) / 10, 2 * max(values)) for name, values in entry.search.items() if name not in fixed}
    for text in ranges:
        name, low, high = _range(entry, text)
        where[name] = (low, high)

    def build(mix: adozoo.Mixing, learning_rate: Any, **values: Any) -> Any:
        return entry.build(learning_rate, mix, **fixed, **values)

    parameters, found = search(build, mu, 1.0, _sigma(entry, sigma), where, entry.equal_start)
    data = {"method": entry.name, "parameters": parameters, "fixed": fixed} | _data(found)
    pairs = [("method", f"{entry.title} ({entry.name})")]
    for name, value in parameters.items():
        low, high = where[name]
        pairs.append((f"best {name}", f"{value:.6g}, out of [{low:g}, {high:g}]"))
    pairs += _pairs(found)
    return options.reply(data, options.listing(pairs), json)


def _strong_convexity(kappa: float) -> float:
    if not 1 <= kappa < np.inf:
        raise ValueError(f"--kappa: need a condition number L / mu of at least 1, got {kappa:g}.")
    return 1 / kappa


def _sigma(entry: Entry, sigma: float) -> float:
    if not 0 <= sigma <= 1:
        raise ValueError(f"--sigma: ||W - 11'/n|| lies in [0, 1], got {sigma:g}.")
    return 0.0 if entry.mixings == {"complete"} else sigma


def _range(entry: Entry, text: str) -> tuple[str, float, float]:
    name, _, bounds = text.partition("=")
    low, colon, high = bounds.partition(":")
    if name != "learning_rate":
        options.hyperparameters(entry, [f"{name}=0"])  # an unknown name is refused there
    try:
        return name, float(low), float(high if colon else "")
    except ValueError:
        raise ValueError(f"--range: expected NAME=LOW:HIGH with numbers, got {text!r}.") from None


def _data(found: Certificate) -> dict[str, Any]:
    return {
        "strong_convexity": found.strong_convexity,
        "smoothness": found.smoothness,
        "sigma": found.sigma,
        "rate": found.rate,
        "lower": found.lower,
        "steps_per_digit": verdict.steps_per_digit(found.rate),
        "converges": found.converges,
        "slowest_known": {"curvature": found.instance.curvature, "eigenvalues": found.instance.eigenvalues},
        "P": found.P,
        "Q": found.Q,
        "R": found.R,
    }


def _pairs(found: Certificate) -> list[tuple[str, str]]:
    modes = "the average over nodes"
    if found.instance.eigenvalues:
        modes = "W's eigenvalue " + ", then ".join(f"{value:.4g}" for value in found.instance.eigenvalues)
    outcome = {
        True: "converges, whatever the objectives and graphs of the class",
        False: "diverges on some objectives and graphs of the class",
        None: "may or may not converge on all of the class",
    }[found.converges]
    certified = options.rate_words(found.rate) if np.isfinite(found.rate) else f"none below {LARGEST:g}"
    return [
        ("class", f"mu = {found.strong_convexity:.6g}, L = {found.smoothness:g}, ||W_t - J|| <= {found.sigma:g}"),
        ("certified rate", certified),
        ("no better than", f"{found.lower:.9f}, on curvature {found.instance.curvature:.4g} and {modes}"),
        ("so the method", outcome),
    ]
