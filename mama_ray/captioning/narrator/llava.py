"""The kind of narrator that is a LLaVA-1.5, or the small model of its architecture: shown a grid, asked a prompt."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer
from torch import Tensor

from mama_ray.captioning.engines.captioner import picture_side
from mama_ray.captioning.narrator.folder import Narrator, convert_narrator, load_narrator, load_processor, save_narrator
from mama_ray.captioning.narrator.kind import Files, NarratorFacts, NarratorSettings
from mama_ray.captioning.narrator.loss import CaptionLabels, CaptionLoss, choose_trained_parts
from mama_ray.captioning.narrator.preset import build_tiny_model, build_tiny_processor
from mama_ray.captioning.narrator.samples import GridShow
from mama_ray.captioning.narrator.settings import NarratorInput, NarratorModelConfig
from mama_ray.captioning.narrator.tokenizer_files import files_of, unpacked
from mama_ray.captioning.prompts import render_prompt
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.errors import UserError

NAME = "llava"
UNUSED = ("model.gated", "frames")


@dataclass(frozen=True)
class TaughtLlava:
    """A LLaVA in training."""

    narrator: Narrator

    @property
    def model(self) -> Any:
        """Its weights."""
        return self.narrator.model

    def choose_trained_parts(self, model: NarratorModelConfig) -> None:
        """Let gradients flow to the parts that the settings name."""
        choose_trained_parts(self.model, model.trains)

    def shrink_frozen_parts(self) -> None:
        """Keep what does not train in bfloat16."""
        for parameter in self.model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16()

    def recompute_activations(self) -> None:
        """Trade time for memory in the backward pass."""
        self.model.gradient_checkpointing_enable({"use_reentrant": False})

    def build_loss(self, facts: NarratorFacts, model: NarratorModelConfig, *, max_caption_tokens: int) -> CaptionLoss:
        """Return the loss; UserError where prompt and caption are too long together."""
        loss = CaptionLoss(self.model, self.narrator.processor, facts.prompt)
        longest = self.model.config.text_config.max_position_embeddings
        if len(loss.prompt_ids) + max_caption_tokens > longest:
            raise UserError(
                "prompt and caption are longer than the model's context",
                got=f"{len(loss.prompt_ids)} + {max_caption_tokens} tokens",
                wanted=f"at most {longest}",
                remedy="lower data.max_caption_tokens",
            )
        return loss

    def save(self, directory: Path, narrator_input: NarratorInput, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write the folder that transformers and vLLM load."""
        narrator = self.narrator
        if weights is not None:
            captured: Any = _CapturedModel(self.model, weights)  # all of a model that is asked for in writing
            narrator = dataclasses.replace(narrator, model=captured)
        save_narrator(narrator, directory, narrator_input)


class _CapturedModel:
    """A model's weights of some moment, in the form that `save_narrator` asks for."""

    def __init__(self, model: Any, weights: Mapping[str, Tensor]) -> None:
        self._model, self._weights = model, weights

    def save_pretrained(self, directory: str) -> None:
        """Write what the model's own `save_pretrained` would have written then."""
        self._model.save_pretrained(directory, state_dict=dict(self._weights))


def describe(
    source: Path | None, settings: NarratorSettings, texts: Callable[[], Iterable[str]]
) -> tuple[Files, NarratorFacts]:
    """Return the processor's files and what it says of the model; None trains a small tokenizer."""
    if source is None:
        vocab_size = settings.model.vocab_size
        processor = build_tiny_processor(texts(), settings.prompt.text, vocab_size=vocab_size)
    else:
        processor = load_processor(source)
    with tempfile.TemporaryDirectory(prefix="mama_ray-processor-") as scratch:
        processor.save_pretrained(scratch)
        files = files_of(Path(scratch))
    prompt = render_prompt(settings.prompt, processor)
    return files, NarratorFacts(NAME, prompt, picture_side(processor), 0, processor.tokenizer.eos_token_id)


def labels(facts: NarratorFacts, files: Files, *, max_tokens: int) -> CaptionLabels:
    """Return what makes labels, without transformers, which a decode task would spend seconds on."""
    tokenizer = Tokenizer.from_buffer(files["tokenizer.json"])
    return CaptionLabels(tokenizer, facts.prompt, end_id=facts.end_id, max_tokens=max_tokens)


def show(facts: NarratorFacts, settings: NarratorSettings, decode: DecodeConfig) -> GridShow:
    """Return what makes grids."""
    return GridShow(settings.grid, facts.side, decode)


def start(facts: NarratorFacts, files: Files, settings: NarratorSettings) -> TaughtLlava:
    """Make the untrained small model."""
    with unpacked(files) as directory:
        processor = load_processor(directory)
    return TaughtLlava(Narrator(build_tiny_model(processor), processor))


def load(directory: Path) -> TaughtLlava:
    """Load a folder in LLaVA-1.5's layout."""
    return TaughtLlava(load_narrator(directory))


def convert(source: Path, target: Path, dtype: Literal["float32", "bfloat16"]) -> None:
    """Write a folder again with weights of another type."""
    convert_narrator(source, target, dtype)
