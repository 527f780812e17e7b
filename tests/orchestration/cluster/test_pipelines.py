"""Numbers are worked off in runs, each of which is a pipeline of its own."""

import pytest

from mama_ray.orchestration.cluster import pipelines


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7])
def test_every_number_is_in_one_run(monkeypatch, count):
    monkeypatch.setattr(pipelines, "NUMBERS_PER_PIPELINE", 3)
    runs = list(pipelines.runs_of(count))
    assert [number for run in runs for number in run] == list(range(count))
    assert all(0 < len(run) <= 3 for run in runs)
