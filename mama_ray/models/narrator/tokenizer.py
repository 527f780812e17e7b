"""The tokenizer of a gated narrator, GPT-2's, as files of transformers' fast tokenizers.

transformers is imported inside the functions: it takes seconds.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mama_ray.data.byte_level_bpe import train_byte_level_bpe
from mama_ray.errors import UserError
from mama_ray.models.narrator.config import GatedNarratorConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"  # begins and ends a text, in GPT-2
_MAX_BYTES = 64 << 20  # GPT-2's tokenizer.json has 1.3 MB


def load_gpt2_tokenizer(folder: str | Path) -> "PreTrainedTokenizerFast":
    """Load tokenizer.json, or vocab.json with merges.txt; UserError where there is none, or none that ends a text."""
    from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

    folder = Path(folder)
    names = ["tokenizer.json"] if (folder / "tokenizer.json").is_file() else ["vocab.json", "merges.txt"]
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise UserError(
            "the narrator's tokenizer is missing", got=f"no {' and no '.join(absent)} in {folder}",
            wanted="tokenizer.json, or vocab.json and merges.txt", remedy="copy those of the GPT-2 it was started from",
        )  # fmt: skip
    for name in (*names, "tokenizer_config.json"):
        if (folder / name).is_file() and (folder / name).stat().st_size > _MAX_BYTES:
            raise UserError("a file of the tokenizer is too large", got=folder / name, wanted=f"{_MAX_BYTES} bytes")
    kind = PreTrainedTokenizerFast if len(names) == 1 else GPT2Tokenizer
    try:
        tokenizer = kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        known = tokenizer.get_vocab()
    except Exception as error:  # a damaged file raises what its reader raises
        raise UserError("the narrator's tokenizer cannot be loaded", got=f"{folder} ({error})") from error
    if tokenizer.eos_token_id is None and END_OF_TEXT in known:
        tokenizer.eos_token = END_OF_TEXT
    if tokenizer.eos_token_id is None:
        raise UserError(
            "the tokenizer has no token that ends a text", got=f"no eos_token in {folder}",
            wanted=f"eos_token in tokenizer_config.json, GPT-2's is {END_OF_TEXT}",
        )  # fmt: skip
    if tokenizer.bos_token_id is None:
        tokenizer.bos_token = tokenizer.eos_token
    return tokenizer


def require_fit(tokenizer: "PreTrainedTokenizerFast", config: GatedNarratorConfig, folder: str | Path) -> None:
    """Raise UserError where a tokenizer is not the one that a model's tokens are of."""
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    largest = max(tokenizer.get_vocab().values())
    if largest >= config.language.vocab_size or ends != (config.bos_id, config.eos_id):
        raise UserError(
            f"the tokenizer in {folder} is not that of the model",
            got=f"ids to {largest}, texts between {ends[0]} and {ends[1]}",
            wanted=f"ids below {config.language.vocab_size}, texts between {config.bos_id} and {config.eos_id}",
            remedy="copy the tokenizer of the GPT-2 that the narrator was started from",
        )


def train_gpt2_tokenizer(captions: Iterable[str], *, vocab_size: int) -> "PreTrainedTokenizerFast":
    """Learn a byte-level BPE from captions; <|endoftext|> has id 0."""
    from transformers import PreTrainedTokenizerFast

    backend = train_byte_level_bpe(captions, [END_OF_TEXT], vocab_size=vocab_size)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )
