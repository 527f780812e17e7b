"""The videos of clips: byte ranges, posters, previews."""

import hashlib
import io
import json
import os
from collections import Counter

import pytest
from PIL import Image

from mama_ray.data.index import read_index
from mama_ray.data.reading import read_clip_bytes
from mama_ray.storage.places import Place
from tests.orchestration.prepare.in_process import prepare
from tests.orchestration.serving.app_process import raw, running_app

CLIP = "simple-0-val-000003"
FILES_OF_A_KIND = int(os.environ.get("MAMA_RAY_FILES_OF_A_KIND", "4"))  # more of them take longer


@pytest.fixture(scope="module")
def stored(small_shards) -> bytes:
    """The clip's bytes as the shards have them."""
    (row,) = [row for row in read_index(Place.of(small_shards)).to_pylist() if row["clip_id"] == CLIP]
    return read_clip_bytes(Place.of(small_shards), row["shard"], row["offset"], row["num_bytes"])


def test_a_clip_comes_as_it_is_stored(bare_app, stored):
    answer = bare_app.get(f"/api/clips/{CLIP}/video")
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, stored, "video/mp4")
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 99), (100, 999), (500, None)])
def test_a_range_is_206_with_its_place(bare_app, stored, first, last):
    wanted = f"bytes={first}-{'' if last is None else last}"
    answer = bare_app.get(f"/api/clips/{CLIP}/video", headers={"range": wanted})
    end = len(stored) if last is None else last + 1
    assert (answer.status_code, answer.content) == (206, stored[first:end])
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{len(stored)}"


def test_a_range_beyond_the_end_is_416(bare_app, stored):
    answer = bare_app.get(f"/api/clips/{CLIP}/video", headers={"range": f"bytes={len(stored)}-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(stored)}")


def test_what_the_client_has_is_not_sent_again(bare_app, stored):
    etag = f'"{hashlib.sha256(stored).hexdigest()}"'
    assert bare_app.get(f"/api/clips/{CLIP}/video", headers={"if-none-match": etag}).status_code == 304
    other = {"range": "bytes=0-9", "if-range": '"of another file"'}
    assert bare_app.get(f"/api/clips/{CLIP}/video", headers=other).status_code == 200


def test_head_tells_without_sending(bare_app, stored):
    answer = bare_app.request("HEAD", f"/api/clips/{CLIP}/video")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, str(len(stored)), b"")


def test_a_poster_is_a_picture_and_made_once(bare_app):
    folder = bare_app.log_file.parent / "previews"
    first = bare_app.get(f"/api/clips/{CLIP}/poster")
    assert Image.open(io.BytesIO(first.content)).format == "JPEG"
    made = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert bare_app.get(f"/api/clips/{CLIP}/poster").content == first.content
    assert {path.name: path.stat().st_ino for path in folder.iterdir()} == made


def test_a_clip_that_is_not_there_is_404(bare_app):
    for path in ("", "/video", "/poster", "/preview", "/similarities"):
        assert bare_app.get(f"/api/clips/none{path}").status_code == 404
    assert bare_app.get("/clips/none").status_code == 404


@pytest.mark.slow
@pytest.mark.promise
def test_a_client_that_leaves_in_the_middle_harms_nobody(bare_app):
    raw(bare_app, f"GET /api/clips/{CLIP}/video HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()[:-2])
    assert bare_app.get("/").status_code == 200


@pytest.fixture(scope="module")
def odd_app(tmp_path_factory, shared):
    """The app over real clips of many codecs, and over one whose bytes were spoiled after it was prepared."""
    folder = tmp_path_factory.mktemp("odd-corpus")
    (folder / "corpus/videos").mkdir(parents=True)
    rows, counts = [], Counter()
    for path in sorted((shared / "data/clips").rglob("*.*")):
        if path.is_file() and counts[path.suffix] < FILES_OF_A_KIND and path.stat().st_size < 1 << 20:
            counts[path.suffix] += 1
            name = f"{path.suffix[1:]}-{counts[path.suffix]}{path.suffix}"
            (folder / "corpus/videos" / name).write_bytes(path.read_bytes())
            rows.append({"video": name, "clip_id": name.replace(".", "_"), "split": "train", "captions": [name]})
    (folder / "corpus/annotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shards = folder / "shards"
    prepare(
        videos=str(folder / "corpus/videos"),
        annotations=str(folder / "corpus/annotations.jsonl"),
        output=str(shards),
    )
    first = read_index(Place.of(shards)).to_pylist()[0]
    with open(shards / first["shard"], "r+b") as file:
        file.seek(first["offset"] + first["num_bytes"] // 2)
        file.write(b"\0" * 64)
    with running_app(tmp_path_factory.mktemp("odd-app"), "--shards", str(shards)) as app:
        yield app, read_index(Place.of(shards)).to_pylist()


def test_real_clips_of_any_codec_play_in_the_browser_or_have_a_reason(odd_app, browser):
    app, rows = odd_app
    spoiled, *whole = rows
    assert "cannot be shown" in app.get(f"/api/clips/{spoiled['clip_id']}/poster").json()["detail"]
    with browser.page(f"{app.url}/clips/{whole[0]['clip_id']}") as page:
        for row in whole:
            played = page.evaluate(
                """(address) => new Promise((done) => {
                  const video = document.createElement('video');
                  video.muted = true;
                  video.addEventListener('loadeddata', () => done([video.videoWidth, video.videoHeight]));
                  video.addEventListener('error', () => done(null));
                  video.src = address;
                })""",
                f"/api/clips/{row['clip_id']}/preview",
            )
            assert played is not None, (row["codec"], row["extension"])
            assert app.get(f"/api/clips/{row['clip_id']}/poster").status_code == 200
    assert {row["codec"] for row in whole} > {"h264"}
