"""Looking at a rephraser's folder before an engine is started: is it whole, which engine runs it, and has its tokenizer
what is needed?
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mama_ray.captioning.engines.generation import EngineConfig
from mama_ray.captioning.rephrasing.prompting import chat_token_ids, put_in
from mama_ray.captioning.rephrasing.settings import INSTRUCT_PROMPT, T5_PROMPT, TEXT_MARK, DecodingConfig
from mama_ray.errors import UserError
from mama_ray.models.weight_files import INDEX_NAME, TORCH_NAME, WEIGHTS_NAME, hash_weights, read_json
from mama_ray.storage.manifest import require_whole_model

T5_ARCHITECTURES = ("T5ForConditionalGeneration", "MT5ForConditionalGeneration", "UMT5ForConditionalGeneration")
T5, VLLM = "t5", "vllm"
# Tokens of an instruct model's prompt and answer: whole contexts would want gigabytes of keys and values.
_LONGEST = 2048
_OF_A_T5 = ("dtype", "max_num_seqs")
_WANTED = f"{' or '.join(T5_ARCHITECTURES)}, or an instruct model whose architecture ends in ForCausalLM"


@dataclass(frozen=True)
class Rephraser:
    """A folder that was found to hold a rephraser.

    Attributes:
        architecture: the model's class.
        engine: T5, decoded here, or VLLM.
        prompt: with TEXT_MARK where the caption goes; of an instruct model what its chat template is given.
        num_prompt_tokens: of a prompt without a caption in it.
        context_length: tokens that an instruct model has positions for, None where its config does not say; a T5 has no
            such limit.
        weights_sha256: of its weight files.
        revision: commit of the hub's repository that the folder is of, None for others.
    """

    architecture: str
    engine: str
    prompt: str
    num_prompt_tokens: int
    context_length: int | None
    weights_sha256: str
    revision: str | None = None

    def check_length(self, decoding: DecodingConfig, max_model_len: int | None) -> None:
        """Raise UserError where no caption at all would fit its prompt."""
        if self.engine == T5:
            needed, limit = self.num_prompt_tokens, decoding.max_length
            got, remedy = f"{needed} tokens", "raise decoding.max_length, or shorten the prompt"
        else:
            needed = self.num_prompt_tokens + decoding.max_length
            limit = instruct_length(self.context_length, max_model_len)
            got = f"{self.num_prompt_tokens} + {decoding.max_length} tokens"
            remedy = "lower decoding.max_length, or raise engine.max_model_len as far as the model allows"
        if needed > limit:
            what = "prompt is" if self.engine == T5 else "prompt and answer are"
            raise UserError(f"the rephraser's {what} too long", got=got, wanted=f"at most {limit}", remedy=remedy)


def instruct_length(context_length: int | None, max_model_len: int | None) -> int:
    """Return the tokens of prompt and answer that vLLM is started for."""
    return max_model_len or min(context_length or _LONGEST, _LONGEST)


def inspect_rephraser(
    folder: Path, prompt: str | None, decoding: DecodingConfig, config: EngineConfig | None = None
) -> Rephraser:
    """Check config, weights, tokenizer and prompt of a model folder; without a prompt it is that of the model's kind.
    `config` is that of the engine which is to run it.

    Raises UserError that names what is missing, damaged or of another kind. Weights are hashed, so reading takes the
    time that the disk needs for them.
    """
    if not folder.is_dir():
        raise UserError("no such model folder", got=str(folder), wanted="a folder in Hugging Face's layout")
    require_whole_model(folder)
    described = read_json(folder / "config.json")
    architecture, engine = _kind_of(described, folder)
    config = config or EngineConfig()
    _require_engine(architecture, engine, config)
    if engine == VLLM and decoding.method == "beams":
        raise UserError(
            "an instruct model is sampled from, it has no beams",
            got=f"decoding.method beams with {architecture}",
            wanted="decoding.method sampling",
            remedy="start from configs/rephrase/instruct.yaml",
        )
    prompt = _checked_prompt(prompt or (T5_PROMPT if engine == T5 else INSTRUCT_PROMPT))
    if not any((folder / name).is_file() for name in (WEIGHTS_NAME, INDEX_NAME, TORCH_NAME)):
        raise UserError("weights are missing", got=str(folder), wanted=f"{WEIGHTS_NAME}, {INDEX_NAME} or {TORCH_NAME}")
    tokenizer = load_tokenizer(folder)
    require_end(tokenizer, folder)
    if engine == T5:
        require_small_enough(tokenizer, described, folder)
    elif not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "the model has no chat template",
            got=str(folder),
            wanted="an instruct model, which has one",
            remedy="take the instruct or chat version of the model",
        )
    num_prompt_tokens = _count_prompt_tokens(tokenizer, prompt, engine, folder)
    length = described.get("max_position_embeddings")
    length = length if isinstance(length, int) else None
    found = Rephraser(architecture, engine, prompt, num_prompt_tokens, length, hash_weights(folder))
    found.check_length(decoding, config.max_model_len)
    return found


def load_tokenizer(folder: Path) -> Any:
    """Load a folder's tokenizer; UserError where it is missing or damaged."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # Whatever a damaged tokenizer file makes of it: there is no common class.
    except Exception as error:
        raise UserError("the model's tokenizer cannot be loaded", got=f"{folder} ({error})") from error


