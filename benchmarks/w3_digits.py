"""W3: D-SGD of small networks on digits at 16 nodes, beside PyTorch as one writes it, and a process a node."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import adozoo
from benchmarks import peers
from benchmarks.report import Result
from benchmarks.timing import Spread, cold, take_turns
from experiments import runs, tasks
from experiments.settings import Run

X64 = False
STEPS, NODES, LANES, THREADS, RATE = 200, 16, 32, (1, 2), 0.2
CHECKED = 20
RUN = Run(
    nodes=NODES, graph="ring", batch=16, steps=STEPS, learning_rate=RATE, evaluate="mean", records=1, method="dsgd_atc"
)
DRIVER = Path(__file__).with_name("torch_digits_driver.py")


@dataclass(frozen=True)
class Network:
    """Its title, its task, how often it is faster than PyTorch's loop, and how our leaves become PyTorch's."""

    title: str
    task: str
    least: float
    order: tuple[str, ...]
    image: tuple[int, ...]


NETWORKS = {
    "mlp": Network("MLP 64-64-10", "digits/mlp", 25, ("linear0", "linear1"), (64,)),
    "cnn": Network("CNN 16-32", "digits_images/cnn", 4, ("convolution0", "convolution1", "head"), (1, 8, 8)),
}
FORMS = {"loop": "a loop over 16 modules", "vmap": "torch.func.vmap"}
WARM, COLD, AGAINST = "times adozoo, warm", "times adozoo, cold", "times adozoo, simulate"


def settings(network: str, lanes: int = 1) -> list[Run]:
    """Lanes differ in learning rate: the first has that of W3."""
    run = replace(RUN, task=NETWORKS[network].task)
    return [replace(run, learning_rate=RATE * 0.95**k) for k in range(lanes)]


def program(network: str, way: str, lanes: int = 1, steps: int = STEPS) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """All steps by "execute", the evaluation of the last iterates included, or by "simulate" on given samples."""
    if way == "execute":
        return runs.execute, (settings(network, lanes),)
    task = tasks.build(settings(network)[0])
    mix = adozoo.mixing(adozoo.graphs.ring(NODES))

    @jax.jit
    def dsgd(params: Any, drawn: Any, data: Any, learning_rate: Any) -> Any:
        def gradient(x: Any, step: Any, key: Any) -> Any:
            return task.gradient(data, x, {}, drawn[step], step, jax.random.key(0))[1]

        return adozoo.simulate(adozoo.dsgd(learning_rate, mix), gradient, params, steps)[0]

    return dsgd, (*start(task), task.data, jnp.float32(RATE))


def start(task: tasks.Task) -> tuple[Any, Any]:
    """The params that a run of seed 0 starts from, and the samples [steps, n, batch] that its steps take."""
    key = jax.random.key(RUN.seed)
    params, _ = task.init(jax.random.fold_in(key, 0))
    counts = jnp.broadcast_to(jnp.arange(STEPS)[:, None], (STEPS, NODES))
    drawn = jax.vmap(lambda count: task.draw(task.data, jax.random.fold_in(key, 1), count))(counts)
    return adozoo.replicate(params, NODES), drawn


def case(network: str, task: tasks.Task) -> dict[str, Any]:
    """The same for PyTorch."""
    params, drawn = start(task)
    leaves = in_torch(network, params)
    image = NETWORKS[network].image
    parts: dict[str, Any] = {}
    for part, prefix in (("train", ""), ("test", "test_")):
        inputs, labels = (np.asarray(x) for x in task.data[part])
        parts[f"{prefix}inputs"] = inputs.astype(np.float32).reshape(len(inputs), *image)
        parts[f"{prefix}labels"] = labels.astype(np.int64)
    return (
        {
            "model": network,
            "leaves": len(leaves),
            "learning_rate": RATE,
            "drawn": np.asarray(drawn, np.int64),
        }
        | parts
        | {f"x{k}": leaf for k, leaf in enumerate(leaves)}
    )


def in_torch(network: str, params: Any) -> list[np.ndarray]:
    """Stacked params as PyTorch's layers hold them: outputs first, and channels before pixels."""
    found = []
    for name in NETWORKS[network].order:
        kernel, bias = (np.asarray(params[name][part]) for part in ("kernel", "bias"))
        if name == "head":
            pixels = math.isqrt(kernel.shape[1] // 32)
            kernel = kernel.reshape(len(kernel), pixels, pixels, 32, -1).transpose(0, 4, 3, 1, 2)
            kernel = kernel.reshape(*kernel.shape[:2], -1)
        else:
            kernel = np.moveaxis(kernel, (-1, -2), (1, 2)) if kernel.ndim == 5 else kernel.transpose(0, 2, 1)
        found += [np.ascontiguousarray(kernel), bias]
    return found


def run(quick: bool) -> Result:
    result = Result(
        "W3: D-SGD of small networks on digits",
        f"n = {NODES} on a ring (weights 1/3), {STEPS} steps of batches of {RUN.batch}, learning rate "
        f"{RATE:g}, float32. `simulate` is one jitted `adozoo.simulate` with the stacked gradient, on "
        "samples that are given, as they are to PyTorch; `runs.execute` draws them itself, evaluates the mean model at "
        f"the end and adds up what the run costs. {peers.TORCH} has a process of its own. The difference is that of "
        f"the iterates after {CHECKED} steps, relative to how far they went. Accuracies are of the mean model on test "
        "samples.",
    )
    for network in NETWORKS:
        _network(result, network, quick)
    result.notes.append(NOTE)
    return result


def _network(result: Result, network: str, quick: bool) -> None:
    case_title, least = NETWORKS[network].title, NETWORKS[network].least
    task = tasks.build(settings(network)[0])
    bare = program(network, "simulate")
    ours: dict[Any, Callable[[], Any]] = {
        "simulate": lambda: jax.block_until_ready(bare[0](*bare[1])),
        "execute": lambda: runs.execute(settings(network)),
    }
    sweep = {"sweep": lambda: runs.execute(settings(network, LANES))}
    given, counts = case(network, task), THREADS[:1] if quick else THREADS
    with peers.torch_steps(DRIVER, **given) as torch:
        theirs = [(form, threads) for form in FORMS for threads in counts] if torch else []
        turns = ours | {each: partial(torch.run, *each) for each in theirs if torch}
        taken = take_turns(turns, 1 if quick else 7) | take_turns(sweep, 1 if quick else 3)
        last = torch.finish() if torch else {}
    times = {who: Spread.of(seconds) for who, seconds in taken.items()}
    own, params = times["execute"], ours["simulate"]()
    executed = float(runs.execute(settings(network))[0]["test"][-1])  # type: ignore[index]
    accuracy = _accuracy(task, params)
    _agree("runs.execute", abs(accuracy - executed), 0.003)
    for who, found in (("simulate", accuracy), ("execute", executed)):
        first = cold("w3_digits", 1 if quick else 3, network=network, way=who)
        title = "adozoo, `simulate`" if who == "simulate" else "adozoo, `runs.execute`"
        result.row(case_title, title, times[who], first, accuracy=found)
    per = times["sweep"].median / own.median
    result.row(case_title, f"adozoo, `runs.execute` of {LANES} lanes", times["sweep"], **{"times one run": per})
    apart = _apart(network, given) if theirs else {}
    for form, threads in theirs:
        spread = times[form, threads]
        reached = float(last[f"{form} accuracy"])
        _agree(f"{peers.TORCH}, {form}, in accuracy,", abs(reached - executed), 0.02)
        more: dict[str, Any] = {WARM: spread.median / own.median, AGAINST: spread.median / times["simulate"].median}
        more |= {"accuracy": reached, f"difference after {CHECKED} steps": apart[form]}
        result.row(case_title, f"{peers.TORCH}, {FORMS[form]}, threads: {threads}", spread, **more)
    if not theirs:
        result.row(case_title, f"{peers.TORCH} ({peers.HOW_TO_GET_TORCH})")
    loop = min((times["loop", threads].median for threads in counts), default=None) if theirs else None
    for who in ("simulate", "execute"):
        speed = loop / times[who].median if loop else None
        result.target(f"{case_title}: `{who}` against {peers.TORCH}'s loop, the faster, warm", speed, least=least)
    result.target(f"{case_title}: {LANES} lanes against one run", per, most=12)
    if network == "mlp":
        _processes(result, task, given, own, quick)


def _processes(result: Result, task: tasks.Task, given: dict[str, Any], own: Spread, quick: bool) -> None:
    """decent-dp, whose starts count: a run of it is 16 processes."""
    found = [peers.decent_dp(NODES, **given) for _ in range(1 if quick else 3)]
    title, wall = f"{peers.DECENT_DP}, {NODES} processes", None
    if found[0] is None:
        result.row(NETWORKS["mlp"].title, f"{title} (not available: needs a package index)")
    else:
        done = [each for each in found if each is not None]
        loops = Spread.of([float(last["seconds"]) for _, last in done])
        spread = Spread.of([seconds for seconds, _ in done])
        wall, last = spread.median / own.median, done[0][1]
        stacked = {
            name: {"kernel": jnp.asarray(last[f"x{2 * k}"].T)[None], "bias": jnp.asarray(last[f"x{2 * k + 1}"])[None]}
            for k, name in enumerate(NETWORKS["mlp"].order)
        }
        for what, each in (("from start to end", spread), ("its loop", loops)):
            ratio: dict[str, Any] = {WARM: each.median / own.median, "accuracy": _accuracy(task, stacked)}
            result.row(NETWORKS["mlp"].title, f"{title}, {what}", each, **ratio)
    result.target(f"{NETWORKS['mlp'].title}: against {peers.DECENT_DP} from start to end", wall, least=1000)


def _accuracy(task: tasks.Task, params: Any) -> float:
    mean = jax.tree.map(lambda x: x.mean(0, keepdims=True), params)
    # The judge wants a model besides the first for its ensemble.
    both = jax.tree.map(lambda x: jnp.concatenate([x, x]), mean)
    return float(task.judge(task.data, both, {}, "test")["metric"][0])


def _apart(network: str, given: dict[str, Any]) -> dict[str, float]:
    """How far PyTorch's iterates are from ours after the first steps, relative to how far they went, by its forms.

    Later on rounding decides which of two equal pixels is the larger one, and grows.
    """
    given = given | {"drawn": given["drawn"][:CHECKED]}
    function, arguments = program(network, "simulate", steps=CHECKED)
    ours = in_torch(network, function(*arguments))
    with peers.torch_steps(DRIVER, **given) as torch:
        assert torch is not None
        for form in FORMS:
            torch.run(form, 1)
        last = torch.finish()
    found = {}
    for form in FORMS:
        pairs = [(x, last[f"{form}{k}"], given[f"x{k}"]) for k, x in enumerate(ours)]
        off = sum(float(np.sum((x - y) ** 2)) for x, y, _ in pairs)
        found[form] = math.sqrt(off / sum(float(np.sum((y - before) ** 2)) for _, y, before in pairs))
        _agree(f"{peers.TORCH}, {form},", found[form], 1e-4)
    return found


def _agree(who: str, apart: float, most: float) -> None:
    if not apart <= most:
        raise RuntimeError(f"W3: {who} differs by {apart:.3g}: the programs do not compute the same.")


NOTE = """\
decent-dp's ring is another: a matching in each step, in turns, with weights of one half. Its time from start to end is
that of `python -m torch.distributed.run`, imports included, and is compared with a warm call here."""
