"""What documents quote of a study, what would change a verdict, and the comparisons behind them."""

import re
from pathlib import Path

import pytest

from mama_ray.errors import UserError
from mama_ray.experiments.study.report.claim_tables import change_table, claims_table, describe_change
from mama_ray.experiments.study.report.claims import lead_text
from mama_ray.experiments.study.report.contrasts import DOSE, LEARNED_MARGIN, SUBTRACTED, list_contrasts
from mama_ray.experiments.study.report.page import render_study_report
from mama_ray.experiments.study.report.quotes import fill_document, list_quotes, short_table, write_quotes
from mama_ray.experiments.study.results import read_experiments
from mama_ray.reporting.intervals import Interval
from tests.experiments.study.report.study_records import make_experiment, make_run, make_study

ROOT = Path(__file__).resolve().parents[4]
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "study.md")
# Measured beside the study, and told to be.
BESIDE = {"7.4 ± 2.9"}


# The results of each part of the documents, and the table that all of them quote.
PARTS = {
    "": (ROOT / "docs/study/second", "main_table"),
    "sources": (ROOT / "docs/study/sources", "sources/both_table"),
}


def second_part(gains: dict[str, float], name: str = "methods", xs=(None,), spread: float = 0.5) -> dict:
    runs = [
        make_run(method, seed, 30 + gain + seed + spread * (-1) ** (seed + len(method)), x)
        for method, gain in gains.items()
        for x in xs
        for seed in range(6)
    ]
    return {name: make_experiment(name, runs, setting={"swapped captions": 0.3, "data": "two objects"})}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_marked_places_of_a_document_are_those_of_the_newest_results(path, part):
    folder, table = PARTS[part]
    quotes, text = list_quotes(read_experiments(folder)), path.read_text()
    assert f"<!-- study: {table} -->" in text
    assert fill_document(text, quotes, part=part) == text, "run make study-report"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_figure_with_an_interval_stands_in_the_tables_of_the_results(path):
    tables = [file.read_text() for file in (ROOT / "docs/study").rglob("tables.md")]
    known = set(re.findall(r"\d+\.\d+ ± \d+\.\d+", " ".join(tables)))
    text = path.read_text()
    if path.name == "README.md":
        text = text.split("## Does it work?")[1].split("\n## ")[0]
    assert re.search(r"\d+\.\d+ ± \d+\.\d+", text)
    by_hand = re.sub(r"<!-- study: .*?<!-- end of study: [^>]*>", "", text, flags=re.DOTALL)  # the rest is held above
    quoted = set(re.findall(r"\d+\.\d+ ± \d+\.\d+", by_hand))
    assert quoted - BESIDE <= known, "figures that no result gives"


