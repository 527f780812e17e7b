"""A folder of videos is encoded once; whatever happens to it, or to what was kept, the answer is right."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mama_ray
from mama_ray.errors import UserError
from mama_ray.search.__main__ import main
from mama_ray.search.folder import SearchedFolder, list_videos, search_folder
from tests.data.video.video_factory import make_video
from tests.encoder.tiny_encoder import write_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "videos"
    (folder / "below").mkdir(parents=True)
    for number, name in enumerate(["a.mp4", "b.MP4", "below/c.mp4"]):
        (folder / name).write_bytes(make_video(num_frames=4 + 3 * number, width=64, height=48 + 8 * number))
    (folder / "bad.mp4").write_bytes(b"no video at all" * 20)
    (folder / "notes.txt").write_text("no video")
    (folder / ".hidden.mp4").write_bytes(b"")
    return folder


def search(folder: Path, encoder, cache: Path) -> SearchedFolder:
    return search_folder(folder, encoder, cache=cache, progress=False)


def test_the_second_query_encodes_nothing_and_finds_the_same(folder, encoder, tmp_path):
    before = sorted(folder.rglob("*"))
    first, second = (search(folder, encoder, tmp_path / "cache") for _ in range(2))
    assert (first.num_encoded, second.num_encoded) == (4, 0)
    assert first.paths == second.paths == ["a.mp4", "b.MP4", "below/c.mp4"]
    np.testing.assert_array_equal(first.features, second.features)
    assert first.errors == second.errors
    assert list(first.errors) == ["bad.mp4"]
    assert sorted(folder.rglob("*")) == before, "nothing is written beside the videos"
    expected = encoder.encode_videos([folder / path for path in first.paths], progress=False).features
    np.testing.assert_allclose(first.features, expected, atol=1e-6)
    similarity = expected @ encoder.encode_texts(["a red thing"])[0]
    hits = second.search(encoder, "a red thing", num_results=2)
    assert [hit.path for hit in hits] == [first.paths[row] for row in np.argsort(-similarity)[:2]]
    assert [hit.similarity for hit in hits] == pytest.approx(np.sort(similarity)[::-1][:2], abs=1e-6)


def test_only_what_changed_is_encoded_again(folder, encoder, tmp_path):
    search(folder, encoder, tmp_path / "cache")
    (folder / "bad.mp4").write_bytes((folder / "a.mp4").read_bytes())  # repaired
    os.utime(folder / "b.MP4", (1, 1))
    (folder / "a.mp4").unlink()
    found = search(folder, encoder, tmp_path / "cache")
    assert (found.num_encoded, found.paths, found.errors) == (2, ["b.MP4", "bad.mp4", "below/c.mp4"], {})


def test_another_encoder_has_features_of_its_own(folder, encoder, tmp_path):
    first = search(folder, encoder, tmp_path / "cache")
    other = mama_ray.load_encoder(write_model(tmp_path / "other", seed=1), num_processes=1)
    second = search(folder, other, tmp_path / "cache")
    assert second.num_encoded == 4
    assert not np.allclose(first.features, second.features, atol=0.01)
    assert search(folder, encoder, tmp_path / "cache").num_encoded == 0


def test_a_damaged_cache_is_made_anew(folder, encoder, tmp_path, caplog):
    first = search(folder, encoder, tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    with caplog.at_level(logging.WARNING):
        found = search(folder, encoder, tmp_path / "cache")
    assert "made anew" in caplog.text
    assert found.num_encoded == 4
    np.testing.assert_array_equal(found.features, first.features)


def test_a_name_that_is_no_utf8_and_one_that_steers_a_terminal_are_found(encoder, tmp_path, capsys, model_folder):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in (b"\xff\xfe.mp4", b"\x1b[31mred\n.mp4"):
        (folder / os.fsdecode(name)).write_bytes(make_video(num_frames=3))
    arguments = [str(folder), "a thing", "--encoder", str(model_folder), "--cache", str(tmp_path / "cache")]
    for _ in range(2):
        assert main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert sorted(line.split("  ")[1] for line in lines) == [r"\udcff\udcfe.mp4", r"\x1b[31mred\n.mp4"]


def test_a_folder_that_cannot_be_searched_is_one_line(encoder, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        search_folder(tmp_path / "absent", encoder)
    with pytest.raises(UserError, match="no videos"):
        search_folder(tmp_path, encoder)


def test_a_file_that_could_not_be_read_is_tried_again(folder, encoder, tmp_path, monkeypatch):
    (folder / "link.mp4").symlink_to(folder / "a.mp4")
    assert [file.path for file in list_videos(folder)] == ["a.mp4", "b.MP4", "bad.mp4", "below/c.mp4", "link.mp4"]
    unreadable = tmp_path / "pipe"
    os.mkfifo(unreadable)
    (folder / "link.mp4").unlink()
    (folder / "link.mp4").symlink_to(unreadable)
    first, second = (search(folder, encoder, tmp_path / "cache") for _ in range(2))
    assert (first.num_encoded, second.num_encoded) == (5, 1)
    assert first.errors["link.mp4"] == second.errors["link.mp4"] == "not a file"


def test_a_cache_without_room_still_answers(folder, encoder, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file in the way")
    assert search(folder, encoder, tmp_path / "cache").num_encoded == 4
    assert "not kept" in caplog.text


def test_the_program_prints_the_best_and_tells_of_the_bad(folder, model_folder, tmp_path):
    command = [sys.executable, "-m", "mama_ray.search", str(folder), "a red thing", "--encoder", str(model_folder)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "caches")}
    done = subprocess.run(
        [*command, "--num_results", "2"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    assert len(lines) == 2
    assert float(lines[0][0]) >= float(lines[1][0])
    assert "1 of 4 videos cannot be searched: bad.mp4: not a readable video" in done.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "caches").iterdir()] == ["mama_ray"]


def test_help_and_usage_need_nothing_heavy(capsys):
    program = """
import json, runpy, sys
sys.argv = ["search", "--help"]
try:
    runpy.run_module("mama_ray.search", run_name="__main__")
finally:
    print(json.dumps(sorted({"torch", "numpy", "ray", "av", "transformers"} & set(sys.modules))))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1]) == []
    with pytest.raises(SystemExit) as leaving:
        main(["folder", "words", "--num_results", "0"])
    assert leaving.value.code == 2
    assert "at least 1" in capsys.readouterr().err


def test_an_encoder_that_is_none_ends_the_program_with_one_line(folder, tmp_path, capsys):
    assert main([str(folder), "a thing", "--encoder", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: no checkpoint")


def test_a_folder_without_videos_is_told_before_an_encoder_is_looked_for(tmp_path, capsys):
    assert main([str(tmp_path), "a thing", "--encoder", "nobody/has-it"]) == 1
    assert capsys.readouterr().err.startswith("error: no videos in the folder")


@pytest.mark.parametrize("words", ["", "  ", "\udcff"])
def test_words_that_are_none_are_bad_usage(folder, words, capsys):
    with pytest.raises(SystemExit) as leaving:
        main([str(folder), words])
    assert leaving.value.code == 2
    assert "wanted words" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_fault(folder, model_folder, tmp_path):
    command = [sys.executable, "-m", "mama_ray.search", str(folder), "a red thing", "--encoder", str(model_folder)]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing) as closed:
        done = subprocess.run(
            [*command, "--cache", str(tmp_path)],
            cwd=ROOT,
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
