"""The videos of a narrate job: found by every way of naming them, looked at once, told where they cannot be used."""

import os
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mama_ray.data.video.settings import DecodeConfig, SceneConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.narration.videos import (
    FoundVideo,
    VideoFacts,
    facts_from_json,
    find_videos,
    look_at_video,
)
from tests.data.video.scene_factory import make_scenes
from tests.data.video.video_factory import make_audio_only, make_empty_video, make_video


@pytest.fixture
def folder(tmp_path):
    for name in ("b.mp4", "a.mkv", "deep/a.mkv", "deep/notes.md"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"video")
    return tmp_path / "videos"


def names(found: list[FoundVideo]) -> list[str]:
    return [video.video_id for video in found]


def look(path, **changes) -> VideoFacts:
    (found,) = find_videos([str(path)])
    return look_at_video(found, DecodeConfig(**changes), SceneConfig())


def test_a_folder_gives_its_videos_in_order(folder):
    assert names(find_videos([str(folder)])) == ["a", "b", "deep/a"]


def test_files_folders_and_lists_are_named_together_each_video_once(folder, tmp_path):
    (tmp_path / "list.txt").write_text(f"# mine\n\nvideos/b.mp4\n{folder}/deep\n")
    found = find_videos([str(folder / "b.mp4"), str(tmp_path / "list.txt")])
    assert names(found) == ["b", "a"]
    assert found[0].num_bytes == 5 and found[0].modified_ns == os.stat(folder / "b.mp4").st_mtime_ns


def test_a_video_that_is_named_in_two_ways_is_narrated_once_under_its_own_name(folder, tmp_path):
    (tmp_path / "list.txt").write_text("videos/deep/../b.mp4\nlink/b.mp4\nvideos\n")
    (tmp_path / "link").symlink_to(folder)
    found = find_videos([str(folder / "b.mp4"), f"{folder}/deep/../a.mkv", str(tmp_path / "list.txt")])
    assert names(found) == ["b", "a", "deep/a"]


def test_a_video_whose_name_is_no_text_is_told_and_left_out(folder, caplog):
    (folder / os.fsdecode(b"bad\xff.mp4")).write_bytes(b"video")
    assert names(find_videos([str(folder)])) == ["a", "b", "deep/a"]
    assert "1 videos have names that are no UTF-8" in caplog.text and r"bad\udcff.mp4" in caplog.text


def test_videos_of_the_same_name_are_told_apart_the_same_way_each_time(folder):
    entries = [str(folder / "a.mkv"), str(folder / "deep/a.mkv")]
    first = names(find_videos(entries))
    assert len(set(first)) == 2 and first == names(find_videos(entries[::-1]))[::-1]


@pytest.mark.parametrize(
    ("entry", "message"),
    [("B.MP4", "no such video.*did you mean b.mp4"), ("none.mp4", "no such video"), ("deep/empty", "no videos")],
)
def test_what_is_not_there_is_told_in_one_line(folder, entry, message):
    (folder / "deep/empty").mkdir()
    with pytest.raises(UserError, match=message):
        find_videos([str(folder / entry)])


def test_a_video_of_a_web_server_is_found_and_read(tmp_path):
    (tmp_path / "my hour.mp4").write_bytes(make_video(num_frames=24, fps=8))
    serve = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}/my%20hour.mp4"
        facts = look(uri)
        with pytest.raises(UserError, match=r"no such video: got .*/none.mp4"):
            find_videos([uri.replace("my%20hour", "none")])
        server.shutdown()
    assert (facts.uri, facts.video_id, facts.duration_s, facts.trouble) == (uri, "my%20hour", 3.0, None)


def test_a_web_server_that_cannot_be_reached_or_refuses_is_told_as_that(monkeypatch):
    monkeypatch.setattr("mama_ray.storage.retries.time.sleep", lambda _: None)

    class Refusing(SimpleHTTPRequestHandler):
        def send_head(self) -> None:
            self.send_error(403)

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}/a.mp4"
        with pytest.raises(UserError, match=r"refuses it: got .*a.mp4 \(status 403\)"):
            find_videos([uri])
        server.shutdown()
    with pytest.raises(UserError, match=r"cannot be reached: got http.*a.mp4 \(.*refused\)"):
        find_videos([uri])


def test_a_list_of_lists_is_refused(tmp_path):
    (tmp_path / "one.txt").write_text("two.txt\n")
    with pytest.raises(UserError, match="names another list"):
        find_videos([str(tmp_path / "one.txt")])


def test_a_look_tells_length_and_hash(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(make_video(num_frames=24, fps=8))
    facts = look(path)
    assert (facts.duration_s, facts.num_frames, facts.trouble, len(facts.sha256)) == (3.0, 24, None, 64)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (make_audio_only(), "no video stream"),
        (make_empty_video(), "no video stream"),
        (make_video(num_frames=8, container="matroska")[:800], "the video has no frames"),
        (b"", "the file is empty"),
        (b"not a video", "not a readable video"),
        (make_video(num_frames=24)[:1220], "not a readable video"),
    ],
)
def test_a_video_that_cannot_be_used_has_a_reason(tmp_path, data, reason):
    path = tmp_path / "v.mp4"
    path.write_bytes(data)
    assert re.search(reason, look(path).trouble)


def test_a_video_over_a_limit_has_a_reason(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(make_video(num_frames=24))
    assert "too large" in look(path, max_bytes=10).trouble and "too long" in look(path, max_duration_s=1.0).trouble


def test_scenes_are_found_where_they_are_asked_for(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(make_scenes([3.0, 4.0]))
    (found,) = find_videos([str(path)])
    facts = look_at_video(found, DecodeConfig(), SceneConfig(detector="content", min_s=1.0))
    assert [start for start, _ in facts.scenes] == pytest.approx([0.0, 3.0], abs=0.2)


@pytest.mark.parametrize("record", [None, [], {}, {"uri": 3}, {"uri": "a", "scenes": "x"}])
def test_a_record_of_something_else_tells_nothing(record):
    assert facts_from_json(record) is None
