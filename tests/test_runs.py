"""Runs of deep and convex tasks: stopped anywhere and resumed, they are the same bit for bit; lanes are runs."""

from dataclasses import replace

import cases
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adozoo
from experiments import runs, tasks, world
from experiments.checkpoints import Checkpoints
from experiments.settings import Run

SMALL = Run(task="digits/mlp:16", nodes=4, steps=6, records=2, batch=4, held_out=40, learning_rate=0.05)
CONVEX = Run(task="synthetic/quadratic", nodes=4, steps=8, records=2, batch=0, learning_rate=None)


def suited(run):
    """The run with a graph that its method admits, and a task that its oracle knows."""
    entry = run.entry
    if "tree" in entry.mixings:
        run = replace(run, graph="star")
    if entry.smallest_eigenvalue > -1:
        run = replace(run, weights="lazy_metropolis")
    if entry.oracle == "dual":
        run = replace(CONVEX, method=run.method, graph=run.graph, weights=run.weights, steps=run.steps)
    return run


def same(one, other):
    assert one.attrs == other.attrs
    for name in one:
        np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=name)


def check_resumes(run, folder, stops):
    straight = runs.execute([run])[0]
    for stop in stops:
        assert runs.execute([run], Checkpoints(folder), stop_after=stop) is None
    same(runs.execute([run], Checkpoints(folder))[0], straight)
    return straight


QUICK = ("diging", "relay_sgd_overlap", "acid", "gt_saga", "ssda")
EACH = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in cases.ENTRIES]


@pytest.mark.parametrize("name", EACH)
def test_k_and_k_steps_are_two_k_steps(name, tmp_path):
    """Bit for bit, for every registered method; with checkpoints on disk in between."""
    run = suited(replace(SMALL, method=name))
    data = check_resumes(run, tmp_path, [3])
    assert np.isfinite(data["validation"].values).all()


@pytest.mark.parametrize("name", ["dsgd_atc", pytest.param("relay_sgd", marks=pytest.mark.slow)])
def test_so_are_steps_with_noise_batch_norm_augmentation_and_averages(name, tmp_path):
    run = replace(SMALL, task="digits_images/cnn:4:8:batch", batch=2, nodes=2, steps=4, average=0.5, augment=True)
    run = suited(replace(run, method=name, batch_norm="gossiped", schedule="cosine", warmup=0.3, held_out=8))
    check_resumes(run, tmp_path, [1, 3])


def test_a_lane_is_a_run():
    lanes = [replace(SMALL, learning_rate=rate, seed=seed) for rate, seed in ((0.05, 0), (0.2, 0), (0.05, 1))]
    together = runs.execute(lanes)
    for run, data in zip(lanes, together, strict=True):
        alone = runs.execute([run])[0]
        np.testing.assert_allclose(data["validation_loss"], alone["validation_loss"], rtol=2e-5)
        assert data.attrs == alone.attrs
    assert not np.allclose(together[0]["validation_loss"], together[2]["validation_loss"])


def test_a_run_is_the_plain_loop():
    """D-SGD by hand, with a loop, optax and the task's own functions."""
    data = runs.execute([SMALL])[0]
    task = tasks.build(SMALL)
    tx = adozoo.dsgd(0.05, adozoo.mixing(adozoo.graphs.ring(4)))
    key = jax.random.key(0)
    params, stats = task.init(jax.random.fold_in(key, 0))
    params = adozoo.replicate(params, 4)
    state = tx.init(params)
    for k in range(6):
        drawn = task.draw(task.data, jax.random.fold_in(key, 1), jnp.full(4, k))
        _, grads, _ = task.gradient(
            task.data, params, stats, drawn, k, jax.random.fold_in(jax.random.fold_in(key, 2), k)
        )
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    mean = jax.tree.map(lambda x: x.mean(0)[None], params)
    judged = task.judge(task.data, mean, {}, "test")
    np.testing.assert_allclose(data["test_loss"][-1], judged["loss"][0], rtol=1e-5)
    np.testing.assert_allclose(data["consensus_distance"][-1], adozoo.consensus_distance(params), rtol=1e-4)
    each = [
        task.judge(task.data, jax.tree.map(lambda x, i=i: x[i][None], params), {}, "test")["metric"][0]
        for i in range(4)
    ]
    np.testing.assert_allclose(data["nodes"][-1], each, atol=1e-6)
    assert data["worst"][-1] == np.min(each)


