"""Words and scripts: what has blanks is cut at them, what has none into characters, and marks stay on their letters."""

import pytest
from pydantic import ValidationError

from mama_ray.captioning.quality import QualityConfig, caption_flags
from mama_ray.captioning.words import num_words, script_share, word_list


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Two people can't open it.", ["Two", "people", "can't", "open", "it"]),
        ("the café’s door — naïve", ["the", "café’s", "door", "naïve"]),
        ("cafe\u0301s", ["cafe\u0301s"]),
        ("一只狗跑。", list("一只狗跑")),
        ("2只dog跑", ["2", "只", "dog", "跑"]),
        ("時々コーヒー", list("時々コーヒー")),
        ("लड़का दौड़ रहा है", ["लड़का", "दौड़", "रहा", "है"]),
        ("می\u200cرود سگ", ["می\u200cرود", "سگ"]),
        ("강아지가 달린다", ["강아지가", "달린다"]),
        ("สุนัข", ["สุ", "นั", "ข"]),
        (" ... 。\u0301", []),
    ],
)
def test_words_are_those_of_their_script(text, words):
    assert word_list(text) == words


def test_two_characters_without_blanks_are_about_one_word():
    assert num_words(word_list("一只狗在跑")) == 2.5
    assert num_words(word_list("a dog runs")) == 3


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("LATIN", "naïve café"),
        ("CYRILLIC", "собака бежит"),
        ("CJK", "一只狗"),
        ("CJK", "コーヒーを淹れる時々"),
        ("JAPANESE", "コーヒーを淹れる"),
        ("CHINESE", "一只狗"),
        ("KOREAN", "강아지가 달린다"),
        ("DEVANAGARI", "लड़का दौड़ रहा है"),
        ("THAI", "สุนัขวิ่งบนหญ้า"),
        ("ARABIC", "كلب يجري على العشب"),
        ("CJK", "12345"),
    ],
)
def test_a_text_is_of_its_script(script, text):
    assert script_share(text, script) == 1.0
    assert "wrong_script" not in caption_flags(text, QualityConfig(script=script))
    assert "boilerplate" not in caption_flags(text, QualityConfig(script=script)) or text == "12345"


def test_a_text_of_another_script_is_not():
    assert script_share("コーヒー", "CHINESE") == 0.0
    assert script_share("dog 狗", "LATIN") == 0.75


def test_a_script_that_is_none_is_refused_with_examples():
    with pytest.raises(ValidationError, match=r"no such script in Unicode: MANDARIN; for example CJK, .*CYRILLIC"):
        QualityConfig(script="MANDARIN")
