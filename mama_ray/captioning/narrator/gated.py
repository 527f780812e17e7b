"""The kind of narrator that is a gated GPT-2 (LaViLa): shown frames, asked nothing.

It starts from a narrator's folder, or from parts: the video tower of a dual encoder and any GPT-2, each of which may be
left out and is then an untrained one of the preset's size.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mama_ray.captioning.narrator.gated_loss import GatedCaptionLoss, GatedLabels, choose_gated_parts
from mama_ray.captioning.narrator.kind import Files, NarratorFacts, NarratorSettings
from mama_ray.captioning.narrator.samples import FrameShow
from mama_ray.captioning.narrator.settings import NarratorInput, NarratorModelConfig
from mama_ray.captioning.narrator.tokenizer_files import files_of, unpacked
from mama_ray.config import ConfigError, with_overrides
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.models.narrator.config import GatedNarratorConfig
from mama_ray.models.narrator.load import (
    load_gated_narrator,
    load_narrator_tokenizer,
    read_gated_config,
    save_gated_narrator,
    start_gated_narrator,
)
from mama_ray.models.narrator.model import GatedNarrator
from mama_ray.models.narrator.presets import PRESETS
from mama_ray.models.narrator.tokenizer import load_gpt2_tokenizer, train_gpt2_tokenizer
from mama_ray.models.outline import without_memory
from mama_ray.models.pretrained import describe_model, from_pretrained
from mama_ray.models.timesformer.model import Timesformer, TimesformerConfig
from mama_ray.models.transformer import EncoderConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NAME = "gated"
UNUSED = ("model.trains", "prompt", "grid")
_GATES = ("alpha_cattn", "alpha_dense")
_UNREAD_TEXT = EncoderConfig(width=8, num_layers=1, num_heads=1)  # a dual encoder's text tower is not taken
_VIDEO_FIELDS = (
    "video", "image_size", "patch_size", "num_frames", "pixel_mean", "pixel_std", "place_init_std", "interpolation",
)  # fmt: skip


@dataclass(frozen=True)
class TaughtGated:
    """A gated narrator in training."""

    model: GatedNarrator
    tokenizer: "PreTrainedTokenizerFast"

    def choose_trained_parts(self, model: NarratorModelConfig) -> None:
        """Let gradients flow to the parts that the settings name."""
        choose_gated_parts(self.model, model.gated.trains)

    def shrink_frozen_parts(self) -> None:
        """Leave all in float32: the decoder that validates keeps one type for the whole language model."""

    def recompute_activations(self) -> None:
        """Trade time for memory in the backward pass."""
        self.model.set_gradient_checkpointing(True)

    def build_loss(
        self, facts: NarratorFacts, model: NarratorModelConfig, *, max_caption_tokens: int
    ) -> GatedCaptionLoss:
        """Return the loss; UserError where captions do not fit the model's context."""
        longest = self.model.config.context_length - 1
        if max_caption_tokens > longest:
            raise UserError(
                "captions are longer than the narrator's context",
                got=f"{max_caption_tokens} tokens",
                wanted=f"at most {longest}, as one place is that of the token that begins a caption",
                remedy="lower data.max_caption_tokens",
            )
        return GatedCaptionLoss(self.model, self.tokenizer, mean=model.gated.loss)

    def save(self, directory: Path, narrator_input: NarratorInput, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write the folder that the engine gpt2 takes, which itself says what it is shown."""
        model = self.model
        if weights is not None:
            with without_memory():
                model = GatedNarrator(self.model.config)
            model.load_state_dict(weights, assign=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=directory) as scratch:
            save_gated_narrator(model, self.tokenizer, scratch)
            for path in sorted(Path(scratch).iterdir(), key=lambda path: (path.name == "config.json", path.name)):
                path.replace(directory / path.name)


def describe(
    source: Path | None, settings: NarratorSettings, texts: Callable[[], Iterable[str]]
) -> tuple[Files, NarratorFacts]:
    """Return the tokenizer's files and what the config says; None is a preset, started from parts or untrained."""
    if source is not None:
        config, tokenizer = read_gated_config(source), load_narrator_tokenizer(source)
        asked = settings.frames.num_frames
        if asked not in (None, config.num_frames):
            raise UserError("frames.num_frames is not what the narrator was trained with", got=asked,
                            wanted=config.num_frames, remedy="leave it out")  # fmt: skip
        video: GatedNarratorConfig | TimesformerConfig = config
    else:
        gated = settings.model.gated
        if gated.language_model is not None:
            tokenizer = load_gpt2_tokenizer(gated.language_model)
        else:
            tokenizer = train_gpt2_tokenizer(texts(), vocab_size=settings.model.vocab_size)
        video = _video_config(settings)
    _require_learnable_end(tokenizer, settings)
    with tempfile.TemporaryDirectory(prefix="mama_ray-tokenizer-") as scratch:
        tokenizer.save_pretrained(scratch)
        files = files_of(Path(scratch))
    side, num_frames, end_id = video.image_size, video.num_frames, tokenizer.eos_token_id
    return files, NarratorFacts(NAME, "", side, num_frames, end_id, video.interpolation)


def labels(facts: NarratorFacts, files: Files, *, max_tokens: int) -> GatedLabels:
    """Return what makes labels, without transformers, which a decode task would spend seconds on."""
    tokenizer = Tokenizer.from_buffer(files["tokenizer.json"])
    return GatedLabels(tokenizer, facts.end_id, max_tokens=max_tokens)


def show(facts: NarratorFacts, settings: NarratorSettings, decode: DecodeConfig) -> FrameShow:
    """Return what shows frames."""
    resize, interpolation = settings.frames.resize, facts.interpolation
    transform = TransformConfig(image_size=facts.side, resize=resize, interpolation=interpolation)
    return FrameShow(facts.num_frames, transform, decode)


def start(facts: NarratorFacts, files: Files, settings: NarratorSettings) -> TaughtGated:
    """Make the narrator that training starts from, every part taken from where the settings say."""
    with unpacked(files) as directory:
        tokenizer = load_gpt2_tokenizer(directory)
    model = _build(tokenizer, settings)
    if settings.model.gated.gates:
        for name, parameter in model.named_parameters():
            if name.endswith(_GATES):
                torch.nn.init.constant_(parameter, settings.model.gated.gates)
    return TaughtGated(model, tokenizer)


def load(directory: Path) -> TaughtGated:
    """Load a gated narrator's folder."""
    return TaughtGated(load_gated_narrator(directory), load_narrator_tokenizer(directory))


def convert(source: Path, target: Path, dtype: Literal["float32", "bfloat16"]) -> None:
    """Write a folder again with weights of another type."""
    model = load_gated_narrator(source, dtype=getattr(torch, dtype))
    save_gated_narrator(model, load_narrator_tokenizer(source), target)


def _build(tokenizer: "PreTrainedTokenizerFast", settings: NarratorSettings) -> GatedNarrator:
    preset, gated = _preset(settings.model), settings.model.gated
    if gated.language_model is not None:
        # What else joins the two suits them, unless it is asked for.
        asked = [name for name in ("context_length", "pooler_heads") if name in (gated.sizes or {})]
        joins = {name: getattr(preset, name) for name in ("cross_every", "num_queries", *asked)}
        return start_gated_narrator(_vision(settings), gated.language_model, **joins)
    video = _video_config(settings)
    sizes = {name: getattr(video, name) for name in (*_VIDEO_FIELDS, "attention", "time_start")}
    ends = {"bos_id": tokenizer.bos_token_id, "eos_id": tokenizer.eos_token_id}
    language = preset.language.model_copy(update={"vocab_size": len(tokenizer)})
    plain = preset.model_dump() | {"language": language.model_dump()} | sizes | ends
    model = GatedNarrator(GatedNarratorConfig.model_validate(plain | {"video": video.video.model_dump()}))
    if gated.video_encoder is not None:
        model.visual.load_state_dict(_vision(settings).visual.state_dict())
    return model


def longest_caption(model: NarratorModelConfig) -> int | None:
    """Return the most tokens of a caption that a preset has place for, its end included; None for what is no preset of
    a gated narrator. A GPT-2 of fewer positions has less, which its folder alone tells."""
    is_preset = model.pretrained is None and model.preset in PRESETS
    return _preset(model).context_length - 1 if is_preset else None


def _preset(model: NarratorModelConfig) -> GatedNarratorConfig:
    try:
        return with_overrides(PRESETS[model.preset], model.gated.sizes or {})
    except ConfigError as error:
        raise UserError(f"model.gated.sizes: {error}") from error


def _video_config(settings: NarratorSettings) -> TimesformerConfig:
    """Return the config of a dual encoder with the video tower that training starts from."""
    if settings.model.gated.video_encoder is not None:
        return _encoder_config(settings)
    preset = _preset(settings.model)
    fields = {name: getattr(preset, name) for name in (*_VIDEO_FIELDS, "attention", "time_start")}
    if settings.frames.num_frames is not None:
        fields["num_frames"] = settings.frames.num_frames
    text = {"text": _UNREAD_TEXT, "dim": 8, "vocab_size": 16, "context_length": 4}
    plain = {name: getattr(value, "model_dump", lambda value=value: value)() for name, value in (fields | text).items()}
    return TimesformerConfig.model_validate(plain)


def _encoder_config(settings: NarratorSettings) -> TimesformerConfig:
    source = Path(settings.model.gated.video_encoder or "")
    config = describe_model(source) if source.is_dir() else _vision(settings).config
    _require_timesformer(config, source)
    asked = settings.frames.num_frames
    return config if asked is None else config.model_copy(update={"num_frames": asked})


def _vision(settings: NarratorSettings) -> Timesformer:
    """Return the dual encoder whose video tower is taken: the one that is named, or an untrained one."""
    source = settings.model.gated.video_encoder
    if source is None:
        return Timesformer(_video_config(settings))
    asked = settings.frames.num_frames
    model = from_pretrained(source, **({} if asked is None else {"num_frames": asked, "interpolate": True}))
    _require_timesformer(model.config, source)
    return model


def _require_timesformer(config: object, source: str | Path) -> None:
    if not isinstance(config, TimesformerConfig):
        raise UserError(
            "a gated narrator takes the video tower of a TimeSformer",
            got=f"{type(config).__name__.removesuffix('Config')} in {source}",
            wanted="a dual encoder of a tsf_ preset (docs/models.md), or LaViLa's release",
        )


def _require_learnable_end(tokenizer: "PreTrainedTokenizerFast", settings: NarratorSettings) -> None:
    if settings.model.gated.loss == "padded" and tokenizer.eos_token_id == 0:
        raise UserError(
            "model.gated.loss padded never learns token 0, which ends this tokenizer's captions",
            wanted="a tokenizer as GPT-2's, whose token 0 is another",
            remedy="take --model.gated.loss tokens",
        )
