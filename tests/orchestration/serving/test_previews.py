"""Clips out of S3, and the bounded folder of previews, without a server's process."""

import asyncio
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from starlette.testclient import TestClient

from mama_ray.data.video.settings import DecodeConfig
from mama_ray.orchestration.serving.app import create_app
from mama_ray.orchestration.serving.catalog import Catalog, open_catalog
from mama_ray.orchestration.serving.job import AppJob
from mama_ray.orchestration.serving.opening import find_missing
from mama_ray.orchestration.serving.previews import Previews
from mama_ray.orchestration.serving.state import AppState
from mama_ray.storage.places import Place

CLIP = "simple-0-val-000003"


@pytest.fixture
def catalog(small_shards):
    return open_catalog(Place.of(small_shards))


def client_of(shards: Place, data: Path, catalog: Catalog | None = None) -> TestClient:
    state = AppState(AppJob(shards=shards.uri), shards, catalog or open_catalog(shards), data)
    state.missing = find_missing(state)
    return TestClient(create_app(state), base_url="http://127.0.0.1")


def test_a_shard_that_is_gone_is_told_and_the_pages_stay(small_shards, tmp_path):
    shutil.copytree(small_shards, tmp_path / "shards")
    with client_of(Place.of(tmp_path / "shards"), tmp_path / "data") as client:
        for shard in (tmp_path / "shards").glob("*.tar"):
            shard.unlink()
        for path in ("video", "poster", "preview"):
            answer = client.get(f"/api/clips/{CLIP}/{path}")
            assert answer.status_code in (500, 503)
            assert ".tar" in answer.json()["detail"]
        assert client.get("/").status_code == 200


@pytest.mark.parametrize("sha256", ["../../secret", "a\r\nb: c", "\N{SNOWMAN}", None])
def test_an_index_leads_to_no_file_but_pictures_of_its_clips(small_shards, catalog, tmp_path, sha256):
    for name in ("secret.jpg", "secret.mp4"):
        (tmp_path / name).write_bytes(b"of somebody")
    clips = catalog.clips.set_column(
        catalog.clips.schema.get_field_index("sha256"), "sha256", pa.array([sha256] * len(catalog), pa.large_string())
    )
    with client_of(Place.of(small_shards), tmp_path / "data", Catalog(clips)) as client:
        for path in ("poster", "preview", "video"):
            answer = client.get(f"/api/clips/{CLIP}/{path}")
            assert (answer.status_code, answer.json()["detail"][:24]) == (422, "the clip cannot be shown")
        assert client.post("/api/search", json={}).status_code == 200


def test_clips_come_out_of_s3_by_ranges(small_shards, s3_bucket, tmp_path):
    shards = Place.of(f"s3://{s3_bucket}/shards")
    pafs.copy_files(str(small_shards), shards.path, destination_filesystem=shards.filesystem)
    with client_of(shards, tmp_path) as client:
        whole = client.get(f"/api/clips/{CLIP}/video").content
        part = client.get(f"/api/clips/{CLIP}/video", headers={"range": "bytes=100-299"})
        assert (part.status_code, part.content) == (206, whole[100:300])
        assert client.get(f"/api/clips/{CLIP}/poster").headers["content-type"] == "image/jpeg"


def test_what_was_looked_at_longest_ago_goes_first(small_shards, catalog, tmp_path):
    record = [catalog.record_at(row) for row in range(6)]

    async def look() -> None:
        sizes = Previews(Place.of(small_shards), tmp_path / "first", DecodeConfig(), 1 << 30)
        largest = max(len(data) for data in [await sizes.poster(one) for one in record])
        bounded = Previews(Place.of(small_shards), tmp_path / "second", DecodeConfig(), 3 * largest)
        for number in (0, 1, 2, 0, 3, 4):
            await bounded.poster(record[number])
            await asyncio.sleep(0.02)

    asyncio.run(look())
    kept = {path.stem for path in (tmp_path / "second").iterdir()}
    assert record[4].sha256 in kept
    assert record[1].sha256 not in kept
    assert sum(path.stat().st_size for path in (tmp_path / "second").iterdir()) <= 3 * max(
        path.stat().st_size for path in (tmp_path / "first").iterdir()
    )


def test_many_who_ask_for_one_picture_have_it_made_once(small_shards, catalog, tmp_path):
    previews, made = Previews(Place.of(small_shards), tmp_path, DecodeConfig(), 1 << 30), []
    write = previews._write_poster

    def counted(record, to) -> None:
        made.append(to)
        write(record, to)

    previews._write_poster = counted

    async def ask() -> list[bytes]:
        return await asyncio.gather(*(previews.poster(catalog.record_at(0)) for _ in range(20)))

    assert len(set(asyncio.run(ask()))) == 1
    assert len(made) == 1


def test_a_preview_that_is_larger_than_the_folder_may_be_is_shown_and_unfinished_ones_stay(tmp_path):
    previews = Previews(Place.of(tmp_path), tmp_path / "previews", DecodeConfig(), 100)
    (tmp_path / "previews/other.mp4.12345678.tmp").write_bytes(bytes(200))

    async def make() -> bytes:
        await previews._made("first.mp4", lambda to: to.write_bytes(bytes(200)))
        made = await previews._made("second.mp4", lambda to: to.write_bytes(bytes(300)))
        return made.read_bytes()

    assert len(asyncio.run(make())) == 300
    assert {path.name for path in (tmp_path / "previews").iterdir()} == {"second.mp4", "other.mp4.12345678.tmp"}


def test_half_made_files_of_a_killed_process_are_cleared_away(small_shards, tmp_path):
    (tmp_path / "x.jpg.12345678.tmp").write_bytes(b"half")
    Previews(Place.of(small_shards), tmp_path, DecodeConfig(), 1 << 30)
    assert not list(tmp_path.iterdir())