def test_a_document_is_written_anew_between_its_marks(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("head\n<!-- study: lead -->\nold\n<!-- end of study: lead -->\ntail\n")
    write_quotes(path, make_study())
    text = path.read_text()
    assert text.startswith("head\n<!-- study: lead -->\nFull MAMA (mama_captions) against plain InfoNCE")
    assert text.endswith("<!-- end of study: lead -->\ntail\n") and "old" not in text
    write_quotes(path, make_study())
    assert path.read_text() == text
    other = text.replace("study: lead", "study: other/lead")
    assert fill_document(other, {"lead": "new"}) == other
    assert fill_document(other, {"lead": "new"}, part="other").splitlines()[2] == "new"
    with pytest.raises(UserError, match="unknown quote of a study in a.md: got leed.*did you mean lead"):
        fill_document("<!-- study: leed -->\n<!-- end of study: leed -->", list_quotes(make_study()), source="a.md")
    with pytest.raises(UserError, match="has no end"):
        fill_document("<!-- study: lead -->\n", list_quotes(make_study()))


def test_the_short_table_has_the_effect_its_correction_and_what_could_have_been_seen():
    text = short_table(second_part({"uniform": 0.0, "uniform_meta4": 5.0, "mama": 0.05})["methods"])
    rows = {line.split(" | ")[0][2:]: line.split(" | ") for line in text.splitlines() if line.startswith("| ")}
    assert rows["plain InfoNCE"][2] == ""
    better = next(row for name, row in rows.items() if name.startswith("plain InfoNCE, four"))
    assert better[2].startswith("+5.0") and better[3] == "< 0.001" and better[4] == " |"
    unseen = rows["learned weights and margin"]
    assert float(unseen[3]) > 0.05 and float(unseen[4].removesuffix(" |")) > 0
    assert "6 seeds; 30 % swapped captions, two objects." in text


def test_learned_weights_are_held_against_every_control():
    gains = {
        "uniform": 0.0,
        "uniform_meta4": 1.0,
        "keep_lowest": 2.0,
        "joint": 3.0,
        "learned": 5.0,
        "learned_meta4": 6.0,
    }
    found = {contrast.measured: contrast.interval.mean for contrast in list_contrasts(second_part(gains))}
    wanted = {f"{a} − {b}": gains[a] - gains[b] for a in ("learned", "learned_meta4") for b in list(gains)[1:4]}
    assert found == {name: pytest.approx(value, abs=1.01) for name, value in wanted.items()}
    assert list_contrasts({"methods": make_study()["methods"]}) == []  # the first part had no controls


def test_rules_on_the_loss_are_said_to_fail_where_they_fall_below_plain_training():
    gains = {"uniform": 0.0, "uniform_meta4": 1.0, "joint": -8.0, "keep_lowest": -9.0, "learned": 3.0}
    rows = {row[1]: row for row in claims_table(second_part(gains, "labels")).rows}
    assert rows["uniform − joint"][3] == "yes" and rows["uniform − joint"][2].startswith("+8")
    assert rows["learned − uniform"][3] == "yes"
    assert rows["learned − uniform"][6] == "labels: 30 % swapped captions, two objects"


def test_settings_of_a_group_are_compared_with_its_own_base():
    xs = ("scale 5, -0.4", "scale 5, 0", "scale 5, 0.2", "scale 14, -0.15", "scale 14, 0", "scale 14, one learned")
    found = {
        contrast.measured: contrast.claim
        for contrast in list_contrasts(second_part({"uniform": 0.0}, "margin_dose", xs))
    }
    assert found == {
        "uniform, scale 5, 0.2 − uniform, scale 5, 0": SUBTRACTED,
        "uniform, scale 5, -0.4 − uniform, scale 5, 0": DOSE,
        "uniform, scale 14, -0.15 − uniform, scale 14, 0": DOSE,
        "uniform, scale 14, one learned − uniform, scale 14, 0": LEARNED_MARGIN,
    }
    xs = ("16, none", "16, 25 %", "128, none", "128, 5 %")
    found = [contrast.measured for contrast in list_contrasts(second_part({"learned": 0.0}, "meta_wrong", xs))]
    assert found == ["learned, 16, none − learned, 16, 25 %", "learned, 128, none − learned, 128, 5 %"]


def test_a_learned_share_is_held_against_every_fixed_one():
    found = list_contrasts(second_part({"learned": 0.0}, "chosen_captions_topics", ("0", "0.5", "1", "learned")))
    assert [one.measured for one in found] == [f"learned, learned − learned, {share}" for share in ("0", "0.5", "1")]


def test_without_full_mama_the_last_kind_of_learned_weights_leads():
    study = second_part({"uniform": 0.0, "learned": 2.0, "learned_source_meta4": 5.0, "oracle": 6.0})
    text = lead_text(study)
    assert text.startswith("Learning the weights (learned_source_meta4) against plain InfoNCE: +5")
    assert "points below the oracle" in text


def test_what_would_change_a_verdict_is_told_with_its_size():
    assert "seeds with a mean of -" in describe_change(Interval(3.0, 1.0, 5), "yes", 0.01)
    assert "does not stand after correction" in describe_change(Interval(3.0, 1.0, 5), "yes", 0.2)
    assert "all from -2.3 to +3.3 is open" in describe_change(Interval(0.5, 2.776, 5), "not told apart", 1.0)
    table = change_table(make_study())
    assert table.rows and all(row[3] for row in table.rows)
    assert "What would change our mind" in render_study_report(make_study())


def test_a_verdict_that_the_correction_takes_says_so():
    gains = {"uniform": 0.0, "learned": 1.0, "joint": 0.0, "focal": 0.0}
    experiments = second_part(gains, spread=1.0)
    verdicts = {row[1]: row[3] for row in claims_table(experiments).rows}
    assert verdicts["learned − uniform"] in ("yes", "yes, but not after correction", "not told apart")
    rows = [row for row in claims_table(make_study()).rows if row[3] == "yes"]
    assert rows and all(row[4] == "< 0.001" or float(row[4]) < 0.05 for row in rows if row[4] != "–")
