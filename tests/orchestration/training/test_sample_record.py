"""What a run writes down of single samples: each clip of a recorded step once, whatever is killed and gone on from."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from mama_ray.auditing.record import list_parts, read_record
from mama_ray.data.batch import ClipBatch
from mama_ray.data.plan import EpochPlan, PlanConfig
from mama_ray.orchestration.runs.worker import Worker
from mama_ray.orchestration.training.sample_record import SampleRecorder
from mama_ray.orchestration.training.settings import RecordConfig
from mama_ray.storage.places import Place
from mama_ray.training.loop import StepRecord, train
from tests.training.toy_runs import BATCH, NUM_STEPS, batches, meta_stream, new_state

NUM_CLIPS = 20  # no multiple of the batch: a step may straddle two epochs
PLAN = EpochPlan([NUM_CLIPS], PlanConfig(seed=3))
IDS = pa.array([f"clip-{row}" for row in range(NUM_CLIPS)])


def planned_batches(first: int, unreadable: int = -1) -> Iterator[ClipBatch]:
    """Yield the toys' batches with the rows of the plan."""
    for step, batch in enumerate(batches(first, NUM_STEPS), start=first):
        rows = torch.from_numpy(PLAN.global_batch(step, BATCH)[0])
        yield replace(batch, rows=rows, valid=rows != unreadable)


def recorder_of(folder, first_step: int = 0, *, every: int = 1, from_epoch: float = 0.0) -> SampleRecorder:
    worker = Worker(0, 1, torch.device("cpu"), Place.of(folder))
    config = RecordConfig(every=every, from_epoch=from_epoch)
    sizes = {"first_step": first_step, "global_batch_size": BATCH}
    return SampleRecorder(config, worker, PLAN, lambda rows: rows, pa.table({"clip_id": IDS}), **sizes)


def run(folder, *, until: int = NUM_STEPS, save_every: int = 4, unreadable: int = -1, **asked) -> list[StepRecord]:
    """Train to the end, writing every few steps; stop before step `until` is taken."""
    recorder, state, seen = recorder_of(folder, **asked), new_state(), []

    def report(record: StepRecord) -> None:
        seen.append(record)
        recorder.add(record)
        if state.step % save_every == 0 or state.step == NUM_STEPS:
            recorder.write(state.step)

    state.num_steps = until
    train(state, planned_batches(0, unreadable), meta_stream(0), report=report)
    return seen


def read(folder) -> list[dict]:
    return [row for table in read_record(Place.of(folder), NUM_STEPS) for row in table.to_pylist()]


def test_each_clip_of_each_step_has_one_row_with_what_the_step_saw(tmp_path):
    seen = run(tmp_path)
    rows = read(tmp_path)
    for record in seen:
        planned, epochs = PLAN.global_batch(record.step, BATCH)
        own = [row for row in rows if row["step"] == record.step]
        assert [(row["sample"], row["epoch"], row["clip_id"]) for row in own] == [
            (sample, epoch, f"clip-{sample}") for sample, epoch in zip(planned, epochs, strict=True)
        ]
        assert [row["loss"] for row in own] == pytest.approx(record.losses.tolist())
        assert np.mean([row["weight"] for row in own]) == pytest.approx(1.0), "1 is uniform"
        assert all(-1.001 <= row["cosine"] <= 1.001 for row in own)
    assert len(rows) == NUM_STEPS * BATCH


def test_texts_of_one_source_are_recorded_as_samples_of_their_clips(tmp_path):
    """With data.shares a batch has its clips' rows, and the plan numbers of samples: source by source all clips."""
    num_clips = NUM_CLIPS // 2
    clips = pa.table({"clip_id": IDS.slice(0, num_clips)})
    worker = Worker(0, 1, torch.device("cpu"), Place.of(tmp_path))
    sizes = {"first_step": 0, "global_batch_size": BATCH}
    recorder = SampleRecorder(RecordConfig(every=1), worker, PLAN, lambda samples: samples % num_clips, clips, **sizes)
    state = new_state()
    of_clips = (replace(batch, rows=batch.rows % num_clips) for batch in planned_batches(0))
    train(state, of_clips, meta_stream(0), report=recorder.add)
    recorder.write(NUM_STEPS)
    rows = read(tmp_path)
    planned = np.concatenate([PLAN.global_batch(step, BATCH)[0] for step in range(NUM_STEPS)])
    assert [row["sample"] for row in rows] == planned.tolist() and planned.max() >= num_clips
    assert [row["clip_id"] for row in rows] == [f"clip-{sample % num_clips}" for sample in planned]


def test_the_cosine_is_that_of_the_clip_and_its_own_text(tmp_path):
    state = new_state()
    batch = next(planned_batches(0))
    with torch.no_grad():
        wanted = (state.model.encode_video(batch.frames) * state.model.encode_text(batch.token_ids)).sum(1)
    run(tmp_path)
    assert [row["cosine"] for row in read(tmp_path) if row["step"] == 0] == pytest.approx(wanted.tolist(), abs=1e-5)


def test_a_clip_that_cannot_be_read_keeps_its_row_without_numbers(tmp_path):
    run(tmp_path, unreadable=7)
    rows = read(tmp_path)
    bad = [row for row in rows if row["sample"] == 7]
    assert bad
    assert {(row["loss"], row["weight"], row["cosine"]) for row in bad} == {(None, None, None)}
    for step in range(NUM_STEPS):
        weights = [row["weight"] for row in rows if row["step"] == step and row["weight"] is not None]
        assert np.mean(weights) == pytest.approx(1.0)


def test_only_the_steps_that_were_asked_for_are_recorded(tmp_path):
    run(tmp_path, every=3, from_epoch=1.0)
    wanted = [step for step in range(0, NUM_STEPS, 3) if step * BATCH >= NUM_CLIPS]
    assert sorted({row["step"] for row in read(tmp_path)}) == wanted


def test_by_default_nothing_is_written(tmp_path):
    run(tmp_path, every=RecordConfig().every)
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_killed_and_goes_on_has_each_row_once(tmp_path):
    """Killed after the record of steps 4 to 7 was written and before their checkpoint counted: it goes on at step 4."""
    run(tmp_path, until=10)
    recorder = recorder_of(tmp_path, 4)
    assert [part.stop for part in list_parts(Place.of(tmp_path))] == [4]
    state = new_state()
    state.step = 4

    def report(record: StepRecord) -> None:
        recorder.add(record)
        if state.step in (6, NUM_STEPS):  # and saves at other steps than before
            recorder.write(state.step)

    train(state, planned_batches(4), meta_stream(2), report=report)
    found = sorted((row["step"], row["sample"], row["epoch"]) for row in read(tmp_path))
    steps = [(step, *PLAN.global_batch(step, BATCH)) for step in range(NUM_STEPS)]
    assert found == sorted((step, *pair) for step, rows, epochs in steps for pair in zip(rows, epochs, strict=True))
