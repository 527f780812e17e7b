"""A narration as files: subtitles, JSON lines, and a table for spreadsheets, with a person's texts in place.

Captions are text of others: in no file can they end a cue, be a formula, or be markup.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mama_ray.captioning.subtitles import Cue, cues_of, to_srt, to_vtt
from mama_ray.captioning.timeline import Entry, TimelineConfig, build_timeline
from mama_ray.orchestration.prepare.quarantine import spreadsheet_cell
from mama_ray.orchestration.serving.narrate.windows import shown_text

Edits = Mapping[str, str]
_COLUMNS = ("start_s", "end_s", "text", "is_edited", "raw", "mean_logprob", "flags", "error", "clip_id")


def write_srt(entries: Sequence[Entry], edits: Edits, duration_s: float) -> str:
    """Return SubRip; neighbouring windows that say the same are one cue."""
    return to_srt(_cues(entries, edits, duration_s))


def write_vtt(entries: Sequence[Entry], edits: Edits, duration_s: float) -> str:
    """Return WebVTT; neighbouring windows that say the same are one cue."""
    return to_vtt(_cues(entries, edits, duration_s))


def write_json_lines(entries: Sequence[Entry], edits: Edits, duration_s: float) -> str:
    """Return a line per window: `text` is what is shown, `raw` and `texts` are the model's, `edited` is a person's."""
    lines = []
    for entry in entries:
        edited = edits.get(entry.clip_ids[0])
        record = {**entry.to_json(""), "text": shown_text(entry, edits), "edited": edited}
        del record["video"]
        lines.append(f"{json.dumps(record, ensure_ascii=False)}\n")
    return "".join(lines)


def write_csv(entries: Sequence[Entry], edits: Edits, duration_s: float) -> str:
    """Return a table that spreadsheets open: a row per window, UTF-8 with its mark, no formulas."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for entry in entries:
        row = _csv_row(entry, edits)
        writer.writerow([spreadsheet_cell(row[name]) for name in _COLUMNS])
    return f"\ufeff{text.getvalue()}"


Writer = Callable[[Sequence[Entry], Edits, float], str]
FORMATS: dict[str, tuple[str, Writer]] = {
    "srt": ("application/x-subrip", write_srt),
    "vtt": ("text/vtt", write_vtt),
    "jsonl": ("application/jsonl", write_json_lines),
    "csv": ("text/csv", write_csv),
}


def _csv_row(entry: Entry, edits: Edits) -> dict[str, Any]:
    first = entry.texts[0] if entry.texts else None
    return {
        "start_s": entry.start_s,
        "end_s": entry.end_s,
        "text": shown_text(entry, edits),
        "is_edited": entry.clip_ids[0] in edits,
        "raw": first.raw if first else None,
        "mean_logprob": first.mean_logprob if first else None,
        "flags": " ".join(first.flags) if first else None,
        "error": entry.error,
        "clip_id": entry.clip_ids[0],
    }


def _cues(entries: Sequence[Entry], edits: Edits, duration_s: float) -> list[Cue]:
    rows = [
        {"clip_id": entry.clip_ids[0], "start_s": entry.start_s, "end_s": entry.end_s, "sample": 0,
         "caption": shown_text(entry, edits), "mean_logprob": None, "flags": (), "error": entry.error}
        for entry in entries
    ]  # fmt: skip
    return cues_of(build_timeline(rows, TimelineConfig()), duration_s)
