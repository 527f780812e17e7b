"""The JSON interface of narrations: send a video, follow it, edit it, download what was said."""

import asyncio
import re
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse

from mama_ray.errors import UserError
from mama_ray.orchestration.serving.narrate.downloads import FORMATS
from mama_ray.orchestration.serving.narrate.events import describe, events_of, with_edit
from mama_ray.orchestration.serving.narrate.jobs import Narration, NarrationQueue, QueueFull
from mama_ray.orchestration.serving.narrate.record import (
    MAX_TEXT_CHARACTERS,
    Record,
    Settings,
    keep_upload,
    names_of,
    new_id,
    partial_upload,
)
from mama_ray.orchestration.serving.narrate.video import NarratedVideos
from mama_ray.orchestration.serving.state import AppState
from mama_ray.orchestration.serving.uploads import (
    DecodingThreads,
    NoRoom,
    TooLarge,
    look_at_upload,
    receive,
    told_length,
)

_LOOKED_AT_AT_ONCE = 2
_STATUS = ((QueueFull, 429), (TooLarge, 413), (NoRoom, 507), (UserError, 422))
_BODY = {"requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}}


class SentVideo(Settings):
    """What is said of a video that is sent."""

    name: str = Field(max_length=500, description="What its file is called.")


class EditedText(BaseModel):
    """What a person says of a window."""

    text: Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)] | None = Field(
        description="In place of the model's text; empty says nothing there, null goes back to the model's."
    )


def add_uploads(router: APIRouter, queue: NarrationQueue, state: AppState) -> None:
    """Add the route that takes videos."""
    decoding = DecodingThreads(_LOOKED_AT_AT_ONCE, "uploads")

    @router.post("/api/uploads", status_code=201, openapi_extra=_BODY)
    async def upload(request: Request, sent: Annotated[SentVideo, Query()]) -> dict:
        """Send a video, as the body of the request, and have it narrated; returns the narration."""
        _require_narrator(state)
        try:
            names_of(sent.name)
            with queue.place_reserved():
                return describe(queue, await _take(request, queue, state, sent, decoding))
        except UserError as error:
            status = next(status for kind, status in _STATUS if isinstance(error, kind))
            raise HTTPException(status, str(error), {"connection": "close"}) from error


def _require_narrator(state: AppState) -> None:
    if state.narrator is None:
        raise HTTPException(409, state.missing.get("narrate", "there is no narrator"))


async def _take(
    request: Request, queue: NarrationQueue, state: AppState, sent: SentVideo, decoding: DecodingThreads
) -> Narration:
    narration_id, (shown, file_name) = new_id(), names_of(sent.name)
    settings = Settings(window_s=sent.window_s, num_captions=sent.num_captions)
    path = partial_upload(queue.folder, narration_id)
    try:
        num_bytes = await receive(
            request.stream(),
            path,
            max_bytes=state.job.max_upload_mib << 20,
            expected_bytes=told_length(request.headers),
        )
        video = await decoding.run(look_at_upload, path, state.job.decode)
        async with queue.arriving:
            record = Record(
                narration_id=narration_id, name=shown, file_name=file_name, created_s=queue.arrival_s(),
                num_bytes=num_bytes, duration_s=video.duration_s, codec=video.codec, settings=settings,
            )  # fmt: skip
            record.windows()  # raises UserError for more than there may be
            return queue.add(await asyncio.to_thread(keep_upload, queue.folder, path, record), record)
    finally:
        path.unlink(missing_ok=True)


async def _found(request: Request, narration_id: str) -> Narration:
    narration = request.app.state.narrations.find(narration_id)
    if narration is None:
        raise HTTPException(404, "no such narration")
    return narration


_Found = Annotated[Narration, Depends(_found)]


def add_readings(router: APIRouter, queue: NarrationQueue, state: AppState) -> None:
    """Add the routes below /api/narrations that change nothing."""
    videos = NarratedVideos(state.job.decode)

    @router.get("/api/narrations")
    async def narrations() -> list[dict]:
        """Return all narrations, the latest first."""
        return [describe(queue, narration) for narration in queue.all()]

    @router.get("/api/narrations/{narration_id}")
    async def narration(narration: _Found) -> dict:
        """Return a narration as it stands, with its windows so far."""
        windows = await queue.windows_of(narration)
        told = [with_edit(window, narration) for window in windows.since(0)]
        return {**describe(queue, narration, windows.num_done), "windows": told}

    @router.get("/api/narrations/{narration_id}/events", response_class=EventSourceResponse)
    async def events(narration: _Found, last_event_id: Annotated[str | None, Header()] = None) -> EventSourceResponse:
        """Tell windows as they are written, as server-sent events, until the narration is over."""
        return EventSourceResponse(events_of(queue, narration, last_event_id), headers={"cache-control": "no-store"})

    @router.head("/api/narrations/{narration_id}/video", include_in_schema=False)
    @router.get("/api/narrations/{narration_id}/video", response_class=FileResponse)
    async def video(narration: _Found) -> FileResponse:
        """Return the video, or the range of it that is asked for, so that every browser plays it."""
        return await videos.answer(narration)

    @router.get("/api/narrations/{narration_id}/download/{kind}", response_class=Response)
    async def download(narration: _Found, kind: str) -> Response:
        """Return what was said so far as a file: srt, vtt, jsonl or csv."""
        if kind not in FORMATS:
            raise HTTPException(404, f"no such format: it is one of {', '.join(FORMATS)}")
        media_type, write = FORMATS[kind]
        windows = await queue.windows_of(narration)
        text = await asyncio.to_thread(write, windows.entries(), narration.edits, narration.record.duration_s)
        headers = {"content-disposition": _attachment(f"{narration.record.name.rpartition('.')[0]}.{kind}")}
        return Response(text.encode("utf-8", "replace"), headers=headers, media_type=media_type)


def add_changes(router: APIRouter, queue: NarrationQueue, state: AppState) -> None:
    """Add the routes below /api/narrations by which a person changes something."""

    @router.put("/api/narrations/{narration_id}/windows/{clip_id}")
    async def edit(narration: _Found, clip_id: str, edited: EditedText) -> dict:
        """Keep a person's text for a window, narrated or not; the model's stays as it is."""
        if not await asyncio.to_thread(narration.has_window, clip_id):
            raise HTTPException(404, "no such window")
        try:
            narration.edit(clip_id, None if edited.text is None else edited.text.strip())
        except UserError as error:
            raise HTTPException(413, str(error)) from error
        except OSError as error:
            raise HTTPException(507, "the text cannot be kept: the app's disk takes no more") from error
        return {"clip_id": clip_id, "edited": narration.edits.get(clip_id)}

    @router.post("/api/narrations/{narration_id}/cancel")
    async def cancel(narration: _Found) -> dict:
        """Stop a narration; what is narrated is kept."""
        await queue.cancel(narration)
        return describe(queue, narration)

    @router.post("/api/narrations/{narration_id}/retry")
    async def retry(narration: _Found) -> dict:
        """Let a narration that failed or was cancelled go on from where it was."""
        _require_narrator(state)
        try:
            queue.retry(narration)
        except QueueFull as error:
            raise HTTPException(429, str(error)) from error
        return describe(queue, narration)

    @router.delete("/api/narrations/{narration_id}", status_code=204)
    async def delete(narration: _Found) -> None:
        """Remove a narration with its video and all that was said."""
        await queue.delete(narration)


def _attachment(name: str) -> str:
    """Return a header's value by which a browser saves an answer under a name, whatever letters that has."""
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
