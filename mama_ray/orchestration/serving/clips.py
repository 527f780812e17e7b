"""The videos of clips for a browser: byte ranges straight out of shards, poster frames and previews.

A clip's bytes are those that somebody gave us: they are sent as a video and nothing else, never decoded here.
"""

import re
from collections.abc import Iterator

import anyio.to_thread
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response, StreamingResponse

from mama_ray.orchestration.serving.byte_ranges import UNSATISFIABLE, parse_range
from mama_ray.orchestration.serving.catalog import ClipRecord
from mama_ray.orchestration.serving.pages import Pages
from mama_ray.orchestration.serving.previews import Previews, plays_in_browsers
from mama_ray.orchestration.serving.state import AppState
from mama_ray.storage.places import Place, storage_errors

_CHUNK_BYTES = 1 << 20  # a request to an object store, and what a client that leaves has cost for nothing
_KINDS = {
    "mp4": "video/mp4", "m4v": "video/mp4", "mov": "video/mp4", "webm": "video/webm", "mkv": "video/webm",
    "ogv": "video/ogg",
}  # fmt: skip
_KEPT = "private, max-age=86400"
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def build_router(state: AppState, pages: Pages) -> APIRouter:
    """Return the routes below /api/clips."""
    router = APIRouter(prefix="/api/clips", tags=["clips"])
    previews = Previews(state.shards, state.data_dir / "previews", state.job.decode, state.job.max_cache_mib << 20)

    def found(clip_id: str) -> ClipRecord:
        record = state.catalog.record(clip_id)
        if record is None:
            raise HTTPException(404, "no such clip")
        if not _SHA256.fullmatch(record.sha256 or ""):  # files are called by it here
            raise HTTPException(422, "the clip cannot be shown: the index has no hash of its bytes")
        return record

    @router.get("/{clip_id}")
    def clip(clip_id: str) -> dict:
        """Return what is known of a clip, with all its captions."""
        return clip_facts(found(clip_id))

    @router.head("/{clip_id}/video", include_in_schema=False)
    @router.get("/{clip_id}/video", response_class=Response)
    async def video(clip_id: str, request: Request) -> Response:
        """Return the clip's bytes as they are stored, or the range of them that is asked for."""
        record = await anyio.to_thread.run_sync(found, clip_id)
        return await anyio.to_thread.run_sync(answer_with_bytes, state.shards, record, request)

    @router.get("/{clip_id}/poster", response_class=Response)
    async def poster(clip_id: str) -> Response:
        """Return a frame from the middle of the clip as JPEG."""
        record = await anyio.to_thread.run_sync(found, clip_id)
        return Response(await previews.poster(record), headers={"cache-control": _KEPT}, media_type="image/jpeg")

    @router.get("/{clip_id}/preview", response_class=Response)
    async def preview(clip_id: str, request: Request) -> Response:
        """Return what every browser plays: the clip itself, or H.264 made of it where its codec is another."""
        record = await anyio.to_thread.run_sync(found, clip_id)
        if plays_in_browsers(record):
            return await anyio.to_thread.run_sync(answer_with_bytes, state.shards, record, request)
        return await previews.preview(record, request)

    return router


def clip_facts(record: ClipRecord) -> dict:
    """Return a clip as the JSON interface tells it."""
    names = ("clip_id", "video_id", "start_s", "end_s", "duration_s", "width", "height", "fps", "codec", "extension")
    facts = {name: getattr(record, name) for name in (*names, "split", "topic", "sha256", "num_bytes")}
    return {**facts, "captions": [vars(line) for line in record.captions]}


def answer_with_bytes(shards: Place, record: ClipRecord, request: Request) -> Response:
    """Answer with a clip's bytes: 200, 206 for one range, 304 where the client has them, 416 beyond their end."""
    etag = f'"{record.sha256}"'
    headers = {"etag": etag, "accept-ranges": "bytes", "cache-control": _KEPT}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    wanted = parse_range(request.headers.get("range"), record.num_bytes)
    if wanted is UNSATISFIABLE:
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{record.num_bytes}"})
    if wanted is None or request.headers.get("if-range", etag) != etag:
        start, stop, status = 0, record.num_bytes, 200
    else:
        (start, stop), status = wanted, 206
        headers["content-range"] = f"bytes {start}-{stop - 1}/{record.num_bytes}"
    headers["content-length"] = str(stop - start)
    kind = _KINDS.get(record.extension, "application/octet-stream")
    place = shards / record.shard
    with storage_errors(place.uri):
        size = place.info().size or 0
    if size < record.offset + record.num_bytes:
        raise HTTPException(500, f"shard {record.shard} is truncated or missing")
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=kind)
    pieces = _pieces(place, record.offset + start, record.offset + stop)
    return StreamingResponse(pieces, status, headers, kind)


def _pieces(place: Place, start: int, stop: int) -> Iterator[bytes]:
    with place.open_file() as file:
        while start < stop:
            piece = file.read_at(min(_CHUNK_BYTES, stop - start), start)
            if not piece:  # cut while it was read: a client sees that fewer bytes came than were promised
                return
            start += len(piece)
            yield piece
