"""What a trial's run reports in its last moment reaches the sweep."""

import pytest
import ray
from ray import tune

from mama_ray.orchestration.sweep.trial import DeliveredReports

NUM_TRIALS = 6  # with Ray's own callback twelve of them did not end within 400 s


@pytest.mark.ray
@pytest.mark.slow
def test_a_report_right_before_the_end_of_a_trial_is_not_lost(ray_cluster, tmp_path):
    @ray.remote(num_cpus=0)
    def report_as_the_controller_does(reports, value):
        reports.after_report(None, [{"value": value}], None)

    def run_trial(config):
        ray.get(report_as_the_controller_does.remote(DeliveredReports(), config["value"]))

    results = tune.Tuner(
        tune.with_resources(run_trial, {"CPU": 0.1}),
        param_space={"value": tune.grid_search(list(range(NUM_TRIALS)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=4),
        run_config=tune.RunConfig(name="reports", storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert sorted(result.metrics.get("value", -1) for result in results) == list(range(NUM_TRIALS))
