"""The study on a minimal grid: from the config to the report, what is kept, what is made again."""

import json
import shutil
from pathlib import Path

import pytest

from mama_ray.config import load_config
from mama_ray.errors import UserError
from mama_ray.experiments.study.cell import CellConfig
from mama_ray.experiments.study.job import StudyJob
from mama_ray.experiments.study.plan import plan_runs
from mama_ray.experiments.study.report.tables import study_tables_markdown
from mama_ray.experiments.study.results import read_experiments
from mama_ray.experiments.study.run import study
from mama_ray.experiments.study.tuning import tuning_of

ROOT = Path(__file__).resolve().parents[3]
STUDIES = sorted((ROOT / "configs" / "study").glob("*.yaml"))
SMALL = {
    "pretraining": {
        "num_steps": 2,
        "batch_size": 16,
        "corpus": {"domain": "source", "num_train": 32, "num_meta": 0, "num_val": 8, "num_test": 8},
    },
    "cell": {
        "corpus": {"num_train": 48, "num_meta": 16, "num_val": 16, "num_test": 16},
        "meta_set": {"size": 16},
        "meta": {"batch_size": 8},
        "num_steps": 4,
        "batch_size": 16,
        "num_evaluations": 2,
        "early_every": 1,
        "early_until": 1,
        "gallery_size": 8,
    },
    "tuning_base": {"tests": False},
    "tuning_widenings": 1,
    "tuned_as": {"mama": "learned"},
    "seeds": (1, 2),
    "tuning_seeds": (100,),
    "methods": {
        "uniform": {},
        "pretrained": {"num_steps": 0},
        "learned": {"weighting.kind": "learned"},
        "mama": {"weighting.kind": "learned", "objective.margin": 0.05},
        "oracle": {"pairs": "true"},
    },
    "tuning": {"uniform": {"optim.lr": (1e-3, 5e-4)}, "learned": {"meta.inner.lr": (0.05, 0.1)}},
    "experiments": {
        "methods": {
            "title": "Methods",
            "question": "What do weights and margin do?",
            "methods": ("uniform", "pretrained", "learned", "mama", "oracle"),
        },
        "swapped": {
            "title": "Swapped captions",
            "question": "How much comes back?",
            "methods": ("uniform", "learned", "oracle"),
            "factor": "corpus.swapped_rate",
            "values": (0.0, 0.3),
        },
        "meta_degraded": {
            "title": "A degraded meta-set",
            "question": "What then?",
            "methods": ("learned",),
            "settings": {"clean": {}, "half wrong": {"meta_set.wrong_share": 0.5}},
        },
    },
}


def small_job(folder: Path, **changes) -> StudyJob:
    return StudyJob.model_validate(SMALL | {"storage": str(folder)} | changes)


def cells_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "cells").glob("*.json")}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.promise
def test_a_study_runs_what_is_missing_and_draws_its_report(ray_cluster, tmp_path):
    storage = tmp_path / "study"
    line = study(small_job(storage))
    page = Path(line.rsplit(": ", 1)[1])
    experiments = read_experiments(storage / "results")
    assert set(experiments) == set(SMALL["experiments"])
    methods = experiments["methods"]
    assert {(run.method, run.seed) for run in methods.runs} == {
        (method, seed) for method in SMALL["methods"] for seed in (1, 2)
    }
    assert methods.command and methods.commit and methods.date
    assert sum(trial.chosen for trial in methods.tuning) == 2
    assert {run.x for run in experiments["meta_degraded"].runs} == {"clean", "half wrong"}
    text = page.read_text()
    assert all(name in text for name in ("mama", "oracle", "Swapped captions", "half wrong"))
    assert "uniform" in (page.parent / "tables.md").read_text()
    assert list(page.parent.glob("*.png"))

    before = cells_of(storage)
    lost, damaged = sorted(before)[:2]
    (storage / "cells" / lost).unlink()
    (storage / "cells" / damaged).write_text('{"curve": [')
    runs = [run.model_dump(exclude={"step_s"}) for run in methods.runs]
    study(small_job(storage))
    after = cells_of(storage)
    assert {name for name in after if after[name] != before.get(name)} == {lost, damaged}
    again = read_experiments(storage / "results")["methods"]
    assert [run.model_dump(exclude={"step_s"}) for run in again.runs] == runs

    shutil.copytree(storage / "results", tmp_path / "kept")
    drawn = study(small_job(tmp_path / "new", results=str(tmp_path / "kept"), render_only=True))
    # What was drawn differs by the seconds of the two runs made again, which the page rounds or leaves out.
    assert Path(drawn.rsplit(": ", 1)[1]).read_text() == page.read_text()
    assert not (tmp_path / "new" / "cells").exists()

    moved = {"results": str(tmp_path / "kept"), "continues_results": True}
    assert study(small_job(tmp_path / "moved", plan=True, **moved)).split()[1:3] == ["30", "30"]
    study(small_job(tmp_path / "moved", **moved))
    assert not cells_of(tmp_path / "moved") and not list((tmp_path / "moved").glob("corpus-*"))
    (tmp_path / "kept" / "swapped.json").unlink()  # an experiment that is not whole is run, and the tuning is not
    left = study(small_job(tmp_path / "moved", plan=True, **moved)).split()
    assert int(left[1]) - int(left[2]) == 12


