"""The page is whole in itself, shows what it is given, and escapes what it is told."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from mama_ray.errors import UserError
from mama_ray.reporting.content import Report, Retrieval, RetrievedClip, RunReport, TopicRecall
from mama_ray.reporting.document import format_duration
from mama_ray.reporting.page import cost_rows, input_figures, metric_rows, render_report, share_figures, write_report
from mama_ray.storage.places import Place


def make_run(name: str, *, recall: float = 30.0, duration_s: float | None = 60.0) -> RunReport:
    records = [
        {"step": step, "train/unweighted_loss": 4 - step / 50, "val/t2v_R@1": step / 4, "throughput/clips_per_s": 100.0,
         "weights/clean/mean": 1.1, "weights/swapped/mean": 0.7}
        for step in range(60)
    ]  # fmt: skip
    records.append({"step": 60, "weights/curve_loss": [0.0, 2.0, 4.0], "weights/curve_weight": [1.0, 1.2, 0.5]})
    clips = tuple(
        RetrievedClip(np.full((4, 48, 48, 3), 40 * n, np.uint8), f"caption {n}", is_right=n == 1) for n in range(5)
    )
    return RunReport(
        name=name,
        records=records,
        metrics={"t2v_R@1": recall, "v2t_R@1": recall + 1, "t2v_median_rank": 3.0},
        duration_s=duration_s,
        topics=(TopicRecall("circle", 900, 40.0), TopicRecall("star & ring", 100, 20.0)),
        head_recall=40.0,
        tail_recall=20.0,
        retrievals=(Retrieval("a red circle", 2.0, clips),),
        facts={"margin": "0.2"},
    )


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(
        Report(
            "Two <runs>", (make_run("plain"), make_run("<b>learned</b>", recall=35.0, duration_s=90.0)), num_gallery=400
        )
    )


def test_the_page_loads_nothing_from_outside(page):
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search("<script|@import", page)
    assert set(re.findall(r"https?://[^\s\"<]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_what_it_is_told_is_escaped(page):
    assert "<b>learned" not in page
    assert "&lt;b&gt;learned" in page
    assert "<title>Two &lt;runs&gt;</title>" in page


def test_every_plot_is_well_formed_and_ids_are_unique(page):
    plots = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(plots) == 7
    for plot in plots:
        ElementTree.fromstring(plot)
        assert "var(--ink)" in plot or "var(--muted)" in plot
        assert not re.search(r"#0[12]0[12]0\d", plot), "a placeholder colour was left"
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names))


def test_the_best_of_a_column_is_marked_and_cost_is_relative():
    runs = [make_run("a"), make_run("b", recall=35.0, duration_s=90.0), make_run("c", duration_s=None)]
    rows = metric_rows(runs)
    assert [row[0].is_best for row in rows] == [False, True, False]
    assert [row[3].is_best for row in rows] == [False, False, False]  # a tie has no best
    assert [cell[1] for cell in cost_rows(runs)] == ["1.00×", "1.50×", "–"]


def test_the_right_clip_is_ringed_and_chance_is_named(page):
    assert page.count('<li class="right">') == 2
    assert "Chance is 0.25 % R@1" in page


def test_a_run_without_anything_still_makes_a_page():
    assert "<h1>bare</h1>" in render_report(Report("bare", (RunReport("run"),)))


def test_the_page_is_written_whole(tmp_path):
    path = write_report(Place.of(tmp_path / "report"), Report("one", (make_run("only"),)))
    assert [entry.name for entry in (tmp_path / "report").iterdir()] == ["index.html"]
    assert Path(path).read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "5 s"), (125, "2 min 05 s"), (3 * 3600 + 420, "3 h 07 min")])
def test_durations_read_well(seconds, text):
    assert format_duration(seconds) == text


def test_recall_over_few_queries_has_its_interval_and_says_what_one_query_is():
    run = RunReport("run", metrics={"t2v_R@1": 12.5, "t2v_median_rank": 2.0, "v2t_R@1": 0.0})
    small = text_of(render_report(Report("small", (run,), num_queries={"t2v": 8, "v2t": 8})))
    assert "8 queries: one is 12.5 points." in small
    assert "12.5 2 to 47" in small and "0.0 0 to 32" in small
    large = text_of(render_report(Report("large", (run,), num_queries={"t2v": 1000, "v2t": 1000})))
    assert "points" not in large and " to " not in large.split("cost of training")[1].split("Training")[0]


def test_a_page_tells_where_its_numbers_come_from():
    run = RunReport(
        "run", provenance={"command": "python jobs/train.py --run <x>"}, settings={"optim.lr": "0.001", "seed": "0"}
    )
    page = render_report(Report("run", (run,)))
    assert "python jobs/train.py --run &lt;x&gt;" in page
    assert "All 2 settings" in page and "optim.lr" in page


def test_the_papers_curve_is_drawn_where_the_run_spans_as_much():
    def curve_page(high: float) -> str:
        record = {"step": 1, "weights/curve_loss": [0.1, high], "weights/curve_weight": [1.0, 0.9]}
        return render_report(Report("run", (RunReport("run", [record]),)))

    assert "digitised" in curve_page(5.0)
    assert "digitised" not in curve_page(0.3) and "lies outside of these losses" in curve_page(0.3)


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())


def test_a_page_names_its_benchmark_and_has_only_one():
    part = replace(make_run("part"), benchmark="msrvtt_1ka (900 of 1,000)")
    whole = replace(make_run("whole"), benchmark="msrvtt_1ka")
    assert "Retrieval on msrvtt_1ka (900 of 1,000) and cost" in render_report(Report("x", (part, make_trained("y"))))
    with pytest.raises(UserError, match=r"part on msrvtt_1ka \(900 of 1,000\); whole on msrvtt_1ka"):
        render_report(Report("x", (part, whole)))


def make_trained(name: str) -> RunReport:
    """A run that was not evaluated."""
    return replace(make_run(name), metrics={})


def test_a_duration_that_is_no_number_is_a_dash():
    assert format_duration(float("nan")) == format_duration(float("inf")) == "–"


def test_shares_of_generated_captions_are_drawn_of_the_runs_that_have_them():
    plain = make_run("plain")
    shares = {"captions/generated_share": 0.4, "captions/clean/share": 0.2,
              "captions/wrong/share": 0.8}  # fmt: skip
    mixed = replace(plain, name="mixed", records=[*plain.records, {"step": 60, **shares}])
    assert mixed.shares_by_kind() == {"clean": 0.2, "wrong": 0.8} and plain.shares_by_kind() == {}
    figures = share_figures((plain, mixed))
    assert [figure.title for figure in figures] == [
        "Share of the generated caption in a clip's loss", "The same by what the clip's own caption is"
    ]  # fmt: skip
    assert [name for name, *_ in figures[0].legend] == ["mixed"] and "0.80" in figures[1].svg
    assert share_figures((plain,)) == []
    text = render_report(Report("shares", (plain, mixed), num_gallery=400))
    assert "Share of the generated caption in a clip" in text and "The same by what the clip" in text


def test_inputs_of_the_weight_net_are_drawn_of_the_runs_that_have_them():
    of_inputs = {"inputs/cosine/curve_value": [0.1, 0.2], "inputs/cosine/curve_weight": [0.9, 1.1],
                 "inputs/topic/weight/circle": 1.4, "inputs/topic/weight/other": 0.8}  # fmt: skip
    plain = make_run("plain")
    learned = replace(plain, name="learned", records=[*plain.records, {"step": 60, **of_inputs}])
    assert learned.input_curves() == {"cosine": ([0.1, 0.2], [0.9, 1.1])}
    assert learned.input_weights() == {"topic": {"circle": 1.4, "other": 0.8}}
    assert "inputs/" not in str(learned.weights_by_kind())
    figures = {figure.title: figure for figure in input_figures((plain, learned))}
    assert list(figures) == ["Learned weight against cosine", "Mean weight by topic"]
    assert [name for name, *_ in figures["Mean weight by topic"].legend] == ["learned"]
    assert "1.40" in figures["Mean weight by topic"].svg
    text = render_report(Report("inputs", (plain, learned), num_gallery=400))
    assert "Learned weight against cosine" in text
    assert "Learned weight against cosine" not in render_report(Report("none", (plain,), num_gallery=400))
