"""RelaySGD's figures on quadratics: the problems, the searches, and the runs that the authors' notebook prints."""

import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import references

import adozoo
from paper_figures.relaysgd import _curves, _quadratics, appendix_8, figure_2
from paper_figures.relaysgd._methods import GRAPHS, on, two_round_exponential

RECORDED = references.load("relay_figure_2")
RUNS = {
    "RelaySum/Model chain": ("relay_sgd", "chain"),
    "All-reduce": ("all_reduce", "ring"),
    "D2 ring": ("d2", "ring"),
    "Gradient tracking ring": ("gradient_tracking", "ring"),
    "RelaySum/Grad chain": ("relay_sgd_grad", "chain"),
    "Gossip ring": ("gossip", "ring"),
    "SGP time-varying (2 rounds)": ("push", "exponential"),
}


def relayed(tree, problem, rate, steps, gradients=False):
    """Means over nodes of both relays, from x_i = (1/n) sum_j z_j[t - tau_ij] and a list of all z."""
    delays = np.maximum(np.array(nx.floyd_warshall_numpy(tree), int) - 1, 0)
    n, sent = problem.n, []
    matrices, centers = np.array(problem.matrices), np.array(problem.centers)
    x = start = np.zeros(centers.shape)
    means = [x.mean(0)]
    for t in range(steps):
        step = -rate * np.einsum("nij,nj->ni", matrices, x - centers)
        sent.append(step if gradients else x + step)
        late = [[sent[t - delays[i, j]][j] if t >= delays[i, j] else start[j] for j in range(n)] for i in range(n)]
        x = np.mean(late, axis=1) + (x if gradients else 0)
        means.append(x.mean(0))
    return np.array(means)


@pytest.mark.parametrize("name", RUNS)
def test_runs_of_the_authors_simulator(name):
    """D2's matrix is moved by 1e-6, which moves its run by as much; all others agree to the digits recorded."""
    method, recorded = RUNS[name], RECORDED["runs"][name]
    problem = _quadratics.papers_problem(6, 0.01, 100.0)
    ours = np.array(_quadratics.curve(on(*method, 6), problem, recorded["lr"], 60))
    theirs = {int(step): error for step, error in recorded["suboptimality_of_mean"].items()}
    tolerance = 1e-4 if name.startswith("D2") else 2e-8
    np.testing.assert_allclose(ours[list(theirs)], list(theirs.values()), rtol=tolerance, atol=1e-12)


@pytest.mark.parametrize(
    ("key", "topology"), [("relay_sgd", "chain"), ("relay_sgd", "star"), ("relay_sgd_grad", "tree")]
)
def test_relays_deliver_after_as_many_steps_as_the_way_is_long(key, topology):
    problem, rate, steps = _quadratics.random_least_squares(7, 0.5, 3.0, seed=1), 0.2, 25
    means = relayed(GRAPHS[topology](7), problem, rate, steps, gradients=key.endswith("grad"))
    errors = [float(_quadratics.suboptimality(problem, jnp.asarray(mean)[None])) for mean in means]
    np.testing.assert_allclose(_quadratics.curve(on(key, topology, 7), problem, rate, steps), errors, rtol=1e-9)


ROWS = [row for row in RECORDED["rows"] if row[4] in figure_2.PAPERS_SIZES]
FEW = [row for row in ROWS if row[4] == 6 and (row[0] == 1 or (row[0] == 0.1 and row[2] != "tree"))]


def check_row(row):
    zeta2, distance, topology, algorithm, n, steps, noted = row
    kind = "exact" if distance == figure_2.DISTANCE["exact"] else "plateau"
    found = figure_2.tuned(f"{figure_2.PAPERS_NAMES[algorithm]} on {topology}", kind, n, zeta2, draws=0)
    used = noted * (2 if kind == "exact" or zeta2 == 0 else 1)
    assert found[:, 0] == pytest.approx([steps, used], rel=1e-8)


@pytest.mark.parametrize("row", FEW, ids=lambda row: "-".join(map(str, row[:5])))
def test_tuned_steps_and_learning_rates_are_the_published_ones(row):
    check_row(row)


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if row not in FEW], ids=lambda row: "-".join(map(str, row[:5])))
def test_more_published_rows(row):
    check_row(row)


def test_the_star_of_appendix_8():
    data = _curves.tuned(["relay_sgd on star", "d2 on star"], appendix_8.ZETAS)
    for curve in data.curve.values:
        steps, rates = appendix_8.PUBLISHED[curve]
        assert data.steps.sel(curve=curve).values.tolist() == list(steps)
        np.testing.assert_allclose(data.noted_rate.sel(curve=curve), rates, rtol=1e-6)


@pytest.mark.parametrize("zeta2", [0.0, 0.3])
def test_random_problems_are_as_they_should_be(zeta2):
    problem = _quadratics.random_least_squares(5, zeta2, 7.0, seed=3)
    assert float(problem.heterogeneity) == pytest.approx(zeta2, abs=1e-12)
    assert float(jnp.linalg.norm(problem.optimum)) == pytest.approx(7, rel=1e-12)
    spectra = np.linalg.eigvalsh(problem.matrices)
    np.testing.assert_allclose(spectra, np.tile(np.linspace(0.5, 1, _quadratics.DIM) ** 2, (5, 1)), rtol=1e-10)