@pytest.mark.slow
@pytest.mark.vllm
def test_cells_with_generated_captions_read_a_table_that_the_captioning_job_wrote(ray_cluster, tmp_path):
    methods = {"uniform": {}, "captions": {"captions": "narrator", "generated_share": 1.0}}
    experiment = {"title": "Captions", "question": "Do they help?", "methods": tuple(methods)}
    job = small_job(
        tmp_path,
        methods=methods,
        tuning={},
        seeds=(1,),
        experiments={"captions": experiment},
        captioning={"narrator": {"sampling": {"temperature": 0.0}}},
    )
    study(job)
    plain, captioned = read_experiments(tmp_path / "results")["captions"].runs
    assert plain.final.train_loss != captioned.final.train_loss
    (table,) = tmp_path.glob("corpus-*/captions-*/captions.json")
    assert sum(json.loads(table.read_text())["files"].values()) == 48


def test_mistakes_show_before_anything_is_made(tmp_path):
    methods = {"uniform": {"captions": "narator"}}
    experiments = {"e": {"title": "t", "question": "q", "methods": ("uniform",)}}
    plain = {"tuning": {}, "tuned_as": {}, "captioning": {"narrator": {}}}
    job = small_job(tmp_path / "s", methods=methods, experiments=experiments, **plain)
    with pytest.raises(UserError, match="unknown captions of a cell: got narator"):
        study(job)
    assert not (tmp_path / "s").exists()
    remote = small_job(tmp_path).model_copy(update={"storage": "s3://bucket/study"})
    with pytest.raises(UserError, match="runs map its files into memory"):
        study(remote)
    empty = small_job(tmp_path / "none", render_only=True)
    with pytest.raises(UserError, match="no results of a study"):
        study(empty)


def test_methods_are_tuned_as_others_are(tmp_path):
    job = small_job(tmp_path, tuned_as={"mama": "learned"})
    assert job.take_over({"learned": {"meta.inner.lr": 0.1}})["mama"] == {"meta.inner.lr": 0.1}
    for wrong in ({"mama": "oracle"}, {"mamas": "learned"}, {"uniform": "learned"}):
        with pytest.raises(ValueError, match="wanted an untuned method and a tuned one"):
            small_job(tmp_path, tuned_as=wrong)


def test_the_plan_is_told_without_making_anything(tmp_path, caplog):
    caplog.set_level("INFO")
    last = study(small_job(tmp_path / "s", plan=True, num_parallel=2))
    told = [*caplog.messages, last]
    lines = {line[:24].strip(): line.split()[-3:] for line in told}
    assert not (tmp_path / "s").exists()
    assert lines["tuning, without widening"][:2] == ["4", "0"]
    assert lines["methods"][:2] == ["10", "0"] and lines["all"][:2] == ["22", "0"]
    # Swapped 0.3 is the default, so those runs are those of `methods`; so is a clean meta-set.
    assert lines["swapped"][:2] == ["6", "0"] and lines["meta_degraded"][:2] == ["2", "0"]
    assert float(lines["all"][2]) > 0


def test_a_part_of_the_experiments_can_be_asked_for(tmp_path):
    job = small_job(tmp_path / "s", plan=True, only=("swapped",))
    assert study(job).split()[1] == "16"  # 4 of the tuning and 12 of its own
    with pytest.raises(ValueError, match="only: got swaped, wanted some of methods, swapped, meta_degraded"):
        small_job(tmp_path, only=("swaped",))


def test_seeds_of_the_tuning_are_never_tested_on(tmp_path):
    with pytest.raises(ValueError, match="seeds and tuning_seeds share"):
        small_job(tmp_path, tuning_seeds=(1,))
    with pytest.raises(ValueError, match="all different"):
        small_job(tmp_path, seeds=(1, 1))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_cell_of_the_repositorys_studies_is_possible(path):
    job = load_config(StudyJob, path)
    trials = tuning_of(job).plan()
    runs = plan_runs(job.cell, job.experiments, job.methods, {}, job.seeds)
    assert runs and all(isinstance(planned.cell, CellConfig) for planned in [*trials, *runs])
    assert {run.cell.captions for run in runs} <= {None, *job.captioning}
    compared = [experiment.methods[0] for experiment in job.experiments.values()]
    assert set(compared) <= set(job.methods)


def test_the_tables_of_the_documentation_are_those_of_its_results():
    experiments = read_experiments(ROOT / "docs" / "study")
    written = (ROOT / "docs" / "study" / "tables.md").read_text()
    assert written == study_tables_markdown(experiments), "run make study-report"


def test_the_results_of_the_documentation_are_whole():
    job = load_config(StudyJob, ROOT / "configs" / "study" / "study.yaml")
    planned = plan_runs(job.cell, job.experiments, job.methods, {}, job.seeds)
    for name, results in read_experiments(ROOT / "docs" / "study").items():
        wanted = {(run.method, run.x, run.cell.seed) for run in planned if run.experiment == name}
        assert {(run.method, run.x, run.seed) for run in results.runs} == wanted, name
        assert "with changes" not in results.commit and "configs/study/study.yaml" in results.command
