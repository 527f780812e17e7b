"""Which texts count as the same, what a paraphrase looks like, and which candidates become one.

Two texts are the same when they have the same letters and digits in the same words: case, punctuation, blanks and the
forms of Unicode that look alike make no difference.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mama_ray.captioning.engines.protocol import GeneratedText
from mama_ray.captioning.rephrasing.settings import WordingConfig

_APOSTROPHES = "'\u2018\u2019\u02bc"
_HYPHENS = "-\u2010\u2011"
_QUOTES = "\"'\u2018\u2019\u201c\u201d\u00ab\u00bb`"
# What an instruct model says before it says it.
_LABEL = re.compile(r"^(?:paraphrase[d]?(?: text| sentence| version)?|rewritten(?: sentence)?|rephrased)\s*:\s*", re.I)


def text_key(text: str) -> str:
    """Return what texts that count as the same share; "" for one without letters and digits."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = []
    for char in folded:
        kind = unicodedata.category(char)
        if char in _APOSTROPHES or kind == "Cf":  # soft hyphens and other marks that are not seen
            continue
        kept.append(" " if kind[0] in "PSZC" else char)
    return " ".join("".join(kept).split())


def clean_answer(text: str, config: WordingConfig) -> str:
    """Return a model's answer as a paraphrase: its first line that says something, without label, quotes and, where
    asked for, punctuation."""
    line = next((line for line in text.splitlines() if text_key(line)), "").strip()
    line = _without_quotes(_LABEL.sub("", line))
    if config.remove_punctuation:
        line = remove_punctuation(line)
    return " ".join(line.split())


def remove_punctuation(text: str) -> str:
    """Leave out punctuation but apostrophes and hyphens inside words, points inside numbers, and the # of #C."""
    kept = []
    for place, char in enumerate(text):
        if unicodedata.category(char)[0] != "P":
            kept.append(char)
            continue
        before, after = text[place - 1 : place], text[place + 1 : place + 2]
        is_inside = before.isalnum() and after.isalnum()
        is_tag = char == "#" and after.isalpha() and not before.isalnum()
        is_of_number = char in ".,:" and before.isdigit() and after.isdigit()
        stays = is_tag or is_of_number or (is_inside and char in _APOSTROPHES + _HYPHENS + "_")
        kept.append(char if stays else " ")
    return " ".join("".join(kept).split())


def _without_quotes(text: str) -> str:
    text = text.strip()
    while len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return text


@dataclass(frozen=True)
class Paraphrase:
    """A candidate that was kept: its text, its place among the candidates, and what the engine wrote."""

    text: str
    number: int
    generated: GeneratedText


@dataclass
class Choice:
    """What became of a caption's candidates: kept, or left out because they equal a human caption of the clip, repeat
    another paraphrase, were cut off, or say nothing; candidates behind the last that was wanted are not looked at."""

    kept: list[Paraphrase] = field(default_factory=list)
    num_looked_at: int = 0
    num_equal: int = 0
    num_repeated: int = 0
    num_cut_off: int = 0
    num_empty: int = 0

    @property
    def reason(self) -> str:
        """Say why there are no more paraphrases."""
        told = {
            "equal a human caption": self.num_equal,
            "repeat another": self.num_repeated,
            "cut off": self.num_cut_off,
            "say nothing": self.num_empty,
        }
        counts = ", ".join(f"{count} {what}" for what, count in told.items() if count)
        return f"too few different paraphrases: of {self.num_looked_at} candidates {counts or 'none is left'}"


def choose_paraphrases(
    candidates: Sequence[GeneratedText],
    *,
    sources: Iterable[str],
    others: set[str],
    num_kept: int,
    wording: WordingConfig,
) -> Choice:
    """Keep the first candidates, in their order, that differ from all sources and from each other.

    Args:
        candidates: of one caption, the best first.
        sources: the human captions of the clip; no text that equals one is ever kept.
        others: the keys of the clip's paraphrases so far, to which those that are kept are added.
        num_kept: paraphrases that are wanted.
        wording: how they are written.
    """
    source_keys, choice = {text_key(text) for text in sources}, Choice()
    for number, generated in enumerate(candidates):
        if len(choice.kept) == num_kept:
            break
        choice.num_looked_at += 1
        text = clean_answer(generated.text, wording)
        key = text_key(text)
        if not key:
            choice.num_empty += 1
        elif key in source_keys:
            choice.num_equal += 1
        elif generated.finish_reason == "length":
            choice.num_cut_off += 1
        elif key in others:
            choice.num_repeated += 1
        else:
            others.add(key)
            choice.kept.append(Paraphrase(text, number, generated))
    return choice
