"""A sweep that was killed goes on: its trials keep their runs and their points."""

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from mama_ray.orchestration.sweep.database import RUN_ATTRIBUTE, latest_by_run, num_finished, requeue_unfinished
from tests.orchestration.sweep.studies import NUM_STEPS, SPACE, opened, result, search_on, store_at


def test_a_killed_sweep_tells_its_orphans_failed_and_gives_their_runs_to_new_trials(tmp_path):
    with store_at(tmp_path) as store:
        opened(store)
        search = search_on(store)
        point = [search.suggest(name)["point"] for name in "abc"][1]
        search.on_trial_complete("a", result(NUM_STEPS, 30.0))
        search.on_trial_complete("c", None, error=True)
    with store_at(tmp_path) as store:  # b was running when everything was killed
        study = opened(store)
        assert requeue_unfinished(study) == 2
        assert not [trial for trial in study.trials if trial.state == TrialState.RUNNING]
        assert requeue_unfinished(study) == 0, "a start that dies at once queues nothing twice"
        search = search_on(store, seed=3)
        assert search.suggest("x") == {"run": "trial-0001", "point": point}
        assert search.suggest("y")["run"] == "trial-0002"
        assert search.suggest("z")["run"] not in {"trial-0000", "trial-0001", "trial-0002"}
        for name in "xyz":
            search.on_trial_complete(name, result(NUM_STEPS, 31.0))
        assert num_finished(study) == 4
        runs = [trial.user_attrs[RUN_ATTRIBUTE] for trial in latest_by_run(study)]
        assert len(runs) == len(set(runs)) == 4
        assert {trial.state for trial in latest_by_run(study)} == {TrialState.COMPLETE}


def test_a_queued_point_is_not_lost_when_the_sweep_is_killed_while_its_trial_is_made(tmp_path):
    with store_at(tmp_path) as store:
        study = opened(store)
        study.ask()  # what has taken the point, but has no name and no values yet
        assert study.trials[0].params == {}
        assert requeue_unfinished(study) == 1
        assert search_on(store).suggest("a") == {"run": "trial-0000", "point": {"objective.margin": 0.1}}
        study.ask()  # one of its own choosing, killed before it chose
        assert requeue_unfinished(study) == 1, "only the one with a point"


def test_a_queued_point_is_whole_when_the_sweep_is_killed_between_two_of_its_values(tmp_path):
    space = SPACE | {"optim.lr": FloatDistribution(1e-4, 1e-2), "meta.lr": FloatDistribution(1e-4, 1e-2)}
    point = {"objective.margin": 0.1, "optim.lr": 2e-3, "meta.lr": 3e-3}
    with store_at(tmp_path) as store:
        study = opened(store, space=space, points=[point])
        study.ask({"optim.lr": space["optim.lr"]})  # as far as it came
        assert requeue_unfinished(study) == 1
        assert study.ask(space).params == point


def test_a_start_that_was_killed_while_it_queued_its_first_points_queues_the_rest(tmp_path):
    points = [{"objective.margin": value} for value in (0.1, 0.2, 0.3)]
    with store_at(tmp_path) as store:
        study = optuna.create_study(storage=store.storage, study_name="sweep", direction="maximize")
        study.enqueue_trial(points[0])
        assert len(opened(store, points=points).trials) == 3
