"""What a sweep leaves behind tells where its values mean different things."""

import json

import pytest

from mama_ray.orchestration.sweep.database import requeue_unfinished
from mama_ray.orchestration.sweep.job import SweepJob
from mama_ray.orchestration.sweep.plan import plan_sweep
from mama_ray.orchestration.sweep.report import write_outcome
from mama_ray.storage.places import Place
from tests.orchestration.sweep.studies import NUM_STEPS, opened, result, search_on, store_at

SPACE = {"objective.margin": {"uniform": [0.0, 0.4]}}


def test_a_run_that_went_on_after_a_kill_has_its_whole_curve(tmp_path):
    with store_at(tmp_path) as store:
        opened(store)
        search = search_on(store)
        search.suggest("a")
        search.on_trial_result("a", result(3, 10.0))
        search.on_trial_result("a", result(6, 20.0))
    with store_at(tmp_path) as store:
        study = opened(store)
        requeue_unfinished(study)
        search = search_on(store)
        search.suggest("b")
        search.on_trial_complete("b", result(NUM_STEPS, 30.0))
        job = SweepJob(storage=str(tmp_path), search_space=SPACE)
        write_outcome(job, plan_sweep(job), study, Place.of(tmp_path), {})
    (trial,) = json.loads((tmp_path / "trials.json").read_text())
    assert trial["curve"] == [[3, 10.0], [6, 20.0], [NUM_STEPS, 30.0]]


@pytest.mark.parametrize(("hashes", "is_told"), [("aa", False), ("ab", True)])
def test_trials_that_were_validated_on_different_clips_are_told(tmp_path, caplog, hashes, is_told):
    with store_at(tmp_path) as store:
        study = opened(store)
        search = search_on(store)
        for name, digest in zip(("trial-0000", "trial-0001"), hashes, strict=True):
            search.suggest(name)
            search.on_trial_complete(name, result(NUM_STEPS, 30.0))
            (tmp_path / "trials" / name).mkdir(parents=True)
            environment = {"data": {"hash_of_ids": {"val": digest}}}
            (tmp_path / "trials" / name / "environment.json").write_text(json.dumps(environment))
        job = SweepJob(storage=str(tmp_path), search_space=SPACE)
        write_outcome(job, plan_sweep(job), study, Place.of(tmp_path), {})
    (page,) = (tmp_path / "report").glob("*.html")
    told = "validated on different clips (trial-0000 and trial-0001)"
    assert (told in caplog.text) == (told in page.read_text()) == is_told
