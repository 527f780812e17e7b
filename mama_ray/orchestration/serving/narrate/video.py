"""The video of a narration for its player: as it was uploaded, or made anew where browsers do not play its codec."""

import asyncio

from fastapi import HTTPException
from fastapi.responses import FileResponse

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.guarded import guard_of
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.orchestration.captioning.source import reason_of
from mama_ray.orchestration.serving.narrate.jobs import Narration
from mama_ray.orchestration.serving.previews import plays_in_browsers
from mama_ray.orchestration.serving.uploads import DecodingThreads
from mama_ray.storage.places import whole_file

_KINDS = {"webm": "video/webm", "mkv": "video/webm", "mov": "video/mp4", "m4v": "video/mp4", "mp4": "video/mp4"}


class NarratedVideos:
    """Answers with videos; previews are made one at a time, each once."""

    def __init__(self, decode: DecodeConfig) -> None:
        self._decode = decode
        self._one_at_a_time = asyncio.Lock()
        self._decoding = DecodingThreads(1, "videos")
        self._reasons: dict[str, str] = {}

    async def answer(self, narration: Narration) -> FileResponse:
        """Return the whole file or the range of it that a browser asks for. Raises HTTPException with the reason."""
        record, folder = narration.record, narration.folder
        if not await asyncio.to_thread((folder.path / record.file_name).is_file):
            raise HTTPException(404, "the video is gone from the app's folder")
        if plays_in_browsers(record):
            return FileResponse(folder.path / record.file_name, media_type=_KINDS[record.extension])
        async with self._one_at_a_time:
            reason = self._reasons.get(record.narration_id)
            if reason is None and not folder.preview.exists():
                try:
                    reason = await self._decoding.run(self._make_preview, narration)
                except OSError as error:  # no fact about the video: the next look may find room
                    raise HTTPException(507, "there is no room for a preview of the video") from error
        if reason is not None:
            self._reasons[record.narration_id] = reason
            raise HTTPException(422, reason)
        return FileResponse(folder.preview, media_type="video/mp4")

    def _make_preview(self, narration: Narration) -> str | None:
        """Write the video as H.264; returns why that cannot be done. Raises OSError where the disk fails."""
        folder = narration.folder
        try:
            with whole_file(folder.preview) as path, guard_of(self._decode) as guard:
                guard.recode(str(folder.path / narration.record.file_name), str(path))
        except DecodeError as error:
            return f"the video cannot be shown: {reason_of(error)}".replace(f"{folder.path}/", "")
        return None
