"""The command line, called in-process; each answer is checked against the library or a closed form."""

import json
import subprocess
import sys

import numpy as np
import pytest

import adozoo
import theory
from theory import cli

pytest.importorskip("tyro")
from theory.cli import options, theorems  # after the check for tyro


@pytest.fixture
def run(capsys):
    """Run a command line; returns (status, standard output, standard error)."""

    def call(line):
        status = cli.main(line.split())
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def value(text, name):
    """What stands behind a name in aligned lines."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return line[len(name) :].strip()


def test_the_program_explains_itself():
    shown = subprocess.run([sys.executable, "-m", "theory", "--help"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    for word in (*cli.COMMANDS, "examples:", "python -m theory rate --help", "exact_diffusion"):
        assert word in shown.stdout


def test_without_a_command_it_explains_itself(run):
    assert run("")[:2] == (0, cli.overview() + "\n")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_with_examples(run, command):
    status, out, err = run(f"{command} --help")
    assert (status, err) == (0, "")
    assert "For example:" in out
    assert out.count(f"python -m theory {command} ") >= 3
    assert "--json" in out
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rat extra", "no command is called 'rat'. Did you mean 'rate'?"),
        ("xyz", "There are spectrum, rate"),
        ("rate extr", "no method is called 'extr'. Did you mean extra"),
        ("rate extra --graph rng:5", "Did you mean 'ring'?"),
        ("rate svl --set integral_gan=0.4", "Did you mean 'integral_gain'?"),
        ("rate svl --set integral_gain", "expected NAME=VALUE"),
        ("rate extra --set momentum=0.5", "extra has no hyper-parameter 'momentum'. It has none."),
        ("rate extra --kappa 1", "condition number L / mu above 1"),
        ("rate extra --dim 0", "dimension of at least 1"),
        ("rate extra --heterogeneity -1", "a number of at least 0"),
        ("rate extra --learning-rate -1", "learning_rate must lie in (0, inf)"),
        ("certify dsgd_atc --learning-rate 0.1", "the method is not exact"),
        ("certify extra --learning-rate 0.1 --sigma 2", "lies in [0, 1]"),
        ("certify extra --learning-rate 0.1 --kappa 0.5", "at least 1, got 0.5"),
        ("tune extra --range learning_rate=1", "expected NAME=LOW:HIGH"),
        ("tune svl --range gain=0.1:1", "svl has no hyper-parameter 'gain'. It has integral_gain."),
        ("bounds nid", "no bound is called 'nid'. Did you mean nids"),
        ("bounds nids --method extra", "'nids' is no theorem on extra"),
        ("bounds nids --falsify 0", "a positive number of instances"),
        ("spectrum ring:x", "'ring:x' does not fit"),
    ],
)
def test_errors_are_one_line(run, line, words):
    status, out, err = run(line)
    assert status == 2
    assert out == ""
    assert err.startswith("python -m theory")
    assert words in err
    assert err.count("\n") == 1


def test_misspelt_options_are_answered_by_the_nearest(run):
    status, _, err = run("rate extra --grap ring:4")
    assert status == 2
    assert "--graph" in err


def test_without_tyro_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert run("rate extra")[::2] == (2, "python -m theory: the command line needs tyro: pip install 'adozoo[cli]'.\n")


def test_spectrum_of_a_ring(run):
    status, out, _ = run("spectrum ring:8 --decays 0.5")
    assert status == 0
    assert value(out, "graph") == "ring:8: 8 nodes, 8 links, degree 2"
    second = (1 + 2 * np.cos(np.pi / 4)) / 3
    assert value(out, "eigenvalues of W") == f"lambda_2 = {second:.9g}, lambda_n = -0.333333333, 5 distinct"
    assert float(value(out, "spectral gap")) == pytest.approx(1 - second, rel=1e-8)
    assert value(out, "relaxation time").startswith(f"{1 / (1 - second):.6g} steps")
    assert value(out, "gap, n large") == "4*pi**2/(3*n**2)"
    eigenvalues = (1 + 2 * np.cos(2 * np.pi * np.arange(8) / 8)) / 3
    neighbors = 2 / np.mean(eigenvalues**2 / (1 - 0.5 * eigenvalues**2))
    assert float(value(out, "n_W(0.5)")) == pytest.approx(neighbors, rel=1e-8)
    chi_1 = 1 / (2 - 2 * np.cos(np.pi / 4))  # R of a link is (n - 1) / n
    assert value(out, "chi, rate 1 a link") == f"chi_1 = {chi_1:.9g}, chi_2 = {7 / 16:.9g}"


def test_spectrum_as_json(run):
    data = json.loads(run("spectrum star:10 --lazy --decays 0.8 --json")[1])
    assert data["sigma"] == pytest.approx(0.95)
    assert (data["smallest_degree"], data["largest_degree"], data["links"]) == (1, 9, 9)
    assert data["closed_form"] is None  # the formulas are for W, not (I + W) / 2
    assert data["kirchhoff_index"] == pytest.approx(81)
    assert data["effective_neighbors"].keys() == {"0.8"}


def test_spectrum_of_a_directed_graph_is_of_singular_values(run):
    data = json.loads(run("spectrum exponential:8 --json")[1])
    assert data["sigma"] == pytest.approx(0.5)
    assert (data["largest_degree"], data["directed"]) == (3, True)
    assert "lambda_2" not in data
    assert "chi" not in data
    assert "ceiling" in data["closed_form"]["gap_of_n"]


def test_spectrum_beyond_dense_matrices(run, monkeypatch):
    monkeypatch.setattr("theory.cli.graph.DENSE_LIMIT", 5)
    data = json.loads(run("spectrum ring:12 --json")[1])
    assert data["gap"] == pytest.approx(2 * (1 - np.cos(np.pi / 6)) / 3)
    assert "mixing_time" not in data


def test_formulas_of_n_are_not_shown_for_unequal_sides(run):
    assert json.loads(run("spectrum torus:3x4 --json")[1])["closed_form"].keys() == {"gap"}
    assert json.loads(run("spectrum path:2 --json")[1])["closed_form"] is None


def test_rate(run):
    status, out, _ = run("rate extra --graph ring:5 --dim 2 --kappa 4 --seed 3 --learning-rate 0.4")
    assert status == 0
    problem = adozoo.problems.random_quadratic(5, 2, 0.25, seed=3)
    mix = adozoo.mixing(adozoo.graphs.ring(5))
    exact = theory.exact_rate(lambda mix: adozoo.extra(0.4, mix), problem, mix)
    assert value(out, "exact rate").startswith(f"{exact:.9f} a step")
    assert value(out, "converges to").startswith("the optimum")
    assert value(out, "conserved quantities") == "2"
    assert value(out, "kept by a node").startswith("1 vectors and 0 numbers")


def test_rate_as_json_without_a_jacobian(run, monkeypatch):
    monkeypatch.setattr("theory.linear.LARGE", 10)
    data = json.loads(run("rate dsgd_cta --graph ring:300 --dim 1 --problem common --json --set momentum=0.0")[1])
    assert data["rate"] == pytest.approx(0.99)  # 1 - learning_rate * mu
    assert data["bias"] is None
    assert data["hyperparameters"]["momentum"] == 0.0


def test_rate_of_what_diverges_on_logistic_regression(run):
    _, out, _ = run("rate dsgd_cta --problem logistic --graph star:4 --dim 1 --learning-rate 50 --heterogeneity 0.1")
    problem = options.Instance("logistic", 1, 10.0, 0.1, 0).build(4)
    assert problem.constants == pytest.approx((0.1, 1.0))
    assert value(out, "exact rate").endswith("does not converge")
    assert value(out, "fixed point").startswith("a point at distance")


def test_certify_with_proof(run):
    status, out, _ = run("certify nids --learning-rate 1 --kappa 10 --sigma 0.3 --verify")
    assert status == 0
    assert float(value(out, "certified rate").split()[0]) == pytest.approx(0.9, abs=1e-5)  # 1 - mu / L
    assert value(out, "proof").startswith("holds")
    assert value(out, "no better than").startswith("0.900000000, on curvature 0.1")


def test_certify_as_json(run):
    data = json.loads(run("certify svl --learning-rate 0.3 --set integral_gain=0.4 --json")[1])
    assert data["lower"] <= data["rate"]
    assert data["converges"] is True
    assert np.linalg.eigvalsh(data["Q"]).min() > 0


def test_a_certificate_of_divergence(run):
    status, out, _ = run("certify diging --learning-rate 3 --sigma 0.9")
    assert status == 0
    assert value(out, "certified rate").endswith("does not converge")
    assert value(out, "so the method").startswith("diverges")


def test_tune(run):
    data = json.loads(run("tune nids --kappa 4 --sigma 0.2 --range learning_rate=0.2:2 --json")[1])
    best = data["parameters"]["learning_rate"]
    rates = [
        theory.worst_case_rate(lambda mix, step=step: adozoo.nids(step, mix), 0.25, 1.0, 0.2).rate
        for step in (0.98 * best, best, 1.02 * best)
    ]
    assert rates[1] == pytest.approx(data["rate"], abs=1e-6)
    assert rates[1] < min(rates[0], rates[2])


def test_compare_with_a_picture(run, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "run.png"
    status, out, _ = run(f"compare diging --graph ring:5 --dim 2 --kappa 4 --plot {picture}")
    assert status == 0
    assert "Verdict: all that was tested holds" in out
    assert "theorem diging_lyapunov" in out
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_a_contradiction_is_the_exit_status(run, monkeypatch):
    monkeypatch.setattr("theory.claims.SLACK", -1.0)  # every bound is then too low
    status, out, _ = run("compare dsgd_cta --graph ring:5 --dim 2 --json")
    data = json.loads(out)
    assert (status, data["holds"]) == (1, False)
    assert any("is violated" in sentence for sentence in data["violations"])


def test_bounds_of_a_method(run):
    status, out, _ = run("bounds --method extra")
    assert status == 0
    listed = [line.split()[0] for line in out.splitlines()[2:] if line and not line.startswith("One in full")]
    assert listed == list(theory.bounds.of_method("extra"))


def test_a_bound_in_full(run):
    _, out, _ = run("bounds nids")
    bound = theory.bounds.entry("nids")
    assert value(out, "theorem") == "nids"
    assert value(out, "evidence") == bound.evidence
    for name in bound.symbols:
        assert value(out, f"  {name}") == theory.bounds.MEANINGS[name]
    assert run("bounds nids --latex")[1] == bound.latex() + "\n"


def test_bounds_are_falsified_and_written(run, tmp_path):
    page = tmp_path / "docs" / "theorems.md"
    status, out, _ = run(f"bounds --method nids --falsify 50 --seed 1 --markdown {page} --json")
    assert status == 0
    data = {row["name"]: row for row in json.loads(out)["bounds"]}
    trial = theory.bounds.entry("nids").falsify(50, 1)
    assert data["nids"]["falsification"] == {
        "worst_ratio": trial.worst_ratio,
        "instances": trial.instances,
        "violated": False,
    }
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == len(data)
    (row,) = [row for row in rows if row.startswith("| `nids` |")]
    assert f"| {trial.worst_ratio:.6f} |" in row
    assert row.count(" | ") == 5  # six columns, and no bar inside a formula


def test_a_violated_bound_is_the_exit_status(run, monkeypatch):
    row = theory.bounds.Trial("nids", "derived", "bound", 1.5, 50, True)
    monkeypatch.setattr(theorems.collection, "falsify_all", lambda instances, seed, names: [row])
    status, out, _ = run("bounds nids --falsify 50")
    assert status == 1
    assert value(out, "worst ratio") == "1.500000 of 50 VIOLATED"


@pytest.mark.parametrize("problem", ["quadratic", "common", "logistic"])
def test_the_problems_have_the_constants_that_they_promise(problem):
    built = options.Instance(problem, 3, 8.0, 2.0, 1).build(5)
    assert built.constants == pytest.approx((1 / 8, 1.0))
    assert built.n == 5
    if problem != "logistic":
        assert float(built.heterogeneity) == pytest.approx(2.0)
