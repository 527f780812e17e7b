"""Long videos that become a clip for each scene: what is cut, what stays whole, and the same command again."""

import numpy as np
import pytest

from mama_ray.data.reading import read_clip_bytes
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.plan import make_plan
from mama_ray.orchestration.prepare.run import run
from mama_ray.storage.places import Place
from tests.data.video.scene_factory import make_scenes, scene_of
from tests.orchestration.prepare.in_process import DONE, index_rows, options, prepare, reasons, run_tasks

SCENES = {"scenes": {"detector": "content"}}


@pytest.fixture(scope="module")
def long_mp4() -> bytes:
    return make_scenes([2, 3, 2.5])


@pytest.fixture
def videos(tmp_path, long_mp4):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("day one", "evening"):
        (folder / f"{name}.mp4").write_bytes(long_mp4)
    (folder / "short.mp4").write_bytes(make_scenes([2]))
    return folder


def test_a_folder_of_long_videos_becomes_a_clip_for_each_scene(tmp_path, videos):
    (videos / "broken.mp4").write_bytes(b"no video")
    told = prepare(**options(tmp_path, clips_per_shard=2, **SCENES))
    assert told.startswith("7 clips in 5 shards, 7 without caption, 1 quarantined (1 not a readable video")
    rows = index_rows(tmp_path)
    assert len({row["clip_id"] for row in rows}) == 7
    for name in ("day one", "evening"):
        clips = [row for row in rows if row["video_id"] == name]
        assert np.allclose([(row["start_s"], row["end_s"]) for row in clips], [(0, 2), (2, 5), (5, 7.5)], atol=1e-3)
        for number, row in enumerate(clips):
            assert row["clip_id"].startswith(name.replace(" ", "-"))
            decoder = VideoDecoder(video_of(tmp_path, row))
            assert {scene_of(frame) for frame in decoder.frames_by_index(range(decoder.num_frames))} == {number}
            assert decoder.duration_s == pytest.approx(row["end_s"] - row["start_s"], abs=1e-3)
    (short,) = (row for row in rows if row["video_id"] == "short")
    assert short["clip_id"] == "short" and video_of(tmp_path, short) == (videos / "short.mp4").read_bytes()


def video_of(folder, row) -> bytes:
    return read_clip_bytes(Place.of(folder / "out"), row["shard"], row["offset"], row["num_bytes"])


def test_the_same_command_takes_in_what_is_new_or_mended_and_nothing_else(tmp_path, videos, long_mp4):
    (videos / "broken.mp4").write_bytes(b"no video")
    given = options(tmp_path, **SCENES)
    assert prepare(**given).startswith("7 clips")
    assert prepare(**given) == DONE
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    (videos / "broken.mp4").write_bytes(long_mp4)
    (videos / "new.mp4").write_bytes(long_mp4)
    assert prepare(**given).startswith("13 clips in ") and not reasons(tmp_path / "out")
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}.items()
    assert len({row["clip_id"] for row in index_rows(tmp_path)}) == 13
    assert prepare(**given) == DONE


def test_a_table_is_mended_too_and_its_other_rows_stay_as_they_are(tmp_path, videos, long_mp4):
    rows = [
        {"video": "day one.mp4", "split": "val"},
        {"video": "evening.mp4", "caption": "an evening"},
        {"video": "evening.mp4", "start_s": 1, "end_s": 2},
        {"video": "gone.mp4"},
        {"video": "told.mp4", "caption": "somebody tells"},
    ]
    given = options(tmp_path, rows, **SCENES)
    assert prepare(**given).startswith("5 clips in ")
    found = {(row["video_id"], row["start_s"], row["split"]): len(row["captions"]) for row in index_rows(tmp_path)}
    assert found == {
        ("day one", 0.0, "val"): 0,
        ("day one", 2.0, "val"): 0,
        ("day one", 5.0, "val"): 0,
        ("evening", 0.0, "train"): 1,
        ("evening", 1.0, "train"): 0,
    }
    (videos / "gone.mp4").write_bytes(long_mp4)
    assert prepare(**given).startswith("8 clips in ") and len(reasons(tmp_path / "out")) == 1
    (videos / "told.mp4").write_bytes(long_mp4)  # a mend in which nothing is to be cut
    assert prepare(**given).startswith("9 clips in ") and not reasons(tmp_path / "out")


def test_a_prepare_that_was_killed_goes_on(tmp_path, videos):
    given = options(tmp_path, clips_per_shard=2, **SCENES)
    job = PrepareJob(**given)
    plan = make_plan(job)
    assert plan is not None and len(plan.chunks) == 3  # a long video for each task
    run_tasks(job, plan)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    assert prepare(**given).startswith("7 clips in 5 shards")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")} == before


def test_all_scenes_of_a_video_are_in_one_split(tmp_path, videos, long_mp4):
    for number in range(20):
        (videos / f"more{number}.mp4").write_bytes(long_mp4)
    prepare(**options(tmp_path, split=("train", "0.5", "val", "0.5"), **SCENES))
    splits: dict[str, set] = {}
    for row in index_rows(tmp_path):
        splits.setdefault(row["video_id"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values()) and len(set.union(*splits.values())) == 2


def test_a_table_without_a_video_to_cut_is_told(tmp_path, videos):
    given = options(tmp_path, [{"video": "evening.mp4", "caption": "an evening"}], **SCENES)
    with pytest.raises(UserError, match="no video to cut into scenes"):
        prepare(**given)


def test_other_lengths_are_other_clips(tmp_path, videos):
    prepare(**options(tmp_path, **SCENES))
    with pytest.raises(UserError, match="output already holds clips of other inputs"):
        prepare(**options(tmp_path, scenes={"detector": "content", "max_s": 10.0}))


def test_scenes_of_shards_are_refused(tmp_path):
    with pytest.raises(UserError, match="--scenes cuts videos"):
        run(PrepareJob(shards=str(tmp_path), **SCENES))
