"""Tokenizers of transformers' dual encoders: its own ids, without it once they are saved with a model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.tokenizer_match import (
    TextLayout,
    count_captions,
    refuse_other_tokenizer,
    refuse_other_vocabulary,
    tokenizer_beside,
)
from mama_ray.errors import UserError

CONTEXT = 12
TEXTS = [
    "a cat jumps over the dog",
    "A Cat, jumps!  over...the dog's (tail)",
    "",
    "the dog the dog the dog the dog the dog the dog the dog the dog",
    "naïve café 42",
]
CORPUS = ["a cat jumps over the dog", "the dog jumps", "the cat's tail", "a dog over a cat", "42 naive cafes"] * 20
TEXT_CONFIG = {"text_config": {"max_position_embeddings": CONTEXT}}


def _bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Gemma's kind: words joined by a mark in place of spaces, all bytes as a last resort."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = sorted({letter for text in CORPUS for letter in text.lower().replace(" ", "▁")} | set("ABCDEFT"))
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("d", "o"), ("do", "g"), ("▁", "dog"), ("c", "a"), ("ca", "t")]
    pieces = specials + [f"<0x{number:02X}>" for number in range(256)] + letters
    pieces += ["".join(pair) for pair in merges]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}, merges


def write_siglip2(folder: Path) -> None:
    from transformers import Siglip2Tokenizer

    vocab, merges = _bpe()
    settings = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right"}  # as the published ones
    Siglip2Tokenizer(vocab, merges, **settings).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip2"} | TEXT_CONFIG))


def write_siglip(folder: Path) -> None:
    spm = pytest.importorskip("sentencepiece")
    (folder / "corpus.txt").write_text("\n".join(CORPUS))
    spm.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"), model_prefix=str(folder / "spiece"), vocab_size=60, model_type="unigram",
        pad_id=-1, bos_id=-1, eos_id=1, unk_id=0, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    settings = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip"} | TEXT_CONFIG))


def write_videoprism(folder: Path) -> None:
    from transformers import VideoPrismTokenizer

    words = sorted({f"▁{word}" for text in CORPUS for word in text.split()} | {"▁", *"abcdefghijklmnopqrstuvwxyz'42"})
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), *((word, -3.0) for word in words)]
    VideoPrismTokenizer(vocab).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "videoprism"} | TEXT_CONFIG))


WRITERS = {"siglip2": write_siglip2, "siglip": write_siglip, "videoprism": write_videoprism}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {kind: tmp_path_factory.mktemp(kind) for kind in WRITERS}
    for kind, write in WRITERS.items():
        write(made[kind])
    return made


@pytest.fixture(params=sorted(WRITERS))
def folder(request, folders) -> Path:
    return folders[request.param]


def theirs(folder: Path) -> np.ndarray:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return np.array(tokenizer(TEXTS, padding="max_length", truncation=True, max_length=CONTEXT)["input_ids"])


def test_ids_equal_transformers_own_and_the_context_is_the_models(folder):
    tokenizer = Tokenizer.from_directory(folder)
    assert tokenizer.context_length == CONTEXT
    assert not tokenizer.is_clip and tokenizer.start_id is None
    np.testing.assert_array_equal(tokenizer(TEXTS), theirs(folder))


def test_long_texts_keep_their_end_and_are_counted(folder):
    tokenizer = Tokenizer.from_directory(folder)
    ids = tokenizer(TEXTS)
    assert ids.shape == (len(TEXTS), CONTEXT) and ids.max() < tokenizer.vocab_size
    has_end = not folder.name.startswith("videoprism")
    assert (ids[3, -1] == 1) == has_end  # the id of SigLIP's two
    assert count_captions(tokenizer, TEXTS).num_cut >= 1
    assert tokenizer.decode(tokenizer(["the dog"])[0]) == "the dog"


def test_saved_tokenizer_gives_the_same_ids_and_transformers_loads_it(folder, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = Tokenizer.from_directory(folder)
    tokenizer.save(tmp_path)
    again = Tokenizer.from_directory(tmp_path)
    np.testing.assert_array_equal(again(TEXTS), tokenizer(TEXTS))
    assert (again.vocab_size, again.context_length, again.pad_id) == (
        tokenizer.vocab_size,
        tokenizer.context_length,
        tokenizer.pad_id,
    )
    assert again.count_other_pieces(tokenizer) == 0
    if (folder / "spiece.model").exists():
        return  # transformers reads this one from SentencePiece's own file only
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    found = AutoTokenizer.from_pretrained(tmp_path)(TEXTS, padding="max_length", truncation=True, max_length=CONTEXT)
    np.testing.assert_array_equal(np.array(found["input_ids"]), tokenizer(TEXTS))


def test_reading_a_saved_tokenizer_imports_no_transformers(folders, tmp_path):
    Tokenizer.from_directory(folders["siglip2"]).save(tmp_path)
    code = (
        "import sys; from mama_ray.data.tokenizer import Tokenizer\n"
        f"Tokenizer.from_directory({str(tmp_path)!r})(['a']); sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_of_special_tokens_in_a_text_are_letters(folders):
    tokenizer = Tokenizer.from_directory(folders["siglip2"])
    assert 2 not in tokenizer(["a <bos> cat"])[0]
    prism = Tokenizer.from_directory(folders["videoprism"])
    assert prism(["a <extra_id_0> cat"]).max() < prism.vocab_size


def test_a_tokenizer_with_code_of_its_own_is_refused(folders, tmp_path):
    settings = json.loads((folders["siglip2"] / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(settings | {"auto_map": {"AutoTokenizer": ["x.Y", None]}})
    )
    with pytest.raises(UserError, match="wants to run code that comes with it"):
        Tokenizer.from_directory(tmp_path)


def test_texts_that_are_filled_up_in_front_are_refused(folders, tmp_path):
    settings = json.loads((folders["siglip2"] / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": "left"}))
    with pytest.raises(UserError, match="fills texts up in front"):
        Tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize("frame", [{}, {"prefix": ["x"], "suffix": [], "pad_id": 0, "unknown_id": None}, []])
def test_a_damaged_frame_is_one_error(folders, tmp_path, frame):
    Tokenizer.from_directory(folders["siglip2"]).save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"token_frame": frame}))
    with pytest.raises(UserError, match="tokenizer files cannot be read"):
        Tokenizer.from_directory(tmp_path)


def test_a_table_with_more_rows_than_ids_fits_and_one_with_fewer_does_not(folders):
    tokenizer = Tokenizer.from_directory(folders["siglip2"])
    beside = tokenizer_beside(folders["siglip2"])
    refuse_other_vocabulary(tokenizer, tokenizer.vocab_size + 64, model="a model")
    layout = TextLayout(tokenizer.vocab_size + 64, CONTEXT, beside)
    refuse_other_tokenizer(tokenizer, layout, name="ours", model="theirs")
    with pytest.raises(UserError, match="that of another model"):
        refuse_other_vocabulary(tokenizer, tokenizer.vocab_size - 1, model="a model")
    other = Tokenizer.from_directory(folders["videoprism"])
    with pytest.raises(UserError, match="not that of the pretrained weights"):
        refuse_other_tokenizer(other, layout, name="ours", model="theirs")
