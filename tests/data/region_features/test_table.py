"""The table of features: a clip is read alone, and only for the very video that it was made of."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.data.region_features.boxes import join_regions
from mama_ray.data.region_features.table import (
    CHUNK_CLIPS,
    INDEX_NAME,
    SUMMARY_NAME,
    FeatureShape,
    FeatureTable,
    chunk_name,
    read_chunk_index,
    write_chunk,
)
from mama_ray.errors import UserError
from mama_ray.storage.places import Place

SHAPE = FeatureShape(num_clips=2, frames_per_clip=3, num_regions=4, frame_dim=5, region_dim=6)
NUM_ROWS = CHUNK_CLIPS + 3


def row_of(row: int) -> dict:
    rng = np.random.default_rng(row)
    known = {"row": row, "clip_id": f"clip {row}", "video_sha256": f"{row:064d}", "width": 64, "height": 48}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPE.arrays.items()}
    if row == 2:
        return known | {"error": "broken", "width": None, "height": None} | dict.fromkeys(arrays)
    return known | {"error": None} | arrays


@pytest.fixture
def table(tmp_path) -> Place:
    folder = Place.of(tmp_path / "features")
    for chunk in range(2):
        rows = [row_of(row) for row in range(NUM_ROWS) if row // CHUNK_CLIPS == chunk]
        write_chunk(folder, chunk, rows, SHAPE)
    indices = [read_chunk_index(folder, chunk, SHAPE) for chunk in range(2)]
    pq.write_table(pa.concat_tables(indices), tmp_path / "features" / INDEX_NAME)
    summary = {"version": 1, "shape": SHAPE.model_dump(), "num_rows": NUM_ROWS, "job": {}}
    (folder / SUMMARY_NAME).write_whole(json.dumps(summary))
    return folder


def test_each_clip_comes_back_with_its_first_regions_and_boxes(table):
    features = FeatureTable(table)
    for row in (0, 1, CHUNK_CLIPS - 1, CHUNK_CLIPS, NUM_ROWS - 1):
        wanted = row_of(row)
        found = features.read(f"clip {row}", f"{row:064d}", num_regions=3)
        np.testing.assert_array_equal(found["frames"], wanted["frames"])
        joined = join_regions(wanted["regions"][:, :, :3], wanted["boxes"][:, :, :3], width=64, height=48)
        np.testing.assert_array_equal(found["regions"], joined)
    assert features.read("clip 0", f"{0:064d}")["regions"].shape == (2, 3, 4, 11)


@pytest.mark.parametrize(
    ("clip_id", "sha", "num_regions", "words"),
    [
        ("clip 99", 99, None, "no features of clip clip 99"),
        ("clip 1", 2, None, "are of another video"),
        ("clip 2", 2, None, "clip clip 2 has no features: got broken"),
        ("clip 1", 1, 5, "fewer regions than the model: got 4, wanted at least 5"),
    ],
)
def test_what_it_has_not_is_told_in_one_line(table, clip_id, sha, num_regions, words):
    with pytest.raises(UserError, match=words):
        FeatureTable(table).read(clip_id, f"{sha:064d}", num_regions=num_regions)


def test_damaged_and_unfinished_tables_are_told(table, tmp_path):
    path = tmp_path / "features" / chunk_name(0)
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert read_chunk_index(table, 0, SHAPE) is None
    with pytest.raises(UserError, match="missing or damaged"):
        FeatureTable(table).read("clip 1", f"{1:064d}")
    other = FeatureShape(**(SHAPE.model_dump() | {"num_regions": 3}))
    path.write_bytes(whole)
    assert read_chunk_index(table, 0, other) is None
    (table / SUMMARY_NAME).write_whole("{}")
    with pytest.raises(UserError, match="not of its form"):
        FeatureTable(table)
    (table / SUMMARY_NAME).delete_file()
    with pytest.raises(UserError, match="no table of features"):
        FeatureTable(table)


@pytest.mark.parametrize("num_regions", [0, -1])
def test_no_regions_are_refused(table, num_regions):
    with pytest.raises(UserError, match=f"num_regions: got {num_regions}, wanted at least 1"):
        FeatureTable(table).read("clip 1", f"{1:064d}", num_regions=num_regions)


def _without_frames(chunk: pa.Table) -> pa.Table:
    place = chunk.schema.get_field_index("frames")
    return chunk.set_column(place, chunk.schema.field(place), pa.nulls(len(chunk), chunk.schema.field(place).type))


def _without_numbers(chunk: pa.Table) -> pa.Table:
    place = chunk.schema.get_field_index("frames")
    field = chunk.schema.field(place)
    return chunk.set_column(place, field, pa.array([[float("nan")] * field.type.list_size] * len(chunk), field.type))


def _without_size(chunk: pa.Table) -> pa.Table:
    place = chunk.schema.get_field_index("width")
    return chunk.set_column(place, chunk.schema.field(place), pa.array([0] * len(chunk), pa.int32()))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda chunk: pa.table({"x": list(range(len(chunk)))}), "is damaged: got 1 rows of 1 columns"),
        (_without_frames, "is damaged: got nothing of clip clip 1"),
        (_without_size, "is damaged: got nothing of clip clip 1"),
        (_without_numbers, "the frames of clip clip 1 hold values that are no numbers"),
    ],
)
def test_a_file_of_another_form_is_one_line(table, change, told):
    path = (table / chunk_name(0)).path
    pq.write_table(change(pq.read_table(path)), path, row_group_size=1)
    with pytest.raises(UserError, match=told):
        FeatureTable(table).read("clip 1", f"{1:064d}")


def test_a_file_whose_clips_are_not_apart_is_one_line(table):
    path = (table / chunk_name(0)).path
    pq.write_table(pq.read_table(path), path)
    with pytest.raises(UserError, match=f"is damaged: got {CHUNK_CLIPS} rows"):
        FeatureTable(table).read("clip 0", f"{0:064d}")
