"""experiments.report on a made-up benchmark: its numbers are the dataset's, text is escaped, tables are whole."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from experiments import figures, report, tunability
from experiments.report import analysis, latex, pictures

HOSTILE = '<script>alert("x")</script> & \\evil_100%'
AXES = ("steps", "bits", "seconds", "joules")


def benchmark(methods=6, trials=5, repeats=3, records=6, seed=0):
    """A dataset of the form that a benchmark stores: losses that fall at rates of their own, accuracies that rise."""
    rng = np.random.default_rng(seed)
    tasks, clusters = ["problem/convex", "images/small"], ["ring", HOSTILE]
    names = [f"method_{i}" for i in range(methods - 1)] + [HOSTILE]
    better = ["min", "max"]
    sizes = (len(tasks), methods, len(clusters))
    steps = 20.0 * np.arange(1, records + 1)
    found = {}
    for prefix, dimension, count in (("", "trial", trials), ("final_", "repeat", repeats)):
        speed = rng.uniform(0.3, 3, (*sizes, count)) * np.linspace(0.4, 1.6, methods)[:, None, None]
        loss = np.exp(-speed[..., None] * steps / 60) + 1e-3 * rng.random((*sizes, count, records))
        value = np.where(np.array(better)[:, None, None, None, None] == "min", loss, 1 - 0.8 * loss)
        cost = (1 + np.arange(methods))[:, None, None, None] * np.broadcast_to(steps, (*sizes, count, records))
        arrays = {"validation": value, "test": value + 0.01 * rng.normal(size=value.shape) ** 2}
        arrays |= {
            "worst": value,
            "steps": cost * 0 + steps,
            "bits": 1e6 * cost,
            "seconds": 0.02 * cost,
            "joules": 3 * cost,
        }
        diverged = np.full((*sizes, count), -1)
        diverged[rng.random(diverged.shape) < 0.1] = 40
        names_of = {
            "configuration": lambda w: json.dumps({"method": HOSTILE, "learning_rate": float(np.sum(w))}),
            "cell": lambda w, prefix=prefix: f"{prefix}{'-'.join(map(str, w))}",
            "rerun": lambda w: f"python -m experiments run --seed {w[-1]} # {HOSTILE}",
        }
        dims = ("task", "method", "cluster", dimension)
        for name, array in arrays.items():
            array[diverged >= 0, 2:] = np.nan
            array[1, 1] = np.nan  # does not apply to the second task
            found[f"{prefix}{name}"] = ((*dims, "record"), array)
        for name, make in names_of.items():
            texts = np.array([make(where) for where in np.ndindex(diverged.shape)], dtype=str).reshape(diverged.shape)
            texts[1, 1] = ""
            found[f"{prefix}{name}"] = (dims, texts)
        found[f"{prefix}diverged"] = (dims, diverged)
    reason = np.full(sizes, "", dtype="U200")
    reason[1, 1] = f"needs the conjugates' gradients {HOSTILE}"
    found["reason"] = (("task", "method", "cluster"), reason)
    coords = {"task": tasks, "method": names, "cluster": clusters, "better": ("task", better)}
    coords["metric"] = ("task", ["suboptimality", "accuracy"])
    versions = json.dumps({"python": "3.11", "jax": "0.10.2"})
    attrs = {"title": f"A made-up benchmark {HOSTILE}", "suite": f'title = "{HOSTILE}"', "versions": versions}
    attrs |= {"budget_axis": "steps", "budget": 0.0, "command": "python -m experiments benchmark x", "git": "abc"}
    return xr.Dataset(found, coords, attrs | {"date": "2026-01-01", "machine": "two cores", "about": "About it."})


class Page(HTMLParser):
    """What is in a page: tables by their data attributes, ids, texts, tags that are open."""

    VOID = frozenset({"meta", "input", "br", "wbr", "path", "use", "rect"})

    def __init__(self, text):
        super().__init__()
        self.tables, self.ids, self.tags, self.text, self.open, self.scripts = {}, [], [], [], [], 0
        self.heads, self.links = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.ids += [found["id"]] if "id" in found else []
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows = self.tables.setdefault((found.get("data-task"), found.get("data-cluster")), {})
        elif tag == "tr":
            self.row, self.key = [], ""
        elif tag == "td" and "data-value" in found:
            self.row.append(tuple(float(found[f"data-{n}"]) for n in ("value", "low", "high") if f"data-{n}" in found))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"<{tag}> is closed where another tag is open"
        if tag == "tr" and self.key:
            self.rows[self.key] = self.row

    def handle_data(self, data):
        self.text.append(data)
        if self.open[-1:] == ["th"]:
            self.key += data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """As it comes back from its file."""
    path = tmp_path_factory.mktemp("data") / "benchmark.nc"
    figures.save(benchmark(), path)
    return figures.load(path)


@pytest.fixture(scope="module")
def written(data, tmp_path_factory):
    return report.write(data, tmp_path_factory.mktemp("report") / "new")


@pytest.fixture(scope="module")
def page(written):
    return Page(written.html.read_text(encoding="utf-8"))


def best(validation, test, diverged, better):
    """The score of one run, by a loop over its records."""
    if diverged >= 0:
        return np.nan
    pick = (np.nanargmin if better == "min" else np.nanargmax)(validation)
    return test[pick]


@pytest.mark.parametrize("task", [0, 1])
@pytest.mark.parametrize("cluster", [0, 1])
def test_the_numbers_of_the_page_are_those_of_the_dataset(data, page, task, cluster):
    """Recomputed with loops: final values, expected best values at 1 and all trials, costs, diverged trials."""
    here = data.isel(task=task, cluster=cluster)
    better = str(here.better.values)
    rows = page.tables[(str(here.task.values), str(here.cluster.values))]
    applies = [str(name) for name, why in zip(here.method.values, here.reason.values, strict=True) if not why]
    assert sorted(rows) == sorted(applies)
    tests = {}
    for name in applies:
        cell = here.sel({"method": name})
        pairs = zip(cell.validation.values, cell.test.values, cell.diverged.values, strict=True)
        tests[name] = np.array([best(*pair, better) for pair in pairs])
    worst = (np.nanmin if better == "max" else np.nanmax)(list(tests.values()))
    means = {}
    for name in applies:
        cell = here.sel({"method": name})
        rank, final, one, four, every, *costs, diverged = rows[name]
        pairs = zip(cell.final_validation.values, cell.final_test.values, cell.final_diverged.values, strict=True)
        means[name] = np.mean([best(*pair, better) for pair in pairs])
        np.testing.assert_allclose(final[0], means[name], rtol=1e-14)
        assert diverged == (np.isnan(tests[name]).sum(),)
        counted = np.where(np.isnan(tests[name]), worst, tests[name])
        np.testing.assert_allclose(one[0], counted.mean(), rtol=1e-12)
        validation = np.where(
            cell.diverged.values < 0,
            cell.validation.max("record") if better == "max" else -cell.validation.min("record"),
            -np.inf,
        )
        np.testing.assert_allclose(every[0], counted[np.argmax(validation)], rtol=1e-12)
        assert one[1] <= one[0] <= one[2]
        assert four[1] <= four[2]
        for axis, (cost,) in zip(AXES, costs, strict=True):
            ends = [row[np.isfinite(row)][-1] for row in cell[f"final_{axis}"].values]
            np.testing.assert_allclose(cost, np.mean(ends), rtol=1e-14)
    order = [np.nan_to_num(mean if better == "min" else -mean, nan=np.inf) for mean in means.values()]
    for name, mean in zip(means, order, strict=True):
        rank = rows[name][0]
        assert rank[0] == 1 + np.sum(np.array(order) < mean) + (np.sum(np.array(order) == mean) - 1) / 2
        assert rank[1] <= rank[2]


def test_the_table_of_all_tasks(data, page):
    for cluster in map(str, data.cluster.values):
        rows = page.tables[(None, cluster)]
        assert set(rows) == set(map(str, data.method.values))
        assert sum(row[-1][0] for row in rows.values()) == pytest.approx(1)  # win probabilities
        assert np.isnan(rows["method_1"][0][0])  # it did not run on all tasks
        assert rows["method_1"][1] == (1,)
        sections = [analysis.section(data, task, cluster) for task in map(str, data.task.values)]
        for name, row in rows.items():
            ratios = []
            for part in sections:
                ends = {other.method: other.expected.value[-1] for other in part.rows}
                if name in ends:
                    ratios.append(
                        ends[name] / max(ends.values()) if part.better == "max" else min(ends.values()) / ends[name]
                    )
            assert row[4][0] == pytest.approx(np.mean(ratios), rel=1e-12)


def test_every_run_can_be_made_again(data, written, page):
    cells = {str(cell) for name in ("cell", "final_cell") for cell in data[name].values.ravel() if cell}
    shown = [found["data-cell"] for tag, found in page.tags if tag == "tr" and "data-cell" in found]
    assert sorted(shown) == sorted(cells)
    rows = list(csv.DictReader(io.StringIO(written.csv.read_text(encoding="utf-8"))))
    assert {row["cell"]: row["rerun"] for row in rows} == {
        str(cell): str(command)
        for prefix in ("", "final_")
        for cell, command in zip(
            data[f"{prefix}cell"].values.ravel(), data[f"{prefix}rerun"].values.ravel(), strict=True
        )
        if cell
    }
    assert "".join(page.text).count("python -m experiments run --seed") == len(cells)


def test_the_summary_has_all_estimators(data, written):
    rows = list(csv.DictReader(io.StringIO(written.summary.read_text(encoding="utf-8"))))
    assert len(rows) == data.sizes["task"] * data.sizes["method"] * data.sizes["cluster"]
    part = analysis.section(data, "problem/convex", "ring")
    for found in part.rows:
        row = next(r for r in rows if (r["task"], r["cluster"], r["method"]) == (part.task, part.cluster, found.method))
        scores = found.scores
        for k in (1, 4, 5):
            for name, replacement in (("with", True), ("without", False)):
                function = getattr(tunability, f"expected_best_{name}_replacement")
                assert float(row[f"best_{name}_replacement_at_{k}"]) == function(scores, "min", part.worst)[k - 1]
                assert f"incumbent_{name}_replacement_at_{k}" in row, replacement
    left_out = [row for row in rows if row["not_applicable"]]
    assert {(row["task"], row["method"], row["final_test"]) for row in left_out} == {("images/small", "method_1", "")}


def test_text_is_escaped_and_nothing_is_fetched(written, page):
    text = written.html.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert HOSTILE in "".join(page.text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert page.open == []
    for tag, found in page.tags:
        assert not {"src", "srcset", "onclick"} & set(found), tag
        for name in ("href", "xlink:href"):
            assert found.get(name, "#").startswith("#"), found
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttp", text)


def test_pictures_do_not_share_ids_and_links_lead_somewhere(page):
    assert len(page.ids) == len(set(page.ids))
    targets = {found[name][1:] for _, found in page.tags for name in ("href", "xlink:href") if name in found}
    assert targets <= set(page.ids)
    clipped = {m for _, found in page.tags for m in re.findall(r"url\(#(.*?)\)", found.get("clip-path") or "")}
    assert clipped <= set(page.ids)
    labels = [found["aria-label"] for tag, found in page.tags if tag == "svg"]
    assert len(labels) == 2 * (2 + 2)  # of each cluster: two of all tasks, one of each task


def test_columns_are_sorted_by_buttons(page):
    heads = [found for tag, found in page.tags if tag == "th" and found.get("scope") == "col"]
    buttons = [found for tag, found in page.tags if tag == "button"]
    assert len(heads) == len(buttons) + 1  # but for settings and commands
    assert all(found["type"] == "button" for found in buttons)


def test_latex_tables_are_whole(written, data):
    text = written.latex.read_text(encoding="utf-8")
    bodies = re.findall(r"\\begin\{tabular\}\{(\w+)\}\n\\toprule\n(.*?)\\bottomrule\n\\end\{tabular\}", text, re.DOTALL)
    assert len(bodies) == 2 * (1 + 2)
    for columns, body in bodies:
        rows = [line for line in body.splitlines() if line != r"\midrule"]
        assert len(rows) in (data.sizes["method"], data.sizes["method"] + 1)
        for row in rows:
            assert len(re.findall(r"(?<!\\)&", row)) == len(columns) - 1
            assert row.endswith(r"\\")
            assert not re.search(r"(?<!\\)[#%]", row)
    assert latex.escape(HOSTILE) in text
    assert latex.number(np.inf) == "--"


@pytest.mark.parametrize("sizes", [{"methods": 2, "trials": 1, "repeats": 1, "records": 1}, {"repeats": 0}])
def test_the_smallest_benchmarks_have_reports(sizes, tmp_path):
    data = benchmark(**sizes).isel(cluster=[0], task=[0])
    found = Page(report.write(data, tmp_path).html.read_text(encoding="utf-8"))
    assert len(found.tables[("problem/convex", "ring")]) == data.sizes["method"]


def test_a_benchmark_in_which_everything_diverged_has_a_report(tmp_path):
    data = benchmark(methods=3).isel(cluster=[0], task=[1])
    data["diverged"][:] = 1
    data["final_diverged"][:] = 1
    part = analysis.section(data, "images/small", "ring")
    assert [row.rank.value for row in part.rows] == [1.5, 1.5]
    assert [row.diverged for row in part.rows] == [5, 5]
    assert "5 of 5" in report.write(data, tmp_path).html.read_text(encoding="utf-8")


def test_a_dataset_that_lacks_something_is_refused_and_nothing_is_written(data, tmp_path):
    with pytest.raises(ValueError, match="no rerun, final_bits"):
        report.write(data.drop_vars(["final_bits", "rerun"]), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_diverged_run_has_no_score_however_good_it_was():
    validation, test, _ = analysis.scores(
        [[0.9, np.nan], [0.1, 0.2], [np.nan, np.nan]], np.ones((3, 2)), [3, -1, -1], "max"
    )
    np.testing.assert_array_equal(validation, [np.nan, 0.2, np.nan])
    np.testing.assert_array_equal(test, [np.nan, 1, np.nan])


def test_suboptimalities_of_the_size_of_rounding_errors_tie():
    data = benchmark()
    data["diverged"][:], data["final_diverged"][:] = -1, -1
    for name in ("final_test", "final_validation"):
        data[name][0, 0, 0, :, -1], data[name][0, 2, 0, :, -1] = -3e-8, 2e-8
    data["final_test"][0, 3, 0, 1, 2] = -4e-8
    part = analysis.section(data, "problem/convex", "ring")
    assert part.resolution == 4e-8
    first, second = part.rows[:2]
    assert {first.method, second.method} == {"method_0", "method_2"}
    assert first.final == second.final
    assert first.final == pytest.approx((4e-8, 4e-8, 4e-8), rel=1e-12)
    assert first.rank.value == second.rank.value == 1.5
    assert analysis.section(data, "images/small", "ring").resolution == -np.inf


def test_methods_have_looks_of_their_own():
    looks = pictures.look([str(i) for i in range(50)])
    assert len({(look["color"], str(look["linestyle"])) for look in looks.values()}) == 50
