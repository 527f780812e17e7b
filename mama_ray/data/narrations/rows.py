"""A narration as a row of annotations, whichever file it comes from."""

import math
from collections import Counter
from typing import Any

from mama_ray.data.captions import is_nothing

# Of one clip: LaViLa's largest lists have 10 texts of at most 77 tokens.
MAX_TEXTS = 1000
MAX_CHARACTERS = 10_000


def narration_row(
    video_uid: Any, start_s: Any, end_s: Any, texts: list[Any], source: str, clamped: Counter
) -> dict[str, Any]:
    """Return the row of a clip of `<video_uid>.mp4`, a file or a folder of chunks.

    A window that was laid around a moment near the beginning starts below 0; it is taken from 0 on, and counted in
    `clamped` as "start". Raises ValueError that names the value for everything else that is no narration.
    """
    if not isinstance(video_uid, str) or is_nothing(video_uid):
        raise ValueError(f"video uid: got {_shown(video_uid)}, wanted a name")
    if "/" in video_uid or video_uid.startswith("."):
        raise ValueError(f"video uid: got {_shown(video_uid)}, wanted a name without folders")
    start_s, end_s = _seconds("start", start_s), _seconds("end", end_s)
    if not end_s > start_s:
        raise ValueError(f"times: got an end of {end_s:g} s, wanted more than the start of {start_s:g} s")
    if end_s <= 0:
        raise ValueError(f"times: got an end of {end_s:g} s, wanted more than 0")
    captions = _captions(texts, source)
    if start_s < 0:
        start_s = 0.0
        clamped["start"] += 1
    video = video_uid if video_uid.lower().endswith(".mp4") else f"{video_uid}.mp4"
    return {
        "video": video,
        "video_id": video_uid.removesuffix(".mp4"),
        "start_s": start_s,
        "end_s": end_s,
        "captions": captions,
    }


def _captions(texts: list[Any], source: str) -> list[dict[str, str]]:
    if len(texts) > MAX_TEXTS:
        raise ValueError(f"texts: got {len(texts)}, wanted at most {MAX_TEXTS}")
    found = []
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"text: got {_shown(text)}, wanted a text")
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"text: got {len(text)} characters, wanted at most {MAX_CHARACTERS}")
        if not is_nothing(text):
            found.append({"text": text.strip(), "source": source})
    if not found:
        raise ValueError("text: got nothing, wanted a narration")
    return found


def _seconds(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise TypeError
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: got {_shown(value)}, wanted a number of seconds") from None
    if not math.isfinite(seconds):
        raise ValueError(f"{name}: got {seconds}, wanted a finite number of seconds")
    return seconds


def _shown(value: Any) -> str:
    """A value in few words: what comes from outside may be nested, endless or a number of thousands of digits."""
    return repr(value[:60]) if isinstance(value, str) else type(value).__name__
