"""The engine that is a T5, decoded here: texts of like length in batches, all candidates of a text at once.

A prompt is tokenised as the card of LaViLa's model does it: the whole line, in which `</s>` is the token, and then the
tokenizer's own `</s>` behind it. So the default prompt ends in two of them; one without ` </s>` ends in one.
"""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mama_ray.captioning.engines.generation import EngineConfig
from mama_ray.captioning.engines.protocol import GeneratedText
from mama_ray.captioning.rephrasing.beams import Hypothesis, diverse_beams
from mama_ray.captioning.rephrasing.model_folder import load_tokenizer, require_end
from mama_ray.captioning.rephrasing.prompting import PlainWords, put_in, too_long
from mama_ray.captioning.rephrasing.sampling import sampled
from mama_ray.captioning.rephrasing.seq2seq import CachedDecoder
from mama_ray.captioning.rephrasing.settings import DecodingConfig
from mama_ray.errors import UserError
from mama_ray.models.weight_files import INDEX_NAME, WEIGHTS_NAME, name_some, read_state


class T5Engine:
    """A `RephrasingEngine` (engine.py).

    Args:
        folder: of a T5 in Hugging Face's layout.
        prompt: with the mark of the caption in it.
        decoding: how candidates are found.
        config: of which `dtype` and `max_num_seqs` count, the sequences that are decoded at a time.
        use_gpu: on the first GPU that this process sees.
    """

    def __init__(
        self, folder: Path, prompt: str, decoding: DecodingConfig, config: EngineConfig, *, use_gpu: bool = False
    ) -> None:
        self._prompt, self._decoding = prompt, decoding
        self._tokenizer = load_tokenizer(folder)
        require_end(self._tokenizer, folder)
        self._plain = PlainWords(self._tokenizer)
        self._device = torch.device("cuda" if use_gpu else "cpu")
        self._model = load_t5(folder, "float32" if config.dtype == "auto" and not use_gpu else config.dtype)
        self._model.to(self._device)
        self._texts_at_once = max(1, config.max_num_seqs // decoding.num_candidates)
        self._start_id, self._eos_ids = _ends_of(self._model.config, self._tokenizer)
        self._one_at_a_time = threading.Lock()
        self.busy_s = self.idle_s = 0.0
        self.num_tokens = 0
        self._acted_s = time.monotonic()
        self._decoder: CachedDecoder | None = None
        self._free_since_s = time.perf_counter()

    def rephrase(self, texts: Sequence[str], seeds: Sequence[int]) -> list[list[GeneratedText] | str]:
        """Return candidates of each text, or the reason why there are none."""
        self._acted_s = time.monotonic()
        answers: list[list[GeneratedText] | str] = [[]] * len(texts)
        token_ids = self.token_ids(texts)
        limit = self._decoding.max_length
        for place, own in enumerate(token_ids):
            if len(own) > limit:
                answers[place] = too_long(len(own), limit)
        # Of like length, so that little is padding; the order is that of the texts alone.
        places = sorted(
            (place for place, own in enumerate(token_ids) if len(own) <= limit), key=lambda at: len(token_ids[at])
        )
        with self._one_at_a_time:
            began = time.perf_counter()
            self.idle_s += began - self._free_since_s
            for start in range(0, len(places), self._texts_at_once):
                batch = places[start : start + self._texts_at_once]
                found = self._decode([token_ids[place] for place in batch], [seeds[place] for place in batch])
                for place, own in zip(batch, found, strict=True):
                    answers[place] = [self._told(one) for one in own]
                    self.num_tokens += sum(len(one.token_ids) for one in own)
            self._free_since_s = time.perf_counter()
            self.busy_s += self._free_since_s - began
        return answers

    @property
    def last_step_s(self) -> float:
        """When it last did something, by `time.monotonic()`."""
        decoder = self._decoder
        return self._acted_s if decoder is None else max(self._acted_s, decoder.last_step_s)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of the prompts of texts."""
        if not texts:
            return []
        return self._tokenizer([put_in(self._prompt, self._plain(text)) for text in texts]).input_ids

    def _decode(self, token_ids: list[list[int]], seeds: list[int]) -> list[list[Hypothesis]]:
        width = max(map(len, token_ids))
        padded = torch.zeros(len(token_ids), width, dtype=torch.long)
        mask = torch.zeros_like(padded)
        for row, own in enumerate(token_ids):
            padded[row, : len(own)], mask[row, : len(own)] = torch.tensor(own), 1
        ends = {"start_id": self._start_id, "eos_ids": self._eos_ids, "decoding": self._decoding}
        with torch.no_grad():
            inputs = (padded.to(self._device), mask.to(self._device))
            self._decoder = CachedDecoder(self._model, *inputs, self._decoding.num_candidates)
            if self._decoding.method == "beams":
                found = diverse_beams(self._decoder, **ends)
            else:
                found = sampled(self._decoder, seeds, **ends)
        self._acted_s, self._decoder = time.monotonic(), None  # with its cache
        return found

    def _told(self, one: Hypothesis) -> GeneratedText:
        text = self._tokenizer.decode(one.token_ids, skip_special_tokens=True)
        reason = "stop" if one.is_whole else "length"
        return GeneratedText(text, len(one.token_ids), reason, one.logprob / len(one.token_ids))


def load_t5(folder: Path, dtype: str = "float32") -> Any:
    """Load a T5 from a folder, in evaluation mode; UserError for weights that do not fit its config."""
    import transformers
    from transformers.utils import logging as transformers_logging

    # It tells in a table what is told below in a line.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model_class = getattr(transformers, config.architectures[0])
        is_old = not any((folder / name).is_file() for name in (WEIGHTS_NAME, INDEX_NAME))
        # What an older folder has is read as tensors alone, by our reader.
        state = {"pretrained_model_name_or_path": None, "state_dict": read_state(folder)} if is_old else {}
        options = {"pretrained_model_name_or_path": folder, "local_files_only": True} | state
        model, report = model_class.from_pretrained(**options, config=config, dtype=dtype, output_loading_info=True)
    except UserError:
        raise
    # Whatever a damaged file makes of it: safetensors, torch and transformers each have classes of their own.
    except Exception as error:
        raise UserError("the rephraser's weights cannot be loaded", got=f"{folder} ({error})") from error
    mismatched = [str(entry[0]) for entry in report["mismatched_keys"]]
    faults = {"missing": sorted(report["missing_keys"]), "of another shape": sorted(mismatched)}
    if text := "; ".join(f"{kind}: {name_some(names)}" for kind, names in faults.items() if names):
        raise UserError(f"weights of {folder} do not fit its config.json ({text})")
    return model.eval()


def _ends_of(config: Any, tokenizer: Any) -> tuple[int, tuple[int, ...]]:
    """Return the token that an answer starts from, and those that end one."""
    named = (getattr(config, name, None) for name in ("decoder_start_token_id", "pad_token_id"))
    start_id = next((token_id for token_id in (*named, tokenizer.pad_token_id) if token_id is not None), None)
    if start_id is None:
        raise UserError("the model's config names no token that an answer starts from", wanted="decoder_start_token_id")
    own = getattr(config, "eos_token_id", None)
    own = own if isinstance(own, (list, tuple)) else [own]
    eos_ids = {tokenizer.eos_token_id, *(token_id for token_id in own if isinstance(token_id, int))}
    return int(start_id), tuple(sorted(eos_ids))
