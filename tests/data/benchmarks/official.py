"""Official annotation files beside the checkout, and small files of the same form."""

import csv
from pathlib import Path

import pytest

ANNOTATIONS = Path(__file__).resolve().parents[3] / "../shared/data/annotations"
EK100_COLUMNS = (
    "narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp", "narration", "verb_class",
    "noun_class", "all_noun_classes",
)  # fmt: skip


def official(name: str) -> Path:
    if not (ANNOTATIONS / name).exists():
        pytest.skip(f"official annotation file {name} is not beside this checkout")
    return ANNOTATIONS / name


def segment_row(number: int, **changes: str) -> dict[str, str]:
    """A row of EK-100's CSV; number decides all that is not said."""
    row = {
        "narration_id": f"P01_11_{number}", "participant_id": "P01", "video_id": "P01_11",
        "start_timestamp": f"00:00:{number:02d}.50", "stop_timestamp": f"00:01:{number:02d}.25",
        "narration": f"take thing {number}", "verb_class": str(number % 3), "noun_class": str(number % 4),
        "all_noun_classes": f"[{number % 4}, {number % 5}]",
    }  # fmt: skip
    return row | changes


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