def test_suboptimality_is_that_of_the_papers_objective():
    rng = np.random.default_rng(0)
    A, b, x = rng.normal(size=(4, 3, 3)), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))

    def objective(point):
        return np.sum((A @ point - b) ** 2) / 4

    best = np.linalg.lstsq(A.reshape(12, 3), b.ravel(), rcond=None)[0]
    problem = _quadratics.least_squares(A, b)
    np.testing.assert_allclose(problem.optimum, best, rtol=1e-9)
    ours = _quadratics.suboptimality(problem, jnp.asarray(x))
    assert float(ours) == pytest.approx(objective(x.mean(0)) - objective(best), rel=1e-9)
    gradients = np.einsum("nji,nj->ni", A, np.einsum("nij,nj->ni", A, x) - b)
    np.testing.assert_allclose(problem.gradient(jnp.asarray(x)), gradients, atol=1e-10)


@pytest.mark.parametrize("n", [4, 6, 12, 24])
def test_two_rounds_a_step_on_the_exponential_graph(n):
    mix, rounds, halvings = two_round_exponential(n), (n - 1).bit_length(), 0
    x = y = np.random.default_rng(n).normal(size=(n, 2))
    for step in range(2 * rounds):
        x = np.array(mix(jnp.asarray(x), step))
        for _ in range(2):
            y = (y + np.roll(y, 2 ** (halvings % rounds), axis=0)) / 2
            halvings += 1
        np.testing.assert_allclose(x, y, atol=1e-14)


def test_checks_are_at_every_step_first_and_then_ever_further_apart():
    steps = _quadratics.check_steps(20_000)
    assert steps[:60].tolist() == list(range(1, 61))
    assert steps[-1] < 20_000
    assert (np.diff(steps)[-100:] > 70).all()


def play(search, run):
    """Answer a search by run(learning rate, limit) until it returns."""
    asked, rates = next(search), []
    while True:
        rates.append(asked[0])
        try:
            asked = search.send(run(*asked))
        except StopIteration as answer:
            return answer.value, rates


def test_the_fastest_run_is_found_among_stable_ones():
    """Error (1 - rate)^(2 t), which falls below the target earliest at rate 1."""

    def run(rate, limit):
        if rate >= 2:
            return _quadratics.Outcome(_quadratics.UNSTABLE, 1, np.inf)
        with np.errstate(divide="ignore"):
            steps = max(1, int(np.ceil(np.log(1e-6) / (2 * np.log(abs(1 - rate))))))
        ended = _quadratics.REACHED if steps <= limit else _quadratics.SLOW
        return _quadratics.Outcome(ended, steps, 0.0)

    (steps, rate), rates = play(_quadratics.fastest(10.0), run)
    assert rates[:6] == [20, 10, 5, 2.5, 1.25, 0.625]
    assert steps == min(run(tried, np.inf).step for tried in rates if tried < 2) == run(rate, np.inf).step
    assert steps <= 5


def test_a_plateau_just_below_the_target_is_found():
    def run(rate, limit):
        if rate > 1:
            return _quadratics.Outcome(_quadratics.UNSTABLE, 1, np.inf)
        return _quadratics.Outcome(_quadratics.SETTLED, int(100 / rate), 1e-2 * rate**2)

    (steps, rate), _ = play(_quadratics.plateau(100.0, 1e-6), run)
    assert 1e-6 / 1.1 < 1e-2 * rate**2 < 1e-6
    assert steps == int(100 / rate)


def test_a_target_out_of_reach_is_said_to_be():
    def run(rate, limit):
        return _quadratics.Outcome(_quadratics.OUT_OF_STEPS, 0, 0.0)

    for search in (_quadratics.fastest(10.0), _quadratics.plateau(10.0, 1e-6)):
        (steps, rate), rates = play(search, run)
        assert (steps, rate) == (np.inf, np.inf)
        assert len(rates) <= 30


def test_noise_on_gradients_is_the_noise_given():
    problem, rate = _quadratics.random_least_squares(3, 0.1, 1.0, seed=0), 0.3
    noise = np.random.default_rng(1).normal(size=(4, 3, _quadratics.DIM))
    x = np.zeros((3, _quadratics.DIM))
    for t in range(4):
        x = np.mean(x - rate * (np.array(problem.gradient(jnp.asarray(x))) + noise[t]), axis=0)[None].repeat(3, 0)
    errors = _quadratics.curve(on("all_reduce", "ring", 3), problem, rate, 4, jnp.asarray(noise))
    assert float(errors[-1]) == pytest.approx(float(_quadratics.suboptimality(problem, jnp.asarray(x))), rel=1e-9)


def test_d2_is_refused_without_the_small_move():
    with pytest.raises(ValueError, match="-1/3"):
        adozoo.d2(0.1, adozoo.mixing(adozoo.graphs.ring(6)))
