"""W6: steps of PowerSGD and CHOCO-SGD on the tensors of a ResNet-20, beside plain PyTorch and a plain all-reduce."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adozoo
from benchmarks import peers
from benchmarks.report import Result
from benchmarks.timing import Cold, Spread, cold, take_turns

X64 = False
NODES, STEPS, THREADS = 16, 10, (1, 2)
LEARNING_RATE, MOMENTUM, RANK = 0.01, 0.9, 2
FRACTION, CONSENSUS_STEP = 0.01, 0.05
BITS, APART, TIPPED = "Mbit a node and step", "difference", "entries that tipped"


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of a ResNet-20 for 32 x 32 images: kernels [out, in, height, width], batch norms, a linear layer."""
    widths = [3, 16] + 6 * [16] + 6 * [32] + 6 * [64]
    found: dict[str, tuple[int, ...]] = {}
    for k, (before, after) in enumerate(itertools.pairwise(widths)):
        found |= {f"conv{k:02d}": (after, before, 3, 3), f"norm{k:02d}": (after,), f"norm{k:02d}bias": (after,)}
    return found | {"linear": (10, 64), "linearbias": (10,)}


def start(seed: int = 0) -> tuple[Any, Any]:
    """Params, the same at all nodes, and the optimum of each node: gradients are x - target."""
    rng = np.random.default_rng(seed)
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes().items()}
    targets = {name: rng.normal(size=(NODES, *shape)).astype(np.float32) for name, shape in shapes().items()}
    return adozoo.replicate(params, NODES), jax.tree.map(jnp.asarray, targets)


def power_sgd(learning_rate: Any, mean: Any) -> Any:
    after = optax.chain(adozoo.post_momentum(MOMENTUM), adozoo.descent(learning_rate))
    return adozoo.power_sgd(after, rank=RANK, mean=mean)


def choco(compressor: Any, learning_rate: Any, mix: Any) -> Any:
    return adozoo.choco_sgd(learning_rate, mix, compressor, CONSENSUS_STEP)


MEAN, RING = adozoo.exact_mean(NODES), adozoo.mixing(adozoo.graphs.ring(NODES))
METHODS: dict[str, tuple[str, Callable[[Any, Any], Any], Any]] = {
    "all_reduce": ("all-reduce SGD", partial(adozoo.all_reduce_sgd, momentum=MOMENTUM), MEAN),
    "power_sgd": (f"PowerSGD, rank {RANK}", power_sgd, MEAN),
    "dsgd": ("D-SGD, ring", adozoo.dsgd, RING),
    "top_k": (f"CHOCO-SGD, ring, top {FRACTION:.0%}", partial(choco, adozoo.compression.top_k(FRACTION)), RING),
    "scaled_sign": ("CHOCO-SGD, ring, scaled sign", partial(choco, adozoo.compression.scaled_sign()), RING),
}
BOTH = ("power_sgd", "top_k", "scaled_sign")


