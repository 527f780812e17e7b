"""Tokenizers of transformers' folders, BPE and SentencePiece, as one of `tokenizers` with what stands around a text.

transformers reads the folder, so the ids are those it gives; afterwards it is not needed. Nothing of a folder is run.
"""

import string
from pathlib import Path
from typing import Any

from tokenizers import Regex, normalizers
from tokenizers import Tokenizer as Backend

from mama_ray.data.token_frame import TokenFrame
from mama_ray.errors import UserError
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import MAX_RECORD_BYTES, parse_json

CLIP_CLASSES = (None, "CLIPTokenizer", "CLIPTokenizerFast")
_LOWER_CASED = ("siglip", "siglip2")  # SigLIP 2 learned Gemma's pieces of lower-cased texts; not all its folders say so
_GEMMA = "Gemma"
_PROBE = "a"
LONGEST_CONTEXT = 256  # a text encoder for documents would fill every caption up to thousands of tokens


def tokenizer_settings(directory: Path) -> dict[str, Any]:
    """Return the content of tokenizer_config.json, {} where there is none."""
    return _read(directory / "tokenizer_config.json")


def stored_context_length(settings: dict[str, Any]) -> int | None:
    """Return the tokens of a text that a tokenizer_config.json names, None for no limit."""
    length = settings.get("model_max_length")
    # transformers writes 1e30 for "no limit"
    return int(length) if isinstance(length, int | float) and 2 <= length <= 1 << 20 else None


def longest_text(directory: Path) -> int:
    """Return how many tokens the text tower in a tokenizer's folder takes, within what captions have."""
    content = _read(directory / "config.json")
    if content.get("model_type") is None or "auto_map" in content:
        return LONGEST_CONTEXT
    from transformers import CONFIG_MAPPING

    # A field that is not there has its default, which the config's class knows.
    text = getattr(CONFIG_MAPPING[content["model_type"]].from_dict(content), "text_config", None)
    return min(getattr(text, "max_position_embeddings", LONGEST_CONTEXT), LONGEST_CONTEXT)


def load_foreign(directory: Path, settings: dict[str, Any]) -> tuple[Backend, TokenFrame]:
    """Return a folder's tokenizer and what stands around its texts; UserError for one that would run its own code."""
    if "auto_map" in settings:
        raise UserError(
            f"the tokenizer in {directory} wants to run code that comes with it (auto_map), which is never done",
            wanted="a tokenizer whose code is in transformers",
        )
    if settings.get("padding_side", "right") != "right":  # Gemma's class has left where a folder does not say
        raise UserError(
            f"the tokenizer in {directory} fills texts up in front",
            got=f"padding_side {settings['padding_side']}",
            wanted="right, as these models were trained",
        )
    from transformers import AutoTokenizer

    theirs: Any = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    backend = getattr(theirs, "backend_tokenizer", None)
    if backend is None:
        backend = _from_sentencepiece(theirs)
    elif _GEMMA in type(theirs).__name__ and _read(directory / "config.json").get("model_type") in _LOWER_CASED:
        _prepend(backend, normalizers.Lowercase())
    bare = theirs(_PROBE, add_special_tokens=False)["input_ids"]
    whole = theirs(_PROBE)["input_ids"]
    start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    suffix = tuple(whole[start + len(bare) :])
    pad_id = theirs.pad_token_id if theirs.pad_token_id is not None else (suffix or (0,))[-1]
    return backend, TokenFrame(tuple(whole[:start]), suffix, pad_id, theirs.unk_token_id)


def _from_sentencepiece(theirs: Any) -> Backend:
    """Convert SigLIP's, which transformers computes text by text: lower case, no punctuation, single spaces."""
    from transformers.convert_slow_tokenizer import SpmConverter

    backend = SpmConverter(theirs).converted()
    punctuation = "".join("\\" + mark for mark in string.punctuation)
    steps = [normalizers.Replace(Regex(f"[{punctuation}]"), ""), normalizers.Replace(Regex(r"\s+"), " ")]
    _prepend(backend, *steps, normalizers.Strip())
    if getattr(theirs, "do_lower_case", True):
        _prepend(backend, normalizers.Lowercase())
    return backend


def _prepend(backend: Backend, *steps: Any) -> None:
    later = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([*steps, *later])


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = parse_json(Place.of(path).read_bytes(MAX_RECORD_BYTES), path)
    return content if isinstance(content, dict) else {}
