"""The stream of meta batches: shuffled, endless, every clip of the meta-set, in the same order after a resume. And how
many CPUs decode for a worker.
"""

from itertools import islice

import numpy as np
import pytest

from mama_ray.config import load_config
from mama_ray.data.batch import PADDING_ROW
from mama_ray.orchestration.runs.batch_stream import decode_cpus
from mama_ray.orchestration.runs.worker_group import resources_of_worker
from mama_ray.orchestration.training.clip_reader import meta_batches
from mama_ray.orchestration.training.job import TrainJob

NUM_CLIPS, BATCH = 12, 4
META_SET = {
    "frames": np.arange(NUM_CLIPS, dtype=np.uint8)[:, None, None, None, None],
    "token_ids": np.arange(NUM_CLIPS)[:, None],
    "rows": np.arange(NUM_CLIPS),
    "valid": np.ones(NUM_CLIPS, bool),
}


def rows_of(num_batches: int, *, first: int = 0, rank: int = 0, world_size: int = 1, seed: int = 3) -> np.ndarray:
    """Rows of the next meta batches, (num_batches, batch)."""
    stream = meta_batches(
        META_SET, first_meta_step=first, batch_size=BATCH, rank=rank, world_size=world_size, seed=seed
    )
    return np.stack([batch.rows.numpy() for batch in islice(stream, num_batches)])


def test_meta_batches_cover_the_meta_set():
    rounds = rows_of(9).reshape(3, NUM_CLIPS)  # three times through, so the stream does not end with the set
    assert all(sorted(one) == list(range(NUM_CLIPS)) for one in rounds.tolist())


def test_every_round_of_meta_batches_is_shuffled_anew():
    rounds = rows_of(9).reshape(3, NUM_CLIPS).tolist()
    assert len({tuple(one) for one in (*rounds, range(NUM_CLIPS))}) == 4
    assert rows_of(3, seed=4).tolist() != rows_of(3).tolist()


def test_meta_batches_go_on_where_they_were_left():
    np.testing.assert_array_equal(rows_of(5, first=4), rows_of(9)[4:])


def test_the_workers_parts_make_up_the_meta_batch():
    parts = [rows_of(4, rank=rank, world_size=2) for rank in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), rows_of(4))


@pytest.mark.parametrize("world_size", [3, 5])
def test_the_parts_of_any_number_of_workers_are_equally_long_and_padded_at_the_end(world_size):
    parts = [rows_of(4, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {part.shape for part in parts} == {(4, -(-BATCH // world_size))}
    joined = np.concatenate(parts, axis=1)
    np.testing.assert_array_equal(joined[:, :BATCH], rows_of(4))
    assert set(joined[:, BATCH:].flatten()) == {PADDING_ROW}


def test_frames_and_texts_of_a_meta_batch_belong_to_its_rows():
    stream = meta_batches(META_SET, first_meta_step=0, batch_size=BATCH, rank=0, world_size=1, seed=0)
    batch = next(stream)
    assert batch.frames.flatten().tolist() == batch.token_ids.flatten().tolist() == batch.rows.tolist()


def node(group: str, **resources: float) -> dict:
    """A node as Ray tells of it."""
    return {"Alive": True, "Labels": {"mama-ray/group": group}, "Resources": resources}


@pytest.mark.parametrize(("num_decode_cpus", "share"), [((16,), 4.0), ((8,), 1.0), ((16, 16), 8.0)])
def test_workers_whose_resources_decode_nodes_lack_take_none_of_their_cpus(num_decode_cpus, share):
    job = load_config(TrainJob, "configs/train/cluster.yaml")
    decoding = [node("decode", CPU=count) for count in num_decode_cpus]
    nodes = [node("head", CPU=2), *[node("train", CPU=48, GPU=4, train_slot=4)] * 2, *decoding]
    found = decode_cpus(
        job.cpus_per_worker,
        8,
        worker_labels=job.placement.worker_labels,
        worker_resources=resources_of_worker(job, job.placement),
        decode_labels=job.placement.decode_labels,
        nodes=nodes,
    )
    assert found == share
    shared = [node("decode", CPU=16, train_slot=8, GPU=8)]
    assert decode_cpus(1.0, 8, worker_resources={"CPU": 1, "GPU": 1, "train_slot": 1}, nodes=shared) == 1.0
