"""The quality gate: what is wrong with a generated caption, as flags. It drops nothing: training chooses by flag."""

import re
import unicodedata
from itertools import pairwise
from typing import Literal, get_args

from pydantic import Field

from mama_ray.config import Config

Flag = Literal[
    "empty", "cut_off", "too_long", "repetitive", "refusal", "boilerplate", "wrong_script", "duplicate", "dissimilar"
]
FLAGS: tuple[Flag, ...] = get_args(Flag)

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_ARTICLES = {"a", "an", "the"}
# Openings that every captioner has; what follows them is the caption.
_STOCK_OPENING = re.compile(
    r"^\W*(?:in\s+)?(?:the|this|a)\s+(?:video|clip|footage|scene|sequence|series\s+of\s+(?:images|frames))"
    r"(?:\s+(?:shows?|captures?|depicts?|features?|displays?|is\s+about|we\s+see))?\b\W*",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(?:as\s+an\s+ai|i(?:'|\u2019)?m\s+sorry|i\s+am\s+sorry|i\s+(?:cannot|can(?:'|\u2019)t|am\s+unable|am\s+not\s+able)"
    r"|unable\s+to\s+(?:see|view|describe|assist)|cannot\s+assist)\b",
    re.IGNORECASE,
)
_NGRAM = 3
_MIN_NGRAMS = 6  # below this a repetition proves nothing


class QualityConfig(Config):
    """Where the gate draws its lines."""

    max_words: int = Field(40, ge=1)
    """Words above which a caption is too long (the release's limit is 40 word pieces)."""

    min_words: int = Field(2, ge=1)
    """Words after a stock opening ("the video shows") below which a caption is boilerplate."""

    min_distinct: float = Field(0.5, ge=0.0, le=1.0)
    """Share of distinct word triples below which a caption is repetitive."""

    max_run: int = Field(3, ge=1)
    """Times in a row that one word may stand."""

    script: str = Field("LATIN", pattern=r"^[A-Z]+$")
    """Unicode's name of the script that captions are to be in, e.g. LATIN, CYRILLIC, CJK."""

    min_script_share: float = Field(0.8, ge=0.0, le=1.0)
    """Share of the letters that must be of that script."""

    max_copies: int = Field(20, ge=1)
    """Clips that may share a caption, case, articles and stock opening aside."""

    min_similarity: float = Field(0.0, ge=-1.0, le=1.0)
    """Cosine of video and caption below which they are dissimilar, where a dual encoder was given."""


def caption_flags(
    text: str,
    config: QualityConfig,
    *,
    finish_reason: str = "stop",
    num_copies: int = 1,
    similarity: float | None = None,
) -> tuple[str, ...]:
    """Return what is wrong with a caption, in the order of FLAGS; () for a good one.

    `finish_reason` is the engine's, `num_copies` how many clips have the same `caption_key`, this one included.
    """
    words = _WORD.findall(text)
    if not words:
        return ("empty",)
    found = {
        "cut_off": finish_reason == "length",
        "too_long": len(words) > config.max_words,
        "repetitive": _is_repetitive(words, config),
        "refusal": bool(_REFUSAL.search(text)),
        "boilerplate": len(_WORD.findall(_STOCK_OPENING.sub("", text))) < config.min_words,
        "wrong_script": _script_share(text, config.script) < config.min_script_share,
        "duplicate": num_copies > config.max_copies,
        "dissimilar": similarity is not None and similarity < config.min_similarity,
    }
    return tuple(flag for flag in FLAGS if found.get(flag))


def word_list(text: str) -> list[str]:
    """Return the words of a caption as the gate counts them."""
    return _WORD.findall(text)


def caption_key(text: str) -> str:
    """Return what near-duplicates share: the words after a stock opening, in lower case, without articles."""
    words = [word.lower() for word in _WORD.findall(_STOCK_OPENING.sub("", text))]
    return " ".join(word for word in words if word not in _ARTICLES)


def _is_repetitive(words: list[str], config: QualityConfig) -> bool:
    words = [word.lower() for word in words]
    run = longest = 1
    for word, following in pairwise(words):
        run = run + 1 if word == following else 1
        longest = max(longest, run)
    ngrams = list(zip(*(words[start:] for start in range(_NGRAM)), strict=False))
    repeats = len(ngrams) >= _MIN_NGRAMS and len(set(ngrams)) < config.min_distinct * len(ngrams)
    return repeats or longest > config.max_run


def _script_share(text: str, script: str) -> float:
    letters = [char for char in text if char.isalpha()]
    if not letters:
        return 1.0  # numbers are of every script
    return sum(unicodedata.name(char, "").startswith(script) for char in letters) / len(letters)
