"""What a run that goes on takes over of what it told before."""

import pytest

from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.recorder import quarantined_before
from mama_ray.reporting.writers import MetricsWriter
from mama_ray.storage.places import Place


@pytest.mark.parametrize(("step", "expected"), [(0, 0), (9, 0), (10, 2), (25, 5), (30, 9)])
def test_clips_left_out_are_counted_on_from_the_records_that_a_resumed_run_keeps(tmp_path, step, expected):
    job = TrainJob(storage=str(tmp_path), run="run")
    (tmp_path / "run").mkdir()
    assert quarantined_before(job, step) == 0
    with MetricsWriter(Place.of(tmp_path / "run"), tensorboard=False) as metrics:
        for done, count in ((10, 2), (20, 5), (30, 9)):
            metrics.write(done, {"data/num_quarantined": count})
            metrics.write(done, {"val/t2v_R@1": 3.0})
    assert quarantined_before(job, step) == expected
