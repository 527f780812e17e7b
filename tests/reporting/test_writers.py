"""Metrics survive a crash at any byte and no step is ever there twice."""

import json

import pytest
from pyarrow import fs

from mama_ray.errors import UserError
from mama_ray.reporting.writers import MetricsWriter, read_metrics, read_series
from mama_ray.storage.places import Place


def write_steps(folder, steps, *, start_step=0, tensorboard=False):
    folder = folder if isinstance(folder, Place) else Place.of(folder)
    with MetricsWriter(folder, start_step=start_step, tensorboard=tensorboard) as writer:
        for step in steps:
            writer.write(step, {"train/loss": float(step)})


def test_resume_drops_the_steps_that_will_run_again(tmp_path):
    write_steps(tmp_path, range(1, 9))
    write_steps(tmp_path, range(6, 11), start_step=5)
    assert read_series(read_metrics(Place.of(tmp_path)), "train/loss") == (list(range(1, 11)), list(range(1, 11)))


def test_records_of_an_earlier_version_count_as_those_of_today(tmp_path):
    # Before, a record bore the number of the step that was done last, from 0.
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}, "train/loss": {step + 1}}}\n' for step in range(8)))
    before = path.read_text().splitlines()
    assert read_series(read_metrics(Place.of(tmp_path)), "train/loss")[0] == list(range(1, 9))
    write_steps(tmp_path, range(6, 11), start_step=5)  # it goes on from its checkpoint of five steps
    assert read_series(read_metrics(Place.of(tmp_path)), "train/loss") == (list(range(1, 11)), list(range(1, 11)))
    assert path.read_text().splitlines()[:5] == before[:5], "what was written stays as it is"


@pytest.mark.parametrize("lost_bytes", [1, 5, 30])
def test_a_torn_last_line_is_dropped(tmp_path, lost_bytes):
    write_steps(tmp_path, range(1, 4))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-lost_bytes])
    write_steps(tmp_path, [4], start_step=3)
    steps = [record["step"] for record in read_metrics(Place.of(tmp_path))]
    assert steps in ([1, 2, 4], [1, 2, 3, 4])
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == steps


def test_damage_in_the_middle_is_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\nnot json\n{"step": 2}\n')
    with pytest.raises(UserError, match="line 2"):
        read_metrics(Place.of(tmp_path))


def test_nan_is_written_as_null_and_left_out_of_series(tmp_path):
    with MetricsWriter(Place.of(tmp_path), tensorboard=False) as writer:
        writer.write(0, {"train/loss": float("nan")})
        writer.write(1, {"train/loss": 2.0})
    records = read_metrics(Place.of(tmp_path))
    assert records[0]["train/loss"] is None
    assert read_series(records, "train/loss") == ([1], [2.0])


def test_an_unknown_name_is_refused(tmp_path):
    with MetricsWriter(Place.of(tmp_path), tensorboard=False) as writer, pytest.raises(UserError, match="metric"):
        writer.write(0, {"train/lss": 1.0})


def test_tensorboard_gets_the_scalars(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsWriter(Place.of(tmp_path)) as writer:
        writer.write(3, {"train/loss": 1.5, "weights/curve_loss": [0.0, 1.0]})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(3, 1.5)]
    assert events.Tags()["scalars"] == ["train/loss"]


def test_storage_that_cannot_append_is_mirrored(tmp_path):
    remote = Place(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "run", "run")
    write_steps(remote, range(1, 5))
    write_steps(remote, range(3, 5), start_step=2)
    assert [record["step"] for record in read_metrics(remote)] == [1, 2, 3, 4]


def test_no_file_means_no_records(tmp_path):
    assert read_metrics(Place.of(tmp_path)) == []
