r"""RelaySGD (Vogels et al., NeurIPS 2021), appendix figure 9: estimating a mean that all workers sample.

In each step every worker draws a sample from N(1, 1). RelaySum on a chain: each adds up the sums that it is relayed,
and the counts, and estimates sum / count. Gossip on a ring: x <- W (x + (sample - x) / t), which is D-SGD with learning
rate 1 / t. Mean squared errors against steps beside 1 / (n t), which a worker that saw all samples at once would have.
Lines are the exact expectations,

    RelaySum  (1/n) \sum_i 1 / \sum_j max(t - \tau_ij, 0),        gossip  (1 / (n t^2)) \sum_{k=1}^t ||W^k||_F^2,

markers the simulation: 200 runs (2000 with --full) in place of 40.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import adozoo
import theory
from adozoo.exchange import OnLinks
from adozoo.relay import Relayed, relay
from experiments import figures

SIZES = (8, 16, 32, 64, 128)
STEPS, MEAN = 400, 1.0
# Error / (1 / (n t)) of one set of 40 runs of the authors' code, by n, at steps 10, 50, 100, 400.
AT = (10, 50, 100, 400)
PUBLISHED = {
    "RelaySum": {32: (2.8, 1.2, 0.9, 1.2), 128: (10.8, 3.3, 2.1, 0.8)},
    "gossip": {32: (5.3, 2.5, 2.1, 1.5), 128: (22.0, 11.9, 8.4, 3.9)},
}
METHODS = tuple(PUBLISHED)
LOOKS = {"RelaySum": figures.method("relay_sgd"), "gossip": figures.method("dsgd")}


def relayed(samples: jax.Array) -> jax.Array:
    """Squared errors [steps] of the estimates by RelaySum from samples [steps, n]."""
    n = samples.shape[1]
    links = adozoo.exchange(adozoo.graphs.path(n))
    nothing = jnp.zeros((n, 1))
    messages = links.per_link(nothing)
    start = Relayed(OnLinks(messages), OnLinks(jnp.zeros(messages.shape[0], jnp.int32)), ())

    def step(carry: tuple, now: tuple) -> tuple:
        state, total, count = carry
        sums, counts, state = relay(links, state, now[1][:, None], now[0])
        total, count = total + sums[:, 0], count + counts
        return (state, total, count), jnp.mean((total / count - MEAN) ** 2)

    carry = (start, jnp.zeros(n), jnp.zeros(n, jnp.int32))
    return jax.lax.scan(step, carry, (jnp.arange(len(samples)), samples))[1]


def gossiped(samples: jax.Array) -> jax.Array:
    """Squared errors [steps] of the estimates by gossip from samples [steps, n]."""
    steps, n = samples.shape
    tx = adozoo.dsgd(lambda step: 1 / (step + 1.0), adozoo.mixing(adozoo.graphs.ring(n)))

    def gradient(params: jax.Array, step: jax.Array, key: None) -> jax.Array:
        return params - samples[step][:, None]

    return adozoo.simulate(
        tx, gradient, jnp.zeros((n, 1)), steps, metrics=lambda params: jnp.mean((params - MEAN) ** 2)
    )[2]


@partial(jax.jit, static_argnames=("n", "steps", "runs"))
def errors(n: int, steps: int, runs: int) -> jax.Array:
    """Squared errors [method, run, step] of both methods on the same samples."""
    samples = MEAN + jax.random.normal(jax.random.key(n), (runs, steps, n))
    return jnp.stack([jax.vmap(method)(samples) for method in (relayed, gossiped)])


def expected(n: int, steps: int) -> np.ndarray:
    """The expectations of `errors`, [method, step], from delays and from powers of the mixing matrix."""
    times = np.arange(1, steps + 1)
    delays = theory.delay_matrix(adozoo.graphs.path(n))
    heard = np.maximum(times[:, None, None] - delays[None], 0).sum(axis=2)
    eigenvalues = np.linalg.eigvalsh(np.asarray(adozoo.weights.metropolis(adozoo.graphs.ring(n))))
    norms = np.sum(eigenvalues[None] ** (2 * times[:, None]), axis=1)
    return np.stack([(1 / heard).mean(axis=1), np.cumsum(norms) / (n * times**2)])


def compute(full: bool) -> xr.Dataset:
    return simulated(SIZES, STEPS, runs=2000 if full else 200)


def simulated(sizes: Sequence[int], steps: int, runs: int) -> xr.Dataset:
    """Means over runs and their standard errors, and the expectations."""
    found = np.stack([np.asarray(errors(n, steps, runs)) for n in sizes])
    dims = ("n", "algorithm", "step")
    return xr.Dataset(
        {
            "error": (dims, found.mean(2)),
            "standard_error": (dims, found.std(2, ddof=1) / np.sqrt(runs)),
            "expected": (dims, np.stack([expected(n, steps) for n in sizes])),
        },
        {"n": list(sizes), "algorithm": list(METHODS), "step": np.arange(1, steps + 1)},
        {"runs": runs},
    )


def draw(data: xr.Dataset) -> figures.Figure:
    sizes = data.n.values[::2]
    figure, axes = figures.panels(1, len(sizes), (3.0, 3.0), sharey=True, squeeze=False)
    shown = np.unique(np.round(np.geomspace(1, data.step.size, 14)).astype(int)) - 1
    for axis, n in zip(axes[0], sizes, strict=True):
        for name in METHODS:
            here, look = data.sel(n=n, algorithm=name), LOOKS[name]
            axis.plot(data.step, here.expected, color=look["color"])
            axis.plot(data.step[shown], here.error[shown], ls="", label=name, **look)
        axis.plot(data.step, 1 / (n * data.step), "--", color="0.4", lw=1, label=r"$1 / (n t)$")
        axis.set(xscale="log", yscale="log", xlabel="steps", title=f"{n} workers")
    axes[0, 0].set_ylabel("mean squared error")
    axes[0, 0].legend()
    return figure


def judge(data: xr.Dataset) -> list[figures.Claim]:
    ratio = data.error * data.n * data.step
    exact = data.expected * data.n * data.step
    sigmas = abs(data.error - data.expected) / data.standard_error
    ours, papers = {}, {}
    for name, rows in PUBLISHED.items():
        for n, values in rows.items():
            key = f"{name}, n = {n}, steps {', '.join(map(str, AT))}"
            ours[key], papers[key] = ratio.sel(algorithm=name, n=n, step=list(AT)).values, values
    near = [abs(np.log(np.divide(ours[key], papers[key]))).max() for key in ours]
    late = {int(n): float(exact.sel(algorithm="RelaySum", n=n)[-1]) for n in data.n}
    lagging = {int(n): float(exact.sel(algorithm="gossip", n=n)[-1]) for n in data.n}
    settled = {n: float(ratio.sel(algorithm="RelaySum", n=n, step=slice(4 * n, None)).mean()) for n in (8, 16, 32, 64)}
    quotient = data.expected.sel(algorithm="RelaySum") / data.expected.sel(algorithm="gossip")
    return [
        figures.Claim(
            "simulated errors are the expected ones (all steps, sizes and methods: within 5 standard errors)",
            bool(sigmas.max() <= 5),
            {"largest deviation in standard errors": float(sigmas.max()), "runs": int(data.attrs["runs"])},
        ),
        figures.Claim(
            "times n t, errors are those of the authors' code to a factor of 1.6 (two standard errors of 40 late runs)",
            bool(max(near) <= np.log(1.6)),
            ours,
            papers,
        ),
        figures.Claim(
            "RelaySum reaches 1 / (n t) once t exceeds the diameter by far: the mean ratio from t = 4 n on is at most "
            "1.25",
            max(settled.values()) <= 1.25,
            {f"n = {n}": value for n, value in settled.items()},
        ),
        figures.Claim(
            "gossip lags: after 400 steps its expected excess over 1 / (n t) is larger than RelaySum's, at each size",
            all(lagging[n] > late[n] for n in late),
            {f"n = {n}: RelaySum, gossip": (late[n], lagging[n]) for n in late},
        ),
        figures.Claim(
            "from the third step on RelaySum's expected error is below gossip's, at each size",
            bool((quotient.sel(step=slice(3, None)) < 1).all()),
            {f"n = {n}: quotient at steps 1, 2, 3": quotient.sel(n=n, step=[1, 2, 3]).values for n in data.n.values},
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