def program(method: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """`STEPS` whole steps, from given params, targets and step size."""
    _, factory, mix = METHODS[method]

    @jax.jit
    def steps(params: Any, targets: Any, learning_rate: Any) -> Any:
        tx = factory(learning_rate, mix)
        return adozoo.simulate(tx, lambda x, step, key: jax.tree.map(jnp.subtract, x, targets), params, STEPS)[0]

    return steps, (*start(), jnp.float32(LEARNING_RATE))


def case() -> dict[str, Any]:
    """The same for PyTorch, with the first factors of PowerSGD."""
    params, targets = start()
    factors = iter(power_sgd(LEARNING_RATE, MEAN).init(params)[0].factors)
    leaves = jax.tree.leaves(params)
    numbers = {
        "leaves": len(leaves),
        "steps": STEPS,
        "learning_rate": LEARNING_RATE,
        "momentum": MOMENTUM,
        "fraction": FRACTION,
        "consensus_step": CONSENSUS_STEP,
    }
    xs = {f"x{k}": np.asarray(x) for k, x in enumerate(leaves)}
    ts = {f"t{k}": np.asarray(t) for k, t in enumerate(jax.tree.leaves(targets))}
    qs = {f"q{k}": np.asarray(next(factors).q[0]) for k, x in enumerate(leaves) if x.ndim > 2}
    return numbers | xs | ts | qs


def run(quick: bool) -> Result:
    size = sum(map(math.prod, shapes().values()))
    result = Result(
        "W6: compressed steps",
        f"The {len(shapes())} tensors of a ResNet-20, {size} parameters, at {NODES} nodes, float32, with the gradient "
        f"x - target; {STEPS} whole steps in a call (in a scan; in PyTorch a loop), the time of a call divided by "
        f"them. Cold is the first call, not divided. PowerSGD: rank {RANK}, error feedback, warm start, momentum "
        f"{MOMENTUM:g} after the compression; all-reduce SGD: momentum {MOMENTUM:g}. {peers.TORCH} computes the same "
        "for all nodes at once and tensor by tensor, in a process of its own. The difference is that of its last "
        "iterates, relative to how far they went, in the Euclidean norm and without the entries that tipped: a sign, "
        "or a place among the largest, that rounding decides. Bits by `adozoo.channel.traffic`; an all-reduce is "
        "counted as 2 (n - 1) / n vectors a node.",
    )
    programs = {method: program(method) for method in METHODS}
    turns: dict[Any, Callable[[], Any]] = {method: partial(_call, *programs[method]) for method in METHODS}
    with peers.torch_steps(**case()) as torch:
        theirs = [(method, threads) for method in BOTH for threads in THREADS if torch]
        first = {each: Cold(torch.run(*each)) for each in theirs} if torch else {}
        taken = take_turns(turns | {each: partial(torch.run, *each) for each in theirs if torch}, 2 if quick else 7)
        last = torch.finish() if torch else {}
    times = {who: Spread.of(seconds, 1 / STEPS) for who, seconds in taken.items()}
    plain = times["all_reduce"].median
    for method, (title, factory, mix) in METHODS.items():
        own, params = times[method], programs[method][1][0]
        sent = adozoo.channel.traffic(partial(factory, LEARNING_RATE), mix, params).bits_per_node / 1e6
        start_up = cold("w6_compressed_steps", 1 if quick else 3, method=method)
        result.row(title, "adozoo", own, start_up, **{BITS: sent, "times all-reduce": own.median / plain})
        rivals = {threads: times[method, threads] for name, threads in theirs if name == method}
        for threads, spread in rivals.items():
            speed, slow = spread.median / own.median, first[method, threads].total / start_up.total
            more = {"times adozoo, warm": speed, "times adozoo, cold": slow}
            more |= {"times all-reduce": spread.median / plain} | _compared(method, turns[method](), params, last)
            result.row(title, f"{peers.TORCH}, threads: {threads}", spread, first[method, threads], **more)
            result.target(f"{title}: against {peers.TORCH}, threads: {threads}, warm", speed, least=1)
    if not theirs:
        result.row("PowerSGD and CHOCO-SGD", f"{peers.TORCH} ({peers.HOW_TO_GET_TORCH})")
    result.notes.append(NOTE)
    return result


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return jax.block_until_ready(function(*arguments))


def _compared(method: str, ours: Any, params: Any, last: dict[str, np.ndarray]) -> dict[str, Any]:
    """How far our last iterates are from PyTorch's.

    Raises:
      RuntimeError: if that is more than rounding.
    """
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(params), strict=True))
    theirs = [last[f"{method}{k}"].astype(np.float64) for k in range(len(pairs))]
    off = np.concatenate([np.ravel(x - y) for (x, _), y in zip(pairs, theirs, strict=True)])
    moved = np.concatenate([np.ravel(y - before) for (_, before), y in zip(pairs, theirs, strict=True)])
    tipped = np.abs(off) > 1e-4 * np.sqrt(np.mean(moved**2))
    apart = float(np.linalg.norm(off[~tipped]) / np.linalg.norm(moved))
    if apart > 1e-5 or tipped.mean() > 1e-4:
        raise RuntimeError(
            f"W6: {method} differs by {apart:.3g}, and in {tipped.sum()} of {tipped.size} entries altogether: the "
            "programs do not compute the same."
        )
    return {APART: apart, TIPPED: f"{tipped.sum()} of {tipped.size:.1e}"}


NOTE = """\
PyTorch's two threads wait for each other after every operation, so that other work on the same two cores costs it more
than its share: see the load, and the rows with one thread. PowerSGD's compile time is that of its 20 matrices, each
with products and a Gram-Schmidt of its own. Its nodes compute as nodes do, each the same P and P Q'; in PyTorch these
are computed once for all nodes. That the all-reduce takes longer than D-SGD is XLA's fusion of the mean with what it is
used for, by which every row computes it anew: as a product with a row of 1/n it took half the time. That is inferred
from this one change."""
