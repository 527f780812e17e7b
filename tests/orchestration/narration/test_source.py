"""Windows are shown as the clips are that would be cut out of their video, in one pass, whatever is wrong with some."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import ray

from mama_ray.captioning.pictures.show import ShowConfig, show_clip
from mama_ray.data.video.cut import cut_clip
from mama_ray.data.video.settings import DecodeConfig, SceneConfig
from mama_ray.data.video.windows import WindowPlanConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.source import ShownClip
from mama_ray.orchestration.narration.planning import lay_windows
from mama_ray.orchestration.narration.source import OnePass, WindowSource, start_count, total_of
from mama_ray.orchestration.narration.stream import chunks_per_pass
from mama_ray.orchestration.narration.videos import find_videos, look_at_video
from tests.data.video.video_factory import make_audio_only, make_video
from tests.processes import descendants, title

GRID = ShowConfig("grid", 96)
FRAMES = ShowConfig("frames", 32, num_frames=4)
VIDEO = ShowConfig("video", 40, num_frames=3)


def records_of(*paths: Path, config: WindowPlanConfig | None = None) -> list[dict]:
    facts = [look_at_video(one, DecodeConfig(), SceneConfig()) for one in find_videos([str(path) for path in paths])]
    table, _ = lay_windows(facts, config or WindowPlanConfig(), None, "clips")
    return table.to_pylist()


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "v.mp4"
    path.write_bytes(make_video(num_frames=48, fps=8, width=64, height=48))
    return path


@pytest.mark.parametrize("how", [GRID, FRAMES, VIDEO], ids=lambda how: how.kind)
def test_a_window_is_shown_as_the_clip_that_would_be_cut(video, how):
    shown = list(WindowSource(1).show(records_of(video), how))
    assert len(shown) == 6
    for second, one in enumerate(shown):
        clip = show_clip(cut_clip(video, second, second + 1.0), how)
        assert isinstance(one, ShownClip) and one.content.shape == clip.content.shape
        assert np.abs(one.content.astype(int) - clip.content).mean() < 4  # cutting encodes once more
        assert one.frame_indices.tolist() == clip.frame_indices.tolist()
        if one.times_s is not None and clip.times_s is not None:
            np.testing.assert_allclose(one.times_s, clip.times_s, atol=1e-4)


def test_videos_share_a_call_and_a_bad_one_costs_its_own_row_alone(video, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(make_audio_only())
    (tmp_path / "z.mp4").write_bytes(make_video(num_frames=16, fps=8))
    records = records_of(video, tmp_path / "bad.mp4", tmp_path / "z.mp4")
    shown = list(WindowSource(3).show(records, GRID))
    assert [isinstance(one, str) for one in shown] == [False] * 6 + [True] + [False] * 2
    assert "no video stream" in shown[6]


def test_one_pass_gives_what_it_is_asked_for_in_turn(video):
    records = records_of(video)
    whole = [one.sha256 for one in WindowSource(1).show(records, GRID)]
    one_pass = OnePass(WindowSource(1), records, GRID)
    turns = [one.sha256 for start in (0, 2, 4) for one in one_pass.show(records[start : start + 2], GRID)]
    assert turns == whole and one_pass.description == "1 video"


def test_a_video_that_is_gone_is_no_fact_about_its_windows(video):
    records = records_of(video)
    video.unlink()
    with pytest.raises(UserError, match="a video is gone"):
        list(WindowSource(1).show(records, GRID))


def test_a_video_that_is_taken_away_while_it_is_read_is_no_fact_about_its_windows(video):
    shown = WindowSource(1).show(records_of(video), GRID)
    assert not isinstance(next(shown), str)
    video.unlink()
    for process in descendants(os.getpid()):  # so that it is opened once more
        if "mama_ray.data.video.inspection" in title(process):
            process.kill()
    with pytest.raises(UserError, match="a video is gone"):
        list(shown)


def test_a_window_of_fewer_frames_than_are_shown_repeats_some(video):
    records = records_of(video, config=WindowPlanConfig(window_s=0.25))
    shown = list(WindowSource(1).show(records, FRAMES))
    assert all(one.content.shape == (4, 32, 32, 3) and one.num_filled == 2 for one in shown)


def test_the_plan_names_videos_one_after_the_other(video, tmp_path):
    (tmp_path / "z.mp4").write_bytes(make_video(num_frames=16, fps=8))
    facts = [look_at_video(one, DecodeConfig(), SceneConfig())
             for one in find_videos([str(video), str(tmp_path / "z.mp4")])]  # fmt: skip
    table, (num_windows, digest, videos) = lay_windows(facts, WindowPlanConfig(), None, "clips")
    assert [(one.video_id, one.start_row, one.num_rows) for one in videos] == [("v", 0, 6), ("z", 6, 2)]
    assert num_windows == 8 and len(set(table["clip_id"].to_pylist())) == 8
    other = lay_windows([dataclasses.replace(facts[0], sha256="0" * 64), facts[1]], WindowPlanConfig(), None, "clips")
    assert other[1][1] != digest  # another video of the same name and length is another narration


def test_uncovered_windows_keep_clear_of_the_human_table(video, tmp_path):
    (tmp_path / "human.csv").write_text("video,start_s,end_s\nv.mp4,1.5,4\n")
    facts = [look_at_video(one, DecodeConfig(), SceneConfig()) for one in find_videos([str(video)])]
    table, _ = lay_windows(facts, WindowPlanConfig(cover="uncovered"), str(tmp_path / "human.csv"), "clips")
    assert [(row["start_s"], row["end_s"]) for row in table.to_pylist()] == [(0, 1), (1, 1.5), (4, 5), (5, 6)]
    (tmp_path / "human.csv").write_text("video,start_s,end_s\nv.mp4,0,9\n")
    with pytest.raises(UserError, match="no windows to narrate.*all of the videos is covered"):
        lay_windows(facts, WindowPlanConfig(cover="uncovered"), str(tmp_path / "human.csv"), "clips")


@pytest.mark.parametrize(("num_chunks", "num_tasks", "length"), [(1, 2, 4), (113, 1, 256), (113, 32, 4), (60, 2, 15)])
def test_a_pass_has_some_chunks_for_every_task(num_chunks, num_tasks, length):
    assert chunks_per_pass(num_chunks, num_tasks) == length


@pytest.mark.ray
def test_a_count_that_died_is_told_as_unknown(ray_cluster, video):
    count = start_count()
    list(WindowSource(1, count).show(records_of(video), GRID))
    assert total_of(count) == 48
    ray.kill(count, no_restart=False)  # as a process that crashed
    list(WindowSource(1, count).show(records_of(video), GRID))
    assert total_of(count) is None
