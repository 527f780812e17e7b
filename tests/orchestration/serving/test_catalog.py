"""Clips by their ids, every caption of each, and filters, against loops over the rows."""

import numpy as np
import pyarrow as pa
import pytest

from mama_ray.captioning.table import CAPTION_SCHEMA
from mama_ray.data.index import INDEX_SCHEMA, read_index
from mama_ray.errors import UserError
from mama_ray.orchestration.serving.catalog import Catalog, open_catalog
from mama_ray.orchestration.serving.filters import Choice, Filters
from mama_ray.storage.places import Place
from tests.orchestration.captioning.caption_tables import captions_of, write_table


@pytest.fixture(scope="module")
def rows(small_shards) -> list[dict]:
    return read_index(Place.of(small_shards)).to_pylist()


@pytest.fixture(scope="module")
def catalog(small_shards, tmp_path_factory) -> Catalog:
    folder = tmp_path_factory.mktemp("tables")
    first = captions_of(str(small_shards), "train")
    first[0] |= {"caption": None, "error": "the clip was gone"}
    first[1] |= {"flags": ["long", "grid"]}
    first[2] |= {"flags": ["grid"]}
    second = [row | {"sample": 1} for row in reversed(captions_of(str(small_shards), "val", text="said of {}"))]
    second.append({"clip_id": "of-another-corpus", "video_sha256": "0", "caption": "nobody's"})
    (folder / "a").mkdir()
    tables = [write_table(folder / "a/captions", first), write_table(folder / "b/captions", second)]
    return open_catalog(Place.of(small_shards), tables)


def test_every_clip_is_found_by_its_id_and_no_other_is(catalog, rows):
    assert [catalog.row_of(row["clip_id"]) for row in rows] == list(range(len(rows)))
    for name in ("", "simple", "zzz", "simple-0-train-000000x", "\0", "../x", "\ud800"):
        assert catalog.row_of(name) is None
    assert catalog.rows_of(["none", rows[3]["clip_id"]]).tolist() == [-1, 3]


def test_a_clip_has_its_own_captions_and_then_those_of_the_tables(catalog, rows):
    row = next(row for row in rows if row["split"] == "val")
    record = catalog.record(row["clip_id"])
    own = [(caption["text"], caption["source"], None) for caption in row["captions"]]
    assert [(line.text, line.source, line.table) for line in record.captions] == [
        *own,
        (f"said of {row['clip_id']}", "generated", "captions (2)"),
    ]
    assert catalog.num_foreign == 1


def test_a_caption_of_another_video_with_the_same_id_is_left_out(small_shards, rows, tmp_path):
    clips = read_index(
        Place.of(small_shards), [name for name in INDEX_SCHEMA.names if name not in ("truth", "questions")]
    )
    originals = pa.array(["0" * 64, "1" * 64, *[None] * (len(clips) - 2)], pa.large_string())
    clips = clips.set_column(clips.schema.get_field_index("source_sha256"), "source_sha256", originals)
    written = [{"clip_id": row["clip_id"], "video_sha256": row["sha256"], "caption": "its own"} for row in rows[:4]]
    written[1]["video_sha256"] = "1" * 64  # of what the clip was made smaller from
    written[2]["video_sha256"] = "0" * 64  # of what another clip was made from
    written[3]["video_sha256"] = None
    table = pa.Table.from_pylist(written, CAPTION_SCHEMA)
    catalog = Catalog(clips, [("old", table)])
    shown = [any(line.table == "old" for line in catalog.record(row["clip_id"]).captions) for row in rows[:4]]
    assert (shown, catalog.num_foreign) == ([True, True, False, False], 2)
    uri = write_table(tmp_path / "old", [row | {"video_sha256": "2" * 64} for row in written])
    assert open_catalog(Place.of(small_shards), [uri]).num_foreign == 4


@pytest.mark.parametrize(
    ("choice", "passes"),
    [
        (Choice(splits=["val", "test"]), lambda row, tables: row["split"] in ("val", "test")),
        (Choice(topics=["star", ""]), lambda row, tables: (row["topic"] or "") in ("star", "")),
        (Choice(sources=["generated"]), lambda row, tables: any(line.table and line.text for line in tables)),
        (Choice(flags=["grid"]), lambda row, tables: any("grid" in line.flags for line in tables)),
        (Choice(without_flags=True), lambda row, tables: not any(line.flags for line in tables)),
        (Choice(error="with"), lambda row, tables: any(line.error for line in tables)),
        (Choice(error="without"), lambda row, tables: not any(line.error for line in tables)),
        (Choice(min_duration_s=1.0, max_duration_s=1.0), lambda row, tables: row["duration_s"] == 1.0),
        (Choice(min_duration_s=1.5), lambda row, tables: row["duration_s"] >= 1.5),
        (
            Choice(splits=["train"], flags=["long", "grid"], error="without"),
            lambda row, tables: row["split"] == "train" and any(line.flags for line in tables),
        ),
    ],
)
def test_a_filter_passes_what_a_loop_over_the_clips_passes(catalog, rows, choice, passes):
    expected = [bool(passes(row, catalog.record(row["clip_id"]).captions)) for row in rows]
    np.testing.assert_array_equal(Filters(catalog).allowed(choice), expected)


def test_no_choice_filters_nothing(catalog):
    assert Filters(catalog).allowed(Choice()) is None


@pytest.mark.parametrize("choice", [Choice(splits=["tests"]), Choice(sources=["people"]), Choice(flags=["gird"])])
def test_an_unknown_name_is_told_with_the_known_ones(catalog, choice):
    with pytest.raises(UserError, match=r"unknown \w+: got \w+, wanted one of"):
        Filters(catalog).allowed(choice)


def test_what_can_be_chosen_is_counted(catalog, rows):
    facets = Filters(catalog).facets
    for name, key in (("splits", "split"), ("topics", "topic")):
        counted = {one["name"]: one["count"] for one in facets[name]}
        assert counted == {
            value: sum((row[key] or "") == value for row in rows) for value in {row[key] or "" for row in rows}
        }
    assert facets["flags"] == [{"name": "grid", "count": 2}, {"name": "long", "count": 1}]
    assert facets["num_errors"] == 1
