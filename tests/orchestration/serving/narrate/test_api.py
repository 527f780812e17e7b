"""The JSON interface of narrations, asked as a program would, and as a hostile one."""

import json

import pytest

from mama_ray.data.clip import VIDEO_EXTENSIONS, make_clip_id
from tests.orchestration.serving.narrate.narrations import client_of, no_narrator, send, take_away, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.promise]  # processes of its own for each case


@pytest.fixture
def client(tmp_path, small_shards):
    narrator = no_narrator(tmp_path)
    with client_of(small_shards, tmp_path / "data", narrator=narrator, max_upload_mib=1, max_jobs=2) as found:
        take_away(narrator)
        yield found


def left_over(tmp_path) -> list[str]:
    return [path.name for path in (tmp_path / "data/narrations").iterdir()]


def test_an_upload_becomes_a_narration_that_is_followed_to_its_end(client):
    told = send(client, "my <b>film</b>.mp4", window_s=0.5, num_captions=2).json()
    assert (told["name"], told["num_windows"], told["duration_s"]) == ("b>.mp4", 4, 2.0)
    text = client.get(f"/api/narrations/{told['id']}/events").text  # ends by itself when the narration does
    events = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert events[0] == "state" and events[-1] == "end"
    last = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")][-2]
    assert last["state"] == "failed" and "not the folder of a model" in last["reason"]
    assert client.get("/api/narrations").json() == [{**last, "num_done": None}]
    assert client.delete(f"/api/narrations/{told['id']}").status_code == 204
    assert client.get("/api/narrations").json() == []


@pytest.mark.parametrize(
    ("name", "content", "status", "reason"),
    [
        ("a.mp4", b"no video at all", 422, "the video cannot be used"),
        ("a.mp4", b"", 422, "the video cannot be used"),
        ("a.exe", b"MZ", 422, "a name that ends in one of"),
        ("", b"x", 422, "no name"),
        ("a.mp4", bytes((1 << 20) + 1), 413, "limit of 1 MiB"),
    ],
)
def test_what_cannot_be_narrated_is_refused_with_a_reason_and_leaves_nothing(
    client, tmp_path, name, content, status, reason
):
    answer = send(client, name, content)
    assert answer.status_code == status and reason in answer.json()["detail"]
    assert left_over(tmp_path) == [] and client.get("/api/narrations").json() == []


def test_an_upload_of_unknown_length_is_stopped_at_the_limit(client, tmp_path):
    sent = 0

    def endless():
        nonlocal sent
        while sent < 64:
            sent += 1
            yield bytes(1 << 17)

    answer = client.post("/api/uploads", params={"name": "a.mp4"}, content=endless())
    assert answer.status_code == 413 and left_over(tmp_path) == []


def test_a_full_queue_answers_429(client):
    answers = [send(client).status_code for _ in range(4)]
    assert answers == [201, 201, 201, 429]


@pytest.mark.parametrize(
    "id", ["..", "%2e%2e", "%00", "..%2f..%2fetc", "%2fetc%2fpasswd", "0123456789abcdef", "a" * 999]
)
@pytest.mark.parametrize("rest", ["", "/video", "/download/srt", "/events"])
def test_an_id_that_is_none_is_not_found(client, id, rest):
    assert client.get(f"/api/narrations/{id}{rest}").status_code == 404


def test_a_windows_text_is_kept_and_other_windows_are_not_found(client):
    told = send(client).json()
    address = f"/api/narrations/{told['id']}"
    window = make_clip_id("a", 0.0, 1.0)
    kept = client.put(f"{address}/windows/{window}", json={"text": " mine "})
    assert kept.json() == {"clip_id": window, "edited": "mine"}
    assert client.put(f"{address}/windows/nothing", json={"text": "x"}).status_code == 404
    assert client.put(f"{address}/windows/{window}", json={"text": "x" * 2001}).status_code == 422
    assert client.put(f"{address}/windows/{window}", json={}).status_code == 422
    assert client.get(f"{address}/download/exe").status_code == 404
    wait_for(lambda: client.get(address).json()["state"] == "failed")
    assert client.get(f"{address}/download/vtt").text == "WEBVTT\n"


def test_the_video_is_answered_by_ranges(client):
    told = send(client).json()
    answer = client.head(f"/api/narrations/{told['id']}/video")
    assert (answer.status_code, answer.content) == (200, b"")
    answer = client.get(f"/api/narrations/{told['id']}/video", headers={"range": "bytes=0-9"})
    assert answer.status_code == 206 and len(answer.content) == 10 and answer.headers["content-type"] == "video/mp4"


def test_the_page_names_every_kind_of_video_only_as_text(client):
    told = send(client, f"<img src=x onerror=alert(1)>.{VIDEO_EXTENSIONS[0]}").json()
    page = client.get(f"/narrate/{told['id']}").text
    assert "&lt;img" in page and "<img" not in page


def test_without_a_narrator_uploads_are_refused_and_old_narrations_stay(client, tmp_path, small_shards):
    told = send(client).json()
    wait_for(lambda: client.get(f"/api/narrations/{told['id']}").json()["state"] == "failed")
    with client_of(small_shards, tmp_path / "data") as other:
        assert send(other).status_code == 409
        assert [one["id"] for one in other.get("/api/narrations").json()] == [told["id"]]


def test_odd_files_of_the_field_are_taken_or_refused_with_a_reason(tmp_path, small_shards, shared):
    videos = sorted((shared / "data/cases/videos").iterdir())
    answers = {}
    narrator = no_narrator(tmp_path)
    with client_of(small_shards, tmp_path / "data", narrator=narrator, max_jobs=1000) as client:
        take_away(narrator)
        for path in videos:
            answers[path.name] = answer = send(client, path.name, path.read_bytes())
            assert answer.status_code in (201, 422), path.name
            assert "\n" not in (answer.json().get("detail") or "")
        taken = {one["name"] for one in client.get("/api/narrations").json()}
    assert taken == {name for name, answer in answers.items() if answer.status_code == 201} and taken
    assert len(left_over(tmp_path)) == len(taken)
