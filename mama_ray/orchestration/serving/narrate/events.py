"""What the page of a narration is told while it runs, as server-sent events.

`state`: the narration as it stands. `windows`: windows that the page does not know yet, in order. `end`: nothing more
comes. A page that was away names the last event it has seen and is told what came since; after a restart of the app,
whose numbers are others, it is told everything.
"""

import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

from sse_starlette import ServerSentEvent

from mama_ray.orchestration.serving.narrate.jobs import Narration, NarrationQueue

_WINDOWS_PER_EVENT = 256
_RETRY_MS = 1_000
_START = secrets.token_hex(4)  # of this start of the app


def describe(queue: NarrationQueue, narration: Narration, num_done: int | None = None) -> dict[str, Any]:
    """Return a narration as the JSON interface tells it; `num_done` where it is known."""
    record = narration.record
    windows = narration.windows
    if num_done is None and windows is not None:
        num_done = windows.num_done
    return {
        "id": record.narration_id,
        "name": record.name,
        "state": record.state,
        "reason": record.reason,
        "before": queue.place_of(narration),
        "created_s": record.created_s,
        "duration_s": record.duration_s,
        "num_bytes": record.num_bytes,
        "settings": record.settings.model_dump(),
        "num_windows": narration.num_windows,
        "num_done": num_done,
        "notice": narration.notice,
    }


async def events_of(queue: NarrationQueue, narration: Narration, last_id: str | None) -> AsyncIterator[ServerSentEvent]:
    """Yield events until the narration is over; `last_id` is that of the last event the page has seen."""
    known = _revision_in(last_id)
    while True:
        changed = narration.changed  # before anything is read: what changes meanwhile is told in the next round
        is_over = narration.record.is_over and narration.windows is None
        windows = await queue.windows_of(narration)
        now, news = windows.revision, windows.since(known)
        for start in range(0, len(news), _WINDOWS_PER_EVENT):
            part = [with_edit(window, narration) for window in news[start : start + _WINDOWS_PER_EVENT]]
            is_last = start + _WINDOWS_PER_EVENT >= len(news)
            yield _event("windows", part, id=f"{_START}-{now}" if is_last else None)
        known = now
        yield _event("state", describe(queue, narration, windows.num_done))
        if is_over:
            yield _event("end", {})
            return
        await changed.wait()


def with_edit(window: dict[str, Any], narration: Narration) -> dict[str, Any]:
    """Return a window with what a person wrote in its place; None where nobody has."""
    return {**window, "edited": narration.edits.get(window["clip_id"])}


def _event(name: str, content: Any, id: str | None = None) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(content, ensure_ascii=False), event=name, id=id, retry=_RETRY_MS)


def _revision_in(last_id: str | None) -> int:
    start, _, revision = (last_id or "").partition("-")
    return int(revision) if start == _START and revision.isascii() and revision.isdecimal() else 0
