"""A long list of exclusions takes the same clips and captions away as a short one, and has its hash."""

import numpy as np
import pyarrow as pa
import pytest

from mama_ray.auditing.exclusion_table import ExclusionTable
from mama_ray.auditing.exclusions import (
    Exclusion,
    caption_id,
    exclusions_to_csv,
    hash_exclusions,
    mark_excluded,
    read_exclusions,
)
from mama_ray.data.index import CAPTIONS_TYPE
from mama_ray.storage.places import Place


@pytest.fixture
def listed() -> list[Exclusion]:
    rng = np.random.default_rng(0)
    names = [f"clip-{number:02d}" for number in rng.integers(0, 40, 30)]
    own = [Exclusion(name, caption_id(f"text {name} {number % 3}") if number % 4 else "") for number, name in
           enumerate(names)]  # fmt: skip
    return [*own, own[3], Exclusion("of another corpus"[:2])]


def test_clips_some_at_a_time_lose_what_the_whole_list_takes(listed):
    names = [f"clip-{number:02d}" for number in range(50)]
    captions = [[{"text": f"text {name} {number}", "source": "human"} for number in range(3)] for name in names]
    clips = pa.table({"clip_id": names, "captions": pa.array(captions, CAPTIONS_TYPE)})
    wanted, keep, counts = mark_excluded(clips, listed)
    assert min(counts) > 2, "or there is nothing to compare"
    parts = [ExclusionTable(listed).mark(clips.slice(start, 7)) for start in range(0, 50, 7)]
    assert pa.concat_tables(part for part, _, _ in parts).to_pylist() == wanted.to_pylist()
    assert np.array_equal(np.concatenate([own for _, own, _ in parts]), keep)
    assert np.sum([count for _, _, count in parts], axis=0).tolist() == list(counts)


def test_its_hash_and_its_file_are_those_of_the_list(listed, tmp_path):
    place = Place.of(tmp_path / "exclude.csv")
    place.write_whole(exclusions_to_csv(listed))
    table = ExclusionTable.read(place)
    assert [table[number] for number in range(len(table))] == listed == read_exclusions(place)
    assert table.sha256() == hash_exclusions(listed)
