"""EGTEA Gaze+'s official files: clips of a split with their action, numbered from 1 there and from 0 here."""

import re
from dataclasses import dataclass
from pathlib import Path

from mama_ray.data.benchmarks.official_csv import (
    official_reader,
    parse_whole,
    refuse_other_split,
    refuse_pickle,
    require_unique,
)
from mama_ray.data.benchmarks.rows import Row, Split, make_row
from mama_ray.errors import UserError

_SPLIT_FILES = ("test_split1.txt", "test_split2.txt", "test_split3.txt")
_COUNTS = {"train": 8_299, "test": 2_022}  # of split 1


@dataclass(frozen=True)
class ActionClip:
    """A trimmed clip and its action class, from 0."""

    clip_id: str
    action: int

    @property
    def recording(self) -> str:
        """The video that it is cut from, and the folder in which it lies."""
        return "-".join(self.clip_id.split("-")[:3])


@official_reader
def read_action_texts(path: Path) -> tuple[str, ...]:
    """Return the texts of action_idx.txt, `<Name_with_underscores> <number from 1>`, in lower case, by class.

    RULSTM's actions.csv, `<number from 0>, <verb>_<noun>, <name>`, is read as well. UserError unless the numbers
    follow each other.
    """
    refuse_pickle(path)
    texts = []
    for number, line in enumerate(_lines(path)):
        is_csv = "," in line
        fields = [part.strip() for part in line.split(",")] if is_csv else line.rsplit(maxsplit=1)
        name, found, wanted = (fields[-1], fields[0], number) if is_csv else (fields[0], fields[-1], number + 1)
        if len(fields) < 2 or found != str(wanted):
            raise UserError(f"line {number + 1} of {path.name}", got=line, wanted=f"a name and the number {wanted}")
        texts.append(name.replace("_", " ").lower())
    if not texts:
        raise UserError(f"{path.name} has no actions", wanted="action_idx.txt")
    return tuple(texts)


@official_reader
def read_clips(path: Path, split: Split, *, num_classes: int | None = None) -> list[ActionClip]:
    """Return the clips of {train,test}_split{1,2,3}.txt, `clip_id action verb noun`, in file order.

    Copies that put each line in quotes are read as well. Raises UserError for a file of another split, a clip that
    comes twice, and an action that is not one of 1 to `num_classes`.
    """
    refuse_pickle(path)
    clips = []
    for number, line in enumerate(_lines(path), 1):
        try:
            clip_id, action = _clip(line)
        except ValueError:
            wanted = "clip_id action verb noun"
            raise UserError(f"line {number} of {path.name}", got=line, wanted=wanted) from None
        if action < 1 or (num_classes is not None and action > num_classes):
            what = "actions are numbered from 1" if action < 1 else "a class is missing from the list"
            wanted = f"1 to {num_classes}" if num_classes else "1 or more"
            raise UserError(what, got=f"{action} of clip {clip_id}", wanted=wanted)
        clips.append(ActionClip(clip_id, action - 1))
    if not clips:
        raise UserError(f"{path.name} has no clips", wanted="an official list such as test_split1.txt")
    refuse_other_split(path, split, count=len(clips), official_counts=_COUNTS)
    require_unique(path, [clip.clip_id for clip in clips], "clip")
    return clips


def _clip(line: str) -> tuple[str, int]:
    fields = line.strip('"').split()
    if len(fields) < 2:
        raise ValueError("no action")
    return fields[0], parse_whole(fields[1])


def read_test_splits(folder: Path, *, num_classes: int | None = None) -> dict[str, list[ActionClip]]:
    """Return the clips of each test_split{1,2,3}.txt that the folder has, by split1, split2 and split3.

    UserError where it has none, and where two of them give a clip another action.
    """
    found = {
        re.sub(r"^test_|\.txt$", "", name): read_clips(folder / name, "test", num_classes=num_classes)
        for name in _SPLIT_FILES
        if (folder / name).is_file()
    }
    if not found:
        raise UserError("no list of EGTEA's test clips", got=folder, wanted=f"one of {', '.join(_SPLIT_FILES)}")
    actions: dict[str, int] = {}
    for name, clips in found.items():
        for clip in clips:
            if actions.setdefault(clip.clip_id, clip.action) != clip.action:
                raise UserError(f"{name} has another action than the lists before", got=f"clip {clip.clip_id}")
    return found


def read_egtea(annotations: Path, captions: Path | None = None, split: Split = "test") -> list[Row]:
    """Return a row for each trimmed clip of a list, or of all test lists of a folder, each clip once.

    captions: action_idx.txt, whose text is the caption then; without it clips have none.
    """
    texts = read_action_texts(captions) if captions else None
    num_classes = len(texts) if texts else None
    if annotations.is_dir():
        if split != "test":
            raise UserError("a folder stands for the test lists", got=f"split {split}", wanted="one train list")
        lists = read_test_splits(annotations, num_classes=num_classes).values()
        clips = list({clip.clip_id: clip for one in lists for clip in one}.values())
    else:
        clips = read_clips(annotations, split, num_classes=num_classes)
    return [
        make_row(f"{clip.recording}/{clip.clip_id}.mp4", clip.recording, [texts[clip.action]] if texts else [], split)
        | {"clip_id": clip.clip_id}
        for clip in clips
    ]


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
