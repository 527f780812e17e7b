"""The page, pictures and Markdown of a study: they hold every experiment and method, for any subset of a study."""

import re
from pathlib import Path

import pytest

from mama_ray.errors import UserError
from mama_ray.experiments.study.report.page import render_study_report, write_study_figures, write_study_report
from mama_ray.experiments.study.report.tables import study_tables_markdown
from mama_ray.storage.places import Place
from tests.experiments.study.report.study_records import GAINS, make_experiment, make_full_run, make_run, make_study

NOT_A_NUMBER = re.compile(r"\b(nan|NaN|inf|None)\b")
PICTURES = ["epochs.png", "inner_lr.png", "margin.png", "methods.png", "topics.png", "weight_curve.png"]


@pytest.fixture(scope="module")
def study():
    return make_study(seeds=(0, 1, 2))


def visible(page: str) -> str:
    return re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)


def test_the_page_holds_every_experiment_method_and_trial(study, tmp_path):
    path = write_study_report(Place.of(tmp_path / "report"), study)
    page = Path(path).read_text(encoding="utf-8")
    assert path.endswith("report/index.html")
    for name, experiment in study.items():
        assert experiment.title in page and experiment.command in page, name
        assert all(method in page for method in experiment.methods), name
        table = page[page.index(f"<summary>{experiment.title}</summary>") :]
        rows = table[: table.index("</table>")].count("<tr>") - 1
        assert rows == len({(run.method, run.x) for run in experiment.runs}), name
    assert not NOT_A_NUMBER.search(visible(page))
    assert page.count(">chosen<") == 2
    assert "http:" not in visible(page) and "<script" not in page and "<img" not in page


def test_the_paper_is_shown_beside_what_was_found_and_claims_come_first(study):
    page = render_study_report(study)
    heads = re.findall(r"<h2>(.*?)</h2>", page)
    assert heads[:3] == [
        "What the paper claims, and what was found",
        "What would change our mind",
        "The paper&#39;s figures beside this study&#39;s",
    ]
    assert "ActivityNet retrieval" in page and "the paper, digitised" in page


@pytest.mark.parametrize("name", list(make_study(seeds=(0,))))
def test_any_experiment_makes_a_page_and_tables_without_the_others(study, name):
    subset = {name: study[name]}
    for text in (visible(render_study_report(subset)), study_tables_markdown(subset).replace("\\", "")):
        assert not NOT_A_NUMBER.search(text)
        assert all(method in text for method in study[name].methods)


def test_where_the_data_are_the_same_baseline_and_oracle_come_from_the_experiment_of_all_methods(study):
    subset = {name: study[name] for name in ("methods", "meta_size")}
    page = render_study_report(subset)
    assert "uniform, mean" in page and "oracle, mean" in page
    assert "uniform, mean" not in render_study_report({"meta_size": study["meta_size"]})


def test_one_seed_has_no_intervals_and_no_verdicts():
    study = make_study(seeds=(3,))
    text = visible(render_study_report(study))
    claims = text[text.index("What the paper claims") : text.index("Verdicts follow")]
    assert "±" not in claims and "not told apart" not in claims
    assert "one seed: no verdict" in claims
    assert "one seed says nothing about others" in text


def test_missing_seeds_and_methods_leave_gaps_and_not_errors(tmp_path):
    runs = [make_full_run("uniform", seed, 0.0, x) for seed, x in ((0, 0.1), (1, 0.1), (0, 0.2))]
    runs += [make_full_run("learned", seed, 4.0, x) for seed, x in ((2, 0.1), (0, 0.2), (1, 0.3))]
    wrong = make_experiment("wrong", runs, methods=("uniform", "learned", "mama", "oracle"))
    main = make_experiment("methods", [make_run("learned", 7, 1.0), make_run("pretrained", 8, 2.0)])
    experiments = {"wrong": wrong, "methods": main}
    assert not NOT_A_NUMBER.search(visible(render_study_report(experiments)))
    assert [path.name for path in write_study_figures(tmp_path, experiments)] == ["methods.png"]


def test_an_unknown_experiment_with_words_or_without_a_factor_has_a_table_of_its_own():
    words = [make_run(method, seed, 20.0 + seed, x) for method in ("mine", "b") for x in ("x", "y") for seed in (0, 1)]
    plain = [make_run("mine", seed, 20.0 + seed) for seed in (0, 1)]
    empty = make_experiment("empty", [], methods=("mine",))
    experiments = {"words": make_experiment("words", words), "plain": make_experiment("plain", plain), "empty": empty}
    page = render_study_report(experiments)
    assert "Other experiments" in page and page.count("<summary>Invented") == 2
    assert "− mine there" in page, "the first method is the baseline where there is no uniform"
    assert not NOT_A_NUMBER.search(visible(page))


def test_hostile_names_are_shown_as_they_are():
    evil = "<script>alert('$x$')</script>|_b_"
    runs = [make_full_run(evil, seed, 1.0, x) for seed in (0, 1) for x in (0.1, evil)]
    runs += [make_full_run("uniform", seed, 0.0, 0.1) for seed in (0, 1)]
    experiment = make_experiment(evil, runs, title=evil, factor=evil, command=evil, setting={evil: evil})
    main = make_experiment("methods", [run.model_copy(update={"x": None}) for run in runs if run.x == 0.1], title=evil)
    experiments = {evil: experiment, "methods": main}
    page, text = render_study_report(experiments), study_tables_markdown(experiments)
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "<script" not in text.replace("\\<", "")
    rows = [line for line in text.splitlines() if line.startswith("|") and "script" in line]
    assert rows and all("\\|\\_b\\_" in row for row in rows)


def test_pictures_are_written_for_the_experiments_that_are_there(study, tmp_path):
    assert sorted(path.name for path in write_study_figures(tmp_path / "new", study)) == PICTURES
    found = write_study_figures(tmp_path, {"margin_wrong": study["margin_wrong"]})
    assert [path.name for path in found] == ["margin.png"]
    assert found[0].read_bytes().startswith(b"\x89PNG")


def test_the_same_records_give_the_same_page(study):
    subset = {name: study[name] for name in ("methods", "wrong")}
    assert render_study_report(subset) == render_study_report(subset)


def test_tuning_that_experiments_share_is_listed_once(study):
    twice = {name: study[name].model_copy(update={"tuning": study["methods"].tuning}) for name in ("wrong", "swapped")}
    assert render_study_report(twice).count(">chosen<") == 2


def test_markdown_tables_have_as_many_cells_in_every_row_as_in_the_head(study):
    text = study_tables_markdown(study)
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) > len(study)
    for block in blocks:
        assert {line.count(" | ") for line in block} == {block[0].count(" | ")}
    assert all(f"| {method.replace('_', chr(92) + '_')} |" in text for method in GAINS)


def test_pages_and_tables_of_nothing_are_refused(tmp_path):
    for make in (render_study_report, study_tables_markdown, lambda found: write_study_figures(tmp_path, found)):
        with pytest.raises(UserError, match="no experiments"):
            make({})