def test_divergence_is_recorded_with_its_step():
    run = replace(CONVEX, method="dsgd_atc", learning_rate=1e30, steps=40)
    data = runs.execute([run, replace(run, learning_rate=0.5)])
    assert 0 <= data[0].attrs["diverged"] < 40
    assert data[1].attrs["diverged"] == -1
    assert np.isfinite(data[1]["validation"].values).all()


def test_suboptimality_is_that_of_the_problem_and_falls():
    run = replace(CONVEX, method="extra", steps=40)
    data = runs.execute([run])[0]
    problem = tasks.build(run).problem
    tx = adozoo.extra(1 / problem.smoothness, adozoo.mixing(adozoo.graphs.ring(4)))
    params, _, _ = adozoo.simulate(tx, problem.gradient, problem.init(), 40)
    expected = problem.loss(params.mean(0)) - problem.optimal_value
    np.testing.assert_allclose(data["test"][-1], expected, rtol=1e-9)
    assert data["test"][-1] < data["test"][0]


def test_a_text_of_ones_own_is_learned_character_by_character(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the nodes of a ring pass what they know to the left and to the right, again and again. " * 60)
    task = f"text:{path}/char_gpt:8:1:1"
    run = replace(SMALL, task=task, nodes=2, steps=20, learning_rate=0.5, evaluate="mean", held_out=8)
    data = runs.execute([run])[0]
    assert data.attrs["metric"] == "loss"
    assert data["test"][-1] < data["test"][0] < np.log(40)


def test_lanes_of_unlike_programs_are_refused():
    with pytest.raises(ValueError, match="lanes must agree"):
        runs.execute([SMALL, replace(SMALL, graph="star")])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"task": "digits"}, "expected DATA/MODEL"),
        ({"task": "digitz/mlp"}, "digits"),
        ({"task": "digits/mpl"}, "mlp"),
        ({"graph": "rnig"}, "ring"),
        ({"graph": "torus:3x3"}, "9 nodes, the run 4"),
        ({"method": "relay_sgd"}, "tree_of:ring"),
        ({"method": "d2"}, "smallest eigenvalue"),
        ({"method": "ssda"}, "dual"),
        ({"method": "extra", "churn": 0.2}, "come and go"),
        ({"method": "acid", "drops": 0.2}, "driven by events"),
        ({"graph": "one_peer_exponential", "churn": 0.2}, "is a schedule"),
        ({"learning_rate": None}, "no known smoothness"),
        ({"batch": 0}, "minibatches"),
        ({"cluster": "straggler:x"}, "straggler"),
        ({"partition": "dirichlet:0.1"}, "dirichlet_per"),
        ({"augment": True}, "images"),
        ({"stop_at": 1e-9, "stop_axis": "seconds"}, "not one step"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(changed, said):
    with pytest.raises(ValueError, match=said):
        runs.prepare(replace(SMALL, **changed))


def test_churn_and_drops_and_schedules_run():
    for changed in (
        {"churn": 0.3},
        {"drops": 0.3, "delay": 2},
        {"drops": 0.3, "noise": 0.001},
        {"graph": "one_peer_exponential"},
        {"graph": "random_matching:ring"},
        {"graph": "cycle:ring;star"},
    ):
        data = runs.execute([replace(SMALL, **changed)])[0]
        assert np.isfinite(data["validation"].values).all()


def test_a_budget_ends_runs_where_it_is_used_up():
    for axis in ("bits", "seconds", "joules"):
        whole = runs.execute([replace(SMALL, steps=12, records=12)])[0]
        budget = float(whole[axis][5])
        data = runs.execute([replace(SMALL, steps=12, records=6, stop_axis=axis, stop_at=budget * (1 + 1e-9))])[0]
        assert data["steps"][-1] == 6
        np.testing.assert_allclose(data["validation_loss"], whole["validation_loss"][:6], rtol=1e-6)


def test_networks_by_name():
    graph, mix = world.network("tree_of:torus:3x3", 9)
    assert (graph.number_of_edges(), mix.n) == (8, 9)
    with pytest.raises(ValueError, match="one_peer_exponential"):
        world.network("one_peer_exponentail", 8)


def test_a_compressor_is_chosen_by_name_and_paid_for():
    run = replace(SMALL, method="choco_sgd", records=1)
    some, few = (replace(run, hyperparameters={"compressor": text}) for text in ("top_k:0.5", "top_k:0.05"))
    some, few = (runs.execute([one])[0] for one in (some, few))
    assert few["bits"][-1] < 0.12 * some["bits"][-1]
    assert few["consensus_distance"][-1] > some["consensus_distance"][-1]
