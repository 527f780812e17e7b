"""The words of a caption in any script: what stands between blanks, or single characters where a script has none."""

import re
import sys
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

_ASCII_WORD = re.compile(r"\w+(?:'\w+)*", re.ASCII)
_APOSTROPHES = "'\u2019"
_JOINERS = "\u200c\u200d"  # inside words of Persian and of Indic scripts
# Han with its iteration marks, Hiragana, Katakana (half width as well), Thai, Lao, Myanmar, Khmer.
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029),
    (0x3031, 0x3035), (0x303B, 0x303C), (0x3041, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x323AF),
)  # fmt: skip
# Names of several scripts that one language is written in; others are what Unicode's names of characters begin with.
SCRIPT_FAMILIES: dict[str, tuple[str, ...]] = {
    "CJK": ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "HANGUL", "BOPOMOFO"),
    "JAPANESE": ("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "CJK", "IDEOGRAPHIC"),
    "KOREAN": ("HANGUL", "CJK"),
    "CHINESE": ("CJK", "IDEOGRAPHIC", "BOPOMOFO"),
    "LATIN": ("LATIN", "FULLWIDTH LATIN"),
}


def word_list(text: str) -> list[str]:
    """Return the words of a caption; of scripts without blanks (Han, kana, Thai, ...) each character is one."""
    if text.isascii():
        return _ASCII_WORD.findall(text)
    words: list[str] = []
    is_open = False
    for place, char in enumerate(text):
        kind = unicodedata.category(char)[0]
        if is_unspaced(char) and kind in "LN":
            words.append(char)
            is_open = False
        elif kind == "M" or char in _JOINERS:
            if words and _touches(text, place):  # a vowel sign or an accent is a part of what it stands on
                words[-1] += char
        elif kind in "LN" or char == "_":
            if is_open:
                words[-1] += char
            else:
                words.append(char)
            is_open = True
        elif not (is_open and char in _APOSTROPHES and _is_letter(text[place + 1 : place + 2])):
            is_open = False
        else:
            words[-1] += char
    return words


def num_words(words: Sequence[str]) -> float:
    """Return how long a caption of these words is: two characters of a script without blanks are about one word."""
    return sum(0.5 if is_unspaced(word[0]) else 1.0 for word in words)


def is_unspaced(char: str) -> bool:
    """Tell whether a character is of a script that is written without blanks between words."""
    code = ord(char)
    return code >= _UNSPACED[0][0] and any(first <= code <= last for first, last in _UNSPACED)


def script_share(text: str, script: str) -> float:
    """Return the share of the letters that are of a script, of 1.0 where there is no letter."""
    letters = [char for char in text if char.isalpha()]
    if not letters:
        return 1.0  # numbers are of every script
    return sum(_is_of(char, script) for char in letters) / len(letters)


@lru_cache(maxsize=64)
def is_script(script: str) -> bool:
    """Tell whether there are letters of a script of this name."""
    if script in SCRIPT_FAMILIES:
        return True
    return any(unicodedata.name(chr(code), "").startswith(f"{script} ") for code in range(sys.maxunicode + 1))


@lru_cache(maxsize=1 << 14)
def _is_of(char: str, script: str) -> bool:
    names = SCRIPT_FAMILIES.get(script, (script,))
    return unicodedata.name(char, "").startswith(names)


def _touches(text: str, place: int) -> bool:
    before = text[place - 1 : place]
    return bool(before) and (before in _JOINERS or unicodedata.category(before)[0] in "LNM")


def _is_letter(char: str) -> bool:
    return bool(char) and unicodedata.category(char)[0] in "LN"
