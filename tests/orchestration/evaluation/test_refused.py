"""Which clips of a split prepare refused, as the quarantine beside the index tells it."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mama_ray.data.index import read_index, select_split
from mama_ray.errors import UserError
from mama_ray.orchestration.evaluation.refused import RefusedClips, read_refused
from mama_ray.storage.places import Place
from tests.data.video.video_factory import make_video
from tests.orchestration.prepare.in_process import prepare

ROWS = (
    "good.mp4,good,a,test,red",
    "good.mp4,good,b,test,blue",  # a second row of a clip that is there
    "good.mp4,good,b,val,red",  # val is without it
    "broken.mp4,,c,test,",
    "broken.mp4,,d,test,",  # one clip with two captions
    "nowhere.mp4,,e,test,",
    "broken.mp4,part,f,val,",
    "bad.txt,,g,test,",
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("refused")
    (folder / "videos").mkdir()
    (folder / "videos/good.mp4").write_bytes(make_video(num_frames=4, width=48, height=32))
    (folder / "videos/broken.mp4").write_bytes(b"no video at all" * 20)
    (folder / "clips.csv").write_text("\n".join(["video,clip_id,caption,split,topic", *ROWS, "good.mp4,other,x,val,"]))
    where = {"videos": str(folder / "videos"), "annotations": str(folder / "clips.csv")}
    prepare(**where, output=str(folder / "shards"))
    return folder / "shards"


def refused_of(shards: Path, split: str) -> RefusedClips:
    table = select_split(read_index(Place.of(shards)), split)
    return read_refused(Place.of(shards), split, table["clip_id"].to_pylist(), table["video_id"].to_pylist())


def test_refused_clips_of_a_split_are_found_once_each(shards):
    found = refused_of(shards, "test")
    assert sorted(found.names()) == ["bad.txt", "broken", "nowhere"]
    assert all(clip["reason"] for clip in found.clips)
    assert found.num_unplaced == 0


def test_a_clip_that_another_split_has_is_missing_in_this_one(shards):
    assert sorted(refused_of(shards, "val").names()) == ["good", "part"]


def test_shards_of_an_earlier_version_say_how_many_rows_they_cannot_place(shards, tmp_path):
    table = pq.read_table(shards / "quarantine.parquet")
    pq.write_table(table.drop_columns(["split", "file_bytes", "file_modified_ns"]), tmp_path / "quarantine.parquet")
    assert read_refused(Place.of(tmp_path), "test", [], []) == RefusedClips(num_unplaced=len(table))


def test_without_a_quarantine_nothing_is_known_to_be_refused(tmp_path):
    assert read_refused(Place.of(tmp_path), "test", [], []) == RefusedClips()


def test_a_quarantine_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "quarantine.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(UserError, match="list of refused clips cannot be read"):
        read_refused(Place.of(tmp_path), "test", [], [])