def require_end(tokenizer: Any, folder: Path) -> None:
    """Raise UserError for a tokenizer without a token that ends a text: no answer would ever end."""
    token_id = getattr(tokenizer, "eos_token_id", None)
    if token_id is None or token_id == getattr(tokenizer, "unk_token_id", None):
        raise UserError(
            "the model's tokenizer has no token that ends a text",
            got=f"eos_token {getattr(tokenizer, 'eos_token', None)} of {folder}",
            wanted="one, such as </s>",
            remedy="take the tokenizer that the model was trained with",
        )


def require_small_enough(tokenizer: Any, config: dict[str, Any], folder: Path) -> None:
    """Raise UserError for a tokenizer of another model, whose tokens this one has not."""
    largest, vocab_size = max(tokenizer.get_vocab().values()), config.get("vocab_size")
    if not isinstance(vocab_size, int) or largest >= vocab_size:
        raise UserError(
            "the model's tokenizer is that of another model",
            got=f"token {largest} in {folder}",
            wanted=f"tokens below the model's vocab_size {vocab_size}",
        )


def _kind_of(config: dict[str, Any], folder: Path) -> tuple[str, str]:
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else "none"
    if "auto_map" in config:
        raise UserError(
            f"{folder} wants code of its own to be run",
            got="auto_map in its config.json",
            remedy="take a model that transformers itself has",
        )
    if architecture in T5_ARCHITECTURES:
        return architecture, T5
    if architecture.endswith("ForCausalLM") and not config.get("is_encoder_decoder"):
        return architecture, VLLM
    raise UserError("not the folder of a rephraser", got=f"{architecture} in {folder}", wanted=_WANTED)


def _require_engine(architecture: str, engine: str, config: EngineConfig) -> None:
    """Raise UserError where another engine is asked for, and for settings that mean nothing to this one."""
    if config.name not in ("auto", engine):
        wanted = f"--engine {VLLM}, or none: the model's folder says which" if engine == VLLM else "no --engine"
        got = f"--engine {config.name} and a {architecture}"
        raise UserError("the engine does not run this model", got=got, wanted=wanted)
    told = [name for name in config.changed_beside("name") if name not in _OF_A_T5]
    if engine == T5 and told:
        raise UserError(
            "settings of vLLM, which does not run a T5",
            got=", ".join(f"engine.{name}" for name in told),
            wanted=f"{' and '.join(f'engine.{name}' for name in _OF_A_T5)} alone",
            remedy="leave them out",
        )


def _count_prompt_tokens(tokenizer: Any, prompt: str, engine: str, folder: Path) -> int:
    if engine == T5:
        return len(tokenizer([put_in(prompt, "")]).input_ids[0])
    try:
        return len(chat_token_ids(tokenizer, prompt, ""))
    # Templates are programs, which raise what they like.
    except Exception as error:
        raise UserError("the model's chat template cannot be used", got=f"{folder} ({error})") from error


def _checked_prompt(prompt: str) -> str:
    if prompt.count(TEXT_MARK) != 1:
        raise UserError("the prompt does not hold the caption", got=prompt, wanted=f"{TEXT_MARK} exactly once in it")
    return prompt
