"""From the human captions of clips to the rows of a table: so many places for each caption, each with a paraphrase or
with the reason why there is none.

Sample numbers of a clip count the places of its first human caption, then those of its second, and so on: sample s is
of caption s // num_kept. A clip without human captions has one row, which says so.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mama_ray.captioning.engines.generation import clip_seed
from mama_ray.captioning.rephrasing.engine import RephrasingEngine
from mama_ray.captioning.rephrasing.settings import DecodingConfig, WordingConfig
from mama_ray.captioning.rephrasing.wording import Choice, choose_paraphrases, text_key

NO_HUMAN = "the clip has no human caption"
NO_WORDS = "the caption has no words"
REPEATED = "the caption repeats an earlier one of its clip"
COUNTS = ("num_looked_at", "num_equal", "num_repeated", "num_cut_off", "num_empty")


@dataclass(frozen=True)
class ClipTexts:
    """A clip's human captions, in the order of the index."""

    clip_id: str
    texts: tuple[str, ...]


def count_rows(num_texts: int, num_kept: int) -> int:
    """Return how many rows a clip with so many human captions has."""
    return max(1, num_texts * num_kept)


def rephrase_clips(
    clips: Sequence[ClipTexts], engine: RephrasingEngine, decoding: DecodingConfig, wording: WordingConfig
) -> list[list[dict[str, Any]]]:
    """Return the rows of each clip; all captions go into the engine together."""
    asked = [(place, number) for place, clip in enumerate(clips) for number in open_captions(clip)]
    texts = [clips[place].texts[number] for place, number in asked]
    seeds = [caption_seed(decoding, clips[place].clip_id, number) for place, number in asked]
    answers = engine.rephrase(texts, seeds) if asked else []
    by_clip: list[dict[int, Any]] = [{} for _ in clips]
    for (place, number), answer in zip(asked, answers, strict=True):
        by_clip[place][number] = answer
    return [_rows_of_clip(clip, own, decoding, wording) for clip, own in zip(clips, by_clip, strict=True)]


def error_rows(clip: ClipTexts, decoding: DecodingConfig, reason: str) -> list[dict[str, Any]]:
    """Return the rows of a clip none of whose captions could be rephrased, for one reason."""
    return _rows_of_clip(clip, dict.fromkeys(open_captions(clip), reason), decoding, WordingConfig())


def open_captions(clip: ClipTexts) -> list[int]:
    """Return the numbers of the captions that are worth asking for: with words, and each once."""
    keys = [text_key(text) for text in clip.texts]
    return [number for number, key in enumerate(keys) if key and key not in keys[:number]]


def caption_seed(decoding: DecodingConfig, clip_id: str, number: int) -> int:
    """Return the seed of a caption's first sample; sample k has the k-th after it."""
    return clip_seed(decoding.seed, f"{clip_id}:{number}")


def text_sha256(text: str) -> str:
    """Return what the table has as `shown_sha256`: the hash of the caption that a paraphrase was made from."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _rows_of_clip(
    clip: ClipTexts, answers: dict[int, Any], decoding: DecodingConfig, wording: WordingConfig
) -> list[dict[str, Any]]:
    if not clip.texts:
        return [_row(0, None, error=NO_HUMAN)]
    rows: list[dict[str, Any]] = []
    others: set[str] = set()
    for number, text in enumerate(clip.texts):
        answer, choice = answers.get(number), Choice()
        reason = answer if isinstance(answer, str) else REPEATED if text_key(text) else NO_WORDS
        if isinstance(answer, list):
            choice = choose_paraphrases(
                answer, sources=clip.texts, others=others, num_kept=decoding.num_kept, wording=wording
            )
            reason = choice.reason
        seed = caption_seed(decoding, clip.clip_id, number)
        rows += _rows_of_caption(len(rows), text, choice, reason, decoding, seed)
    return rows


def _rows_of_caption(
    first: int, text: str, choice: Choice, reason: str, decoding: DecodingConfig, seed: int
) -> list[dict[str, Any]]:
    digest, rows = text_sha256(text), []
    for one in choice.kept:
        found = {
            "caption": one.text,
            "seed": seed + one.number if decoding.method == "sampling" else None,
            "num_tokens": one.generated.num_tokens,
            "finish_reason": one.generated.finish_reason,
            "mean_logprob": one.generated.mean_logprob,
        }
        rows.append(_row(first + len(rows), digest, **found))
    while len(rows) < decoding.num_kept:
        rows.append(_row(first + len(rows), digest, error=reason))
    rows[0] |= {name: getattr(choice, name) for name in COUNTS}  # of the caption, so on one of its rows
    return rows


def _row(sample: int, shown_sha256: str | None, **values: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("caption", "seed", "num_tokens", "finish_reason", "mean_logprob", "error"))
    return {"sample": sample, "shown_sha256": shown_sha256, **empty, **dict.fromkeys(COUNTS, 0), **values}
