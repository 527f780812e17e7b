"""The quality gate: what is wrong with a generated caption, as flags. It drops nothing: training chooses by flag."""

import re
from itertools import pairwise
from typing import Literal, get_args

from pydantic import Field, field_validator

from mama_ray.captioning.phrases.grid import talks_of_grid
from mama_ray.captioning.phrases.markup import has_markup, says_nothing
from mama_ray.captioning.phrases.refusal import is_refusal
from mama_ray.captioning.words import SCRIPT_FAMILIES, is_script, is_unspaced, num_words, script_share, word_list
from mama_ray.config import Config

Flag = Literal[
    "empty", "cut_off", "too_long", "repetitive", "refusal", "boilerplate", "grid", "markup", "wrong_script",
    "duplicate", "dissimilar",
]  # fmt: skip
FLAGS: tuple[Flag, ...] = get_args(Flag)
"""empty: nothing is said ("N/A"); refusal: the writer cannot or may not tell; boilerplate: an opening with nothing
behind it; grid: about the grid of frames that the captioner saw; markup: special tokens, tags, JSON, list marks."""
FLAGS_OF_VERSION_1: tuple[Flag, ...] = tuple(flag for flag in FLAGS if flag not in ("grid", "markup"))

_ARTICLES = {"a", "an", "the"}
# Openings that every captioner has; what follows them is the caption.
_STOCK_OPENING = re.compile(
    r"^\W*(?:(?:this\s+is\s+|in\s+)?(?:the|this|a)\s+(?:video|clip|footage|scene|sequence|series\s+of\s+(?:images|frames))"
    r"(?:\s+(?:shows?|captures?|depicts?|features?|displays?|is\s+about|we\s+see))?\b"
    r"|(?:在|从)?(?:这|这个|这段|该|此|本|這個|這段)?(?:段|个)?(?:视频|視頻|影片|画面|畫面|短片|片段"
    r"|镜头)(?:片段)?(?:中|里|裡|内)?"
    r"(?:主要)?(?:显示|顯示|展示|展現|展现|呈现|呈現|描述|记录|記錄|拍摄|讲述|介绍)?(?:了|的是|着)?"
    r"|(?:この|その)?(?:動画|ビデオ|映像|クリップ)(?:に|で)?(?:は|では)(?:[、,])?)\W*",
    re.IGNORECASE,
)
_ANSWERING = re.compile(
    r"^\W*(?:sure|certainly|of\s+course|absolutely|okay|ok)\s*[,!.:]|^\W*here(?:\s+is|\s+are|(?:'|\u2019)s)"
    r"\s+(?:an?|the|your|my)\s+(?:[\w-]+\s+){0,3}(?:caption|description|summary|sentence|paragraph)\b"
    r"|\b(?:let\s+me\s+know\s+if|i\s+hope\s+(?:this|that|it)\s+helps|feel\s+free\s+to\s+ask)\b"
    r"|^\W*describe\s+(?:what|the|this|in)\b|^\W*what\s+(?:is|are|does|do)\b[^.]*\bin\s+(?:the|this)\s+(?:video|clip|scene)\s*\?",
    re.IGNORECASE,
)
_NGRAM = 3
_MIN_NGRAMS = 6  # below this a repetition proves nothing


class QualityConfig(Config):
    """Where the gate draws its lines."""

    max_words: int = Field(40, ge=1)
    """Words above which a caption is too long (the release's limit is 40 word pieces); in scripts without blanks, such
    as Chinese, Japanese and Thai, two characters count as one."""

    min_words: int = Field(2, ge=1)
    """Words after a stock opening ("the video shows") below which a caption is boilerplate; in scripts without blanks
    each character counts."""

    min_distinct: float = Field(0.5, ge=0.0, le=1.0)
    """Share of distinct word triples below which a caption is repetitive."""

    max_run: int = Field(3, ge=1)
    """Times in a row that one word may stand, and half as often as one character of a script without blanks."""

    script: str = Field("LATIN", pattern=r"^[A-Z]+$")
    """Unicode's name of the script that captions are to be in, e.g. LATIN, CYRILLIC, ARABIC; CJK is all of Chinese,
    Japanese and Korean, CHINESE, JAPANESE and KOREAN what the language is written in."""

    min_script_share: float = Field(0.8, ge=0.0, le=1.0)
    """Share of the letters that must be of that script."""

    max_copies: int = Field(20, ge=1)
    """Clips that may share a caption, case, articles and stock opening aside."""

    min_similarity: float = Field(0.0, ge=-1.0, le=1.0)
    """Cosine of video and caption below which they are dissimilar, where a dual encoder was given."""

    @property
    def asks_for_similarity(self) -> bool:
        """Whether a line was drawn that a dual encoder alone can tell captions by."""
        return self.min_similarity != type(self).model_fields["min_similarity"].default

    @field_validator("script")
    @classmethod
    def _is_a_script(cls, script: str) -> str:
        if not is_script(script):
            raise ValueError(f"no such script in Unicode: {script}; for example {', '.join(SCRIPT_FAMILIES)}, CYRILLIC")
        return script


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
    words = word_list(text)
    if not words:
        return ("empty",)
    found = {
        "empty": says_nothing(text),
        "cut_off": finish_reason == "length",
        "too_long": num_words(words) > config.max_words,
        "repetitive": _is_repetitive(words, config),
        "refusal": is_refusal(text),
        "boilerplate": bool(_ANSWERING.search(text)) or _num_left(text, words) < config.min_words,
        "grid": talks_of_grid(text),
        "markup": has_markup(text),
        "wrong_script": script_share(text, config.script) < config.min_script_share,
        "duplicate": num_copies > config.max_copies,
        "dissimilar": similarity is not None and similarity < config.min_similarity,
    }
    return tuple(flag for flag in FLAGS if found.get(flag))


def caption_key(text: str) -> str:
    """Return what near-duplicates share: the words after a stock opening, in lower case, without articles."""
    words = [word.lower() for word in word_list(_STOCK_OPENING.sub("", text))]
    return " ".join(word for word in words if word not in _ARTICLES)


def _is_repetitive(words: list[str], config: QualityConfig) -> bool:
    words = [word.lower() for word in words]
    run, too_often = 1, False
    for word, following in pairwise(words):
        run = run + 1 if word == following else 1
        # Languages that are written in single characters double them as a matter of course.
        too_often |= run > config.max_run * (2 if is_unspaced(word[0]) else 1)
    ngrams = list(zip(*(words[start:] for start in range(_NGRAM)), strict=False))
    repeats = len(ngrams) >= _MIN_NGRAMS and len(set(ngrams)) < config.min_distinct * len(ngrams)
    return repeats or too_often


def _num_left(text: str, words: list[str]) -> int:
    """Return the number of words after a stock opening."""
    return len(word_list(_STOCK_OPENING.sub("", text))) if _STOCK_OPENING.match(text) else len(words)
