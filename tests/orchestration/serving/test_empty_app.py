"""What an app that has nothing to show answers, and how its interface is described."""

import warnings
from collections import Counter

import pytest
from starlette.testclient import TestClient

from mama_ray.orchestration.serving.narrate.record import Record, Settings, keep_upload, new_id, partial_upload
from tests.orchestration.serving.empty_app import app_without_clips


def test_every_operation_has_a_name_of_its_own(tmp_path):
    app = app_without_clips(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = app.openapi()["paths"]
    names = Counter(told["operationId"] for methods in paths.values() for told in methods.values())
    assert len(names) > 10 and set(names.values()) == {1}
    assert set(paths["/api/clips/{clip_id}/video"]) == {"get"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_clip_of_no_corpus_is_not_found_by_either_method(tmp_path, method):
    with TestClient(app_without_clips(tmp_path), base_url="http://127.0.0.1") as client:
        assert client.request(method, "/api/clips/a/video").status_code == 404


def test_a_corpus_without_clips_has_pages_and_finds_nothing(tmp_path):
    with TestClient(app_without_clips(tmp_path), base_url="http://127.0.0.1") as client:
        assert [client.get(path).status_code for path in ("/", "/narrate", "/weights", "/docs")] == [200] * 4
        asked = {"filters": {"without_flags": True, "error": "with", "min_duration_s": 1}}
        assert client.post("/api/search", json=asked).json()["hits"] == []


def test_without_a_narrator_nothing_is_put_into_a_queue_that_nobody_works_off(tmp_path):
    folder = tmp_path / "narrations"
    folder.mkdir()
    upload = partial_upload(folder, new_id())
    upload.write_bytes(b"a video")
    record = Record(narration_id=new_id(), name="a.mp4", file_name="a.mp4", created_s=0.0, num_bytes=7,
                    duration_s=2.0, settings=Settings(), state="cancelled")  # fmt: skip
    kept = keep_upload(folder, upload, record)
    with TestClient(app_without_clips(tmp_path), base_url="http://127.0.0.1") as client:
        answer = client.post(f"/api/narrations/{record.narration_id}/retry")
        assert (answer.status_code, "--narrator" in answer.json()["detail"]) == (409, True)
    assert kept.read() == record
