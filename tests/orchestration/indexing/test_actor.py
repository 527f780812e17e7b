"""What an actor of jobs/index.py holds of the clips of a part."""

import tracemalloc

import numpy as np

from mama_ray.data.index import read_index
from mama_ray.encoder.decoding import VideoError
from mama_ray.orchestration.indexing.actor import embed_clips
from mama_ray.search.towers import Towers
from mama_ray.storage.places import Place
from tests.encoder.tiny_encoder import model_folder  # noqa: F401 - a fixture
from tests.orchestration.indexing.index_runs import clip_of, write_shards

_MIB = 1 << 20


def padded(number: int) -> tuple:
    """Return a clip of 4 MiB, nearly all of it a box that players skip."""
    clip, video, extension = clip_of(number, is_broken=number == 5)
    return clip, video + (4 * _MIB).to_bytes(4) + b"free" + bytes(4 * _MIB - 8), extension


def test_the_bytes_of_few_clips_are_in_memory_and_the_features_are_the_same(tmp_path, model_folder):  # noqa: F811
    shards = Place.of(write_shards(tmp_path / "shards", [[padded(number) for number in range(12)]]))
    towers, records = Towers.load(str(model_folder), num_processes=1), read_index(shards).to_pylist()
    whole = embed_clips(towers, shards, records)
    tracemalloc.start()
    found = embed_clips(towers, shards, records, max_bytes=13 * _MIB)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 * _MIB < sum(record["num_bytes"] for record in records)
    assert [isinstance(one, VideoError) for one in found] == [number == 5 for number in range(12)]
    for one, wanted in zip(found, whole, strict=True):
        assert isinstance(one, VideoError) or np.allclose(one, wanted, atol=1e-5)
