"""EgoMCQ's official file: a text and five clips, one of which it describes.

Type 1 has the clips of five videos (inter-video), type 2 those of one (intra-video), the harder. Code that pairs the
sorted types with ["Intra", "Inter"] prints the names the wrong way round.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mama_ray.data.benchmarks.official_csv import official_reader, refuse_pickle
from mama_ray.data.benchmarks.rows import Row, Split, make_row
from mama_ray.data.clip import make_clip_id
from mama_ray.data.questions.official.records import read_object
from mama_ray.errors import UserError

NUM_CHOICES = 5
INTER, INTRA = 1, 2


@dataclass(frozen=True)
class ChoiceClip:
    """`[start_s, end_s)` of a video; a start before 0 is 0."""

    video_id: str
    start_s: float
    end_s: float

    @property
    def clip_id(self) -> str:
        """Its name, made of these alone."""
        return make_clip_id(self.video_id, self.start_s, self.end_s)


@dataclass(frozen=True)
class ClipQuestion:
    """A text, the clips to choose from, the place of the right one, and the type."""

    question_id: str
    text: str
    choices: tuple[ChoiceClip, ...]
    answer: int
    type: int


@official_reader
def read_questions(path: Path) -> list[ClipQuestion]:
    """Return the questions of egomcq.json in file order; UserError for the first that is none."""
    refuse_pickle(path)
    questions = []
    for name, record in read_object(path).items():
        try:
            questions.append(_question(name, record))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            told = f"no {error}" if isinstance(error, KeyError) else f"{error}"
            raise UserError(f"question {name} of {path.name}", got=told, wanted="an entry of egomcq.json") from None
    if not questions:
        raise UserError(f"{path.name} has no questions", wanted="egomcq.json")
    return questions


def _question(name: str, record: dict[str, Any]) -> ClipQuestion:
    choices = record["choices"]
    if set(choices) != {str(number) for number in range(NUM_CHOICES)}:
        raise ValueError(f"{len(choices)} choices, wanted {NUM_CHOICES}, named 0 to {NUM_CHOICES - 1}")
    answer, kind, text = record["answer"], record["types"], record["query"]["clip_text"]
    if answer not in range(NUM_CHOICES) or isinstance(answer, bool):
        raise ValueError(f"answer {answer!r}, wanted 0 to {NUM_CHOICES - 1}")
    if kind not in (INTER, INTRA):
        raise ValueError(f"types {kind!r}, wanted {INTER} (inter-video) or {INTRA} (intra-video)")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"clip_text {text!r}, wanted a text")
    clips = tuple(_clip(choices[str(number)]) for number in range(NUM_CHOICES))
    return ClipQuestion(name, text, clips, int(answer), int(kind))


def _clip(choice: dict[str, Any]) -> ChoiceClip:
    start_s, end_s = float(choice["clip_start"]), float(choice["clip_end"])
    if not (math.isfinite(start_s) and math.isfinite(end_s) and end_s > max(0.0, start_s)):
        raise ValueError(f"clip {start_s} to {end_s} s, wanted an end behind the start")
    if not isinstance(choice["video_uid"], str):
        raise ValueError(f"video_uid {choice['video_uid']!r}, wanted a name")
    return ChoiceClip(choice["video_uid"], max(0.0, start_s), end_s)


def read_egomcq(annotations: Path, captions: Path | None = None, split: Split = "test") -> list[Row]:
    """Return a row for each clip that a question offers, each once and without captions."""
    clips = {choice.clip_id: choice for question in read_questions(annotations) for choice in question.choices}
    return [
        make_row(f"{clip.video_id}.mp4", clip.video_id, [], split)
        | {"clip_id": clip_id, "start_s": clip.start_s, "end_s": clip.end_s}
        for clip_id, clip in clips.items()
    ]
