"""What an app that has nothing to show answers, and how its interface is described."""

import warnings
from collections import Counter

import pytest
from starlette.testclient import TestClient

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
