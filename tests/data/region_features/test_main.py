"""Published files become the table that training reads, clip by clip by the id of its video."""

import h5py
import numpy as np
import pyarrow as pa
import pytest

from mama_ray.data.region_features.__main__ import main, write_published
from mama_ray.data.region_features.boxes import join_regions
from mama_ray.data.region_features.published import PublishedFeatures
from mama_ray.data.region_features.table import CHUNK_CLIPS, SUMMARY_NAME, FeatureTable
from mama_ray.errors import UserError
from mama_ray.storage.places import Place

NUM_CLIPS = CHUNK_CLIPS + 2
SHAPE = (2, 4, 6, 7)


@pytest.fixture
def sources(tmp_path) -> list[PublishedFeatures]:
    """Two pairs of files, the even videos and the odd ones; video 0 is in none, video 3 has values that are none."""
    rng = np.random.default_rng(0)
    found = []
    for part in range(2):
        ids = [str(number) for number in range(1, NUM_CLIPS) if number % 2 == part]
        feat = rng.random((len(ids), *SHAPE), np.float32)
        if "3" in ids:
            feat[ids.index("3"), 0, 0, 0, 0] = np.nan
        paths = tmp_path / f"regions-{part}.h5", tmp_path / f"frames-{part}.h5"
        with h5py.File(paths[0], "w") as file:
            file["ids"], file["feat"] = ids, feat
            file["bbox"] = 40 * rng.random((len(ids), *SHAPE[:3], 4), np.float32)
        with h5py.File(paths[1], "w") as file:
            file["ids"], file["resnet_features"] = ids, rng.random((len(ids), 2, 4, 5), np.float32)
        found.append(PublishedFeatures(*paths, num_regions=5))
    return found


def clips(num: int = NUM_CLIPS) -> pa.Table:
    rows = [
        {"clip_id": f"clip {row}", "video_id": str(row), "sha256": f"{row:064d}", "width": 64, "height": 48}
        for row in range(num)
    ]
    return pa.Table.from_pylist(rows)


@pytest.mark.parametrize("size", [None, (320, 240)])
def test_each_clip_has_the_features_of_its_video(sources, tmp_path, size):
    folder = Place.of(tmp_path / "table")
    assert write_published(clips(), sources, folder, size=size) == 2
    table = FeatureTable(folder)
    width, height = size or (64, 48)
    for row in (1, 2, NUM_CLIPS - 1):
        found, wanted = table.read(f"clip {row}", f"{row:064d}"), sources[row % 2].read_apart(str(row))
        np.testing.assert_array_equal(found["frames"], wanted.frames)
        joined = join_regions(wanted.regions, wanted.boxes, width=width, height=height)
        np.testing.assert_array_equal(found["regions"], joined)
    with pytest.raises(UserError, match="clip 0 has no features: got .* no features of video 0"):
        table.read("clip 0", f"{0:064d}")
    with pytest.raises(UserError, match="clip 3 has no features: got .* no numbers"):
        table.read("clip 3", f"{3:064d}")
    with pytest.raises(UserError, match="a table already"):
        write_published(clips(), sources, folder)


def test_the_index_of_shards_is_not_written_over(sources, tmp_path):
    (tmp_path / "index.parquet").write_bytes(b"of shards")
    with pytest.raises(UserError, match=r"files of others.*index\.parquet.*another --output"):
        write_published(clips(), sources, Place.of(tmp_path))
    assert (tmp_path / "index.parquet").read_bytes() == b"of shards"
    folder = Place.of(tmp_path / "table")
    write_published(clips(), sources, folder)
    (folder / SUMMARY_NAME).delete_file()  # as of a start that was killed before its last file
    assert write_published(clips(), sources, folder) == 2


def test_a_video_in_two_files_and_clips_without_any_are_refused(sources, tmp_path):
    with pytest.raises(UserError, match="a video is in several files: got 2"):
        write_published(clips(), [sources[0], sources[0]], Place.of(tmp_path / "twice"))
    with pytest.raises(UserError, match="no clip has features: got .* no features of video 0"):
        write_published(clips(1), sources, Place.of(tmp_path / "none"))


def test_clips_of_one_video_are_refused(sources, tmp_path):
    two = clips().set_column(1, "video_id", pa.array(["1"] * NUM_CLIPS))
    with pytest.raises(UserError, match=f"features are of whole videos: got {NUM_CLIPS} clips of video 1"):
        write_published(two, sources, Place.of(tmp_path / "table"))


def test_a_frame_without_a_size_is_refused(tmp_path):
    with pytest.raises(UserError, match="--size: got 0 240"):
        main("shards", str(tmp_path / "table"), (), (), size=(0, 240))
