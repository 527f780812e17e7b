import json

import numpy as np
import pytest

from mama_ray.data.tokenizer import END, MIN_VOCAB_SIZE, START, Tokenizer
from mama_ray.errors import UserError

CORPUS = [
    "a red circle moves to the left and a blue square stays",
    "the small green triangle rises quickly, then the yellow star falls!",
    "two objects: one large, one small; it's the circle that moves first",
]
HARD_TEXTS = [
    "",
    " ",
    "A Red   CIRCLE\tmoves\nleft",
    "it's, they're, we'll, I'd 've 'M",
    "12 345 cats3dogs",
    "naïve café ÀÉÎ İstanbul ß ﬁ",
    "e\u0301 composed",
    "日本語のテキスト 🎬🎥",
    "under_score-dash...!!! ???  <b>tag</b> & | <|x|>",
    "it’s “quoted” …",
    "\x00\x07 control \u200b zero width \xa0 no-break",
    "supercalifragilisticexpialidocious" * 5,
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CORPUS, vocab_size=600, context_length=16)


@pytest.fixture
def clip_layout(tmp_path, tokenizer):
    """A folder with vocab.json and merges.txt as OpenAI's CLIP has them, made from a small trained tokenizer."""
    tokenizer.save(tmp_path / "trained")
    model = json.loads((tmp_path / "trained/tokenizer.json").read_text())["model"]
    directory = tmp_path / "clip"
    directory.mkdir()
    (directory / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (directory / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    return directory


def test_clip_layout_gives_the_ids_of_transformers(clip_layout):
    from transformers import CLIPTokenizer

    ours = Tokenizer.from_directory(clip_layout)
    theirs = CLIPTokenizer.from_pretrained(str(clip_layout))
    assert ours.context_length == 77
    texts = CORPUS + [text for text in HARD_TEXTS if len(text) < 100]
    expected = theirs(texts, padding="max_length", max_length=77, truncation=True)["input_ids"]
    np.testing.assert_array_equal(ours(texts), np.array(expected))


def test_long_text_is_cut_as_transformers_cuts_it(clip_layout):
    from transformers import CLIPTokenizer

    text = " ".join(CORPUS * 4)
    expected = CLIPTokenizer.from_pretrained(str(clip_layout))(text, max_length=20, truncation=True)["input_ids"]
    np.testing.assert_array_equal(Tokenizer.from_directory(clip_layout, context_length=20)([text])[0], expected)


def test_long_text_keeps_eot(tokenizer):
    token_ids = tokenizer([" ".join(CORPUS * 10)])[0]
    assert token_ids[-1] == tokenizer.eot_id
    assert (token_ids[:-1] < tokenizer.eot_id).all()


def test_lavilas_cut_loses_the_end_token_of_long_texts_alone(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"long_texts": "lavila"}))
    lavila = Tokenizer.from_directory(tmp_path)
    texts = ["a red circle", "", " ".join(CORPUS * 10)]
    ours, theirs = tokenizer(texts), lavila(texts)
    np.testing.assert_array_equal(theirs[:2], ours[:2])
    assert ours[2, -1] == tokenizer.eot_id not in theirs[2]
    np.testing.assert_array_equal(theirs[2], [tokenizer.start_id, *tokenizer.pieces(texts)[2]][:16])
    lavila.save(tmp_path / "again")
    np.testing.assert_array_equal(Tokenizer.from_directory(tmp_path / "again")(texts), theirs)
    # Just as long as the context: nothing is lost.
    exact = Tokenizer.from_directory(tmp_path, context_length=len(tokenizer.pieces(texts)[0]) + 2)
    assert exact(texts)[0, -1] == tokenizer.eot_id


@pytest.mark.parametrize("how", ["lavilla", 3, None])
def test_another_cut_of_long_texts_is_refused(tokenizer, tmp_path, how):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"long_texts": how}))
    with pytest.raises(UserError, match=r"long_texts.*wanted keep_end or lavila"):
        Tokenizer.from_directory(tmp_path)


def test_eot_has_the_largest_id_and_pads(tokenizer):
    token_ids = tokenizer(["a red circle", "a"])
    assert tokenizer.eot_id == tokenizer.vocab_size - 1 == token_ids.max()
    assert token_ids.shape == (2, 16)
    assert token_ids.dtype == np.int64
    first_eot = token_ids.argmax(axis=1)
    for row, position in zip(token_ids, first_eot, strict=True):
        assert row[0] == tokenizer.start_id
        assert (row[position:] == tokenizer.eot_id).all()


def test_saved_tokenizer_gives_the_same_ids_and_context_length(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = Tokenizer.from_directory(tmp_path)
    np.testing.assert_array_equal(again(CORPUS + HARD_TEXTS), tokenizer(CORPUS + HARD_TEXTS))
    assert (again.context_length, again.vocab_size) == (16, tokenizer.vocab_size)


def test_saved_tokenizer_is_read_by_transformers(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path))
    expected = theirs(CORPUS, padding="max_length", max_length=16, truncation=True)["input_ids"]
    np.testing.assert_array_equal(tokenizer(CORPUS), np.array(expected))


def test_training_is_deterministic_and_merges_frequent_words(tokenizer):
    again = Tokenizer.train(iter(CORPUS), vocab_size=600, context_length=16)
    np.testing.assert_array_equal(again(CORPUS), tokenizer(CORPUS))
    num_pieces = int((tokenizer(["circle"])[0] < tokenizer.start_id).sum())
    assert num_pieces < len("circle")


def test_no_text_is_unknown_even_with_the_smallest_vocabulary():
    smallest = Tokenizer.train(CORPUS, vocab_size=MIN_VOCAB_SIZE, context_length=77)
    assert smallest.vocab_size == MIN_VOCAB_SIZE
    for text in HARD_TEXTS[2:-1]:
        token_ids = smallest([text])[0]
        assert (token_ids[1 : token_ids.argmax()] < smallest.start_id).all()
    with pytest.raises(UserError, match="vocab_size"):
        Tokenizer.train(CORPUS, vocab_size=MIN_VOCAB_SIZE - 1, context_length=8)


def test_decoding_gives_back_the_lower_cased_words(tokenizer):
    assert tokenizer.decode(tokenizer(["A Red  circle moves"])[0]) == "a red circle moves"
    assert tokenizer.decode(tokenizer(["日本語 é"])[0]) == "日本語 é"


def test_missing_or_broken_files_are_one_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer in the folder.*merges\.txt"):
        Tokenizer.from_directory(tmp_path)
    (tmp_path / "tokenizer.json").write_text("<html>")
    with pytest.raises(UserError, match="cannot be read"):
        Tokenizer.from_directory(tmp_path)


def test_tokens_behind_eot_are_refused(clip_layout):
    vocab = json.loads((clip_layout / "vocab.json").read_text())
    vocab["extra"] = len(vocab)
    (clip_layout / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(UserError, match="largest token id"):
        Tokenizer.from_directory(clip_layout)


def test_special_tokens_are_required(clip_layout):
    vocab = json.loads((clip_layout / "vocab.json").read_text())
    del vocab[START]
    (clip_layout / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(UserError, match="lacks special tokens"):
        Tokenizer.from_directory(clip_layout)
    assert END in vocab
