"""Looking at a captioner's folder before an engine is started: is it whole, which engine runs it, what can it be shown,
and of what size are its pictures?
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mama_ray.captioning.engines.generation import EngineName
from mama_ray.captioning.engines.processor import count_tokens, load_processor, picture_side
from mama_ray.captioning.pictures.settings import (
    FRAMES,
    GRID,
    VIDEO,
    VIDEO_FRAMES,
    ClipShowConfig,
    ShownAs,
    require_frames_fit,
)
from mama_ray.captioning.prompts import PromptConfig, render_prompt
from mama_ray.data.video.settings import Interpolation
from mama_ray.errors import UserError, unknown_name
from mama_ray.models.weight_files import INDEX_NAME, WEIGHTS_NAME, hash_weights, read_json
from mama_ray.storage.manifest import require_whole_model

GPT2, VLLM = "gpt2", "vllm"
_MEDIUM = {GRID: "picture", VIDEO: "video", FRAMES: "frames"}


@dataclass(frozen=True)
class Architecture:
    """What is known of a kind of model: the engine that runs it, and the ways to show it a clip, the usual one first.

    `needs_torchvision` says whether the Hugging Face processor does.
    """

    engine: str
    shows: tuple[ShownAs, ...]
    needs_torchvision: bool = False


ARCHITECTURES = {
    "LlavaForConditionalGeneration": Architecture(VLLM, (GRID,)),
    "LlavaNextForConditionalGeneration": Architecture(VLLM, (GRID,)),
    "LlavaOnevisionForConditionalGeneration": Architecture(VLLM, (GRID, VIDEO), needs_torchvision=True),
    "Qwen2VLForConditionalGeneration": Architecture(VLLM, (GRID, VIDEO), needs_torchvision=True),
    "Qwen2_5_VLForConditionalGeneration": Architecture(VLLM, (GRID, VIDEO), needs_torchvision=True),
    "Qwen3VLForConditionalGeneration": Architecture(VLLM, (GRID, VIDEO), needs_torchvision=True),
    "GatedNarrator": Architecture(GPT2, (FRAMES,)),
}


@dataclass(frozen=True)
class Captioner:
    """A folder that was found servable.

    Attributes:
        architecture: the model's class.
        side: pixels: of the square that its processor makes of a picture, of its square frames, or of the longer side
            of a video's frames at most.
        prompt: rendered; "" for a model that is asked nothing.
        num_prompt_tokens: of one request, with what is shown; those of the largest video.
        context_length: tokens that the language model has positions for, None where its config does not say.
        weights_sha256: of its weight files.
        engine: name of what runs it, in build.py.
        shows: what it is shown of a clip.
        num_frames: of frames and of a video; 0 for a grid.
        interpolation: the filter that scales frames.
        revision: commit of the hub's repository that the folder is of, None for others.
    """

    architecture: str
    side: int
    prompt: str
    num_prompt_tokens: int
    context_length: int | None
    weights_sha256: str
    engine: str
    shows: ShownAs = GRID
    num_frames: int = 0
    interpolation: Interpolation = "bicubic"
    revision: str | None = None

    def check_length(self, max_tokens: int, max_model_len: int | None) -> None:
        """Raise UserError where prompt, picture and the longest caption do not fit the engine or the model."""
        limit = min((length for length in (max_model_len, self.context_length) if length), default=None)
        if limit is not None and self.num_prompt_tokens + max_tokens > limit:
            smaller = {GRID: " or side", VIDEO: ", frames.num_frames or frames.long_side"}.get(self.shows, "")
            raise UserError(
                f"prompt, {_MEDIUM[self.shows]} and caption are too long together",
                got=f"{self.num_prompt_tokens} + {max_tokens} tokens",
                wanted=f"at most {limit}",
                remedy=f"lower sampling.max_tokens{smaller}, or raise engine.max_model_len as far as the model allows",
            )


def inspect_captioner(
    folder: Path,
    prompt: PromptConfig,
    side: int | None = None,
    *,
    frames: ClipShowConfig | None = None,
    engine: EngineName = "auto",
) -> Captioner:
    """Check config, weights, processor and prompt of a model folder, and that it can be shown what `frames` says.

    `side` overrides the processor's own, `engine` says which one is expected. Raises UserError that names what is
    missing, damaged or not servable. Weights are hashed, so reading takes the time that the disk needs for them.
    """
    if not folder.is_dir():
        raise UserError("no such model folder", got=str(folder), wanted="a folder in Hugging Face's layout")
    require_whole_model(folder)
    config = read_json(folder / "config.json")
    architectures = config.get("architectures")
    name = str(architectures[0]) if isinstance(architectures, list) and architectures else "none"
    if name not in ARCHITECTURES:
        raise unknown_name("architecture of a captioner", name, ARCHITECTURES)
    known, frames = ARCHITECTURES[name], frames or ClipShowConfig()
    kind = _kind_of(name, known, frames, engine)
    if known.needs_torchvision and importlib.util.find_spec("torchvision") is None:
        raise UserError(f"{name} needs torchvision", got="no torchvision", remedy="pip install torchvision==0.28.0")
    _check_weights(folder)
    if known.engine == GPT2:
        return _inspect_gated_narrator(folder, name, frames, side)
    processor = load_processor(folder)
    if kind == VIDEO:
        if side is not None:
            raise UserError("side is of a grid", got=f"side {side} of a video", remedy="set frames.long_side")
        side, num_frames, medium = frames.long_side, frames.num_frames or VIDEO_FRAMES, "video"
    else:
        side, num_frames, medium = side or picture_side(processor), 0, "image"
    text = render_prompt(prompt, processor, medium)
    num_tokens = count_tokens(processor, text, side, num_frames, folder)
    length = _context_length(config)
    return Captioner(name, side, text, num_tokens, length, hash_weights(folder), VLLM, kind, num_frames)


def _kind_of(name: str, known: Architecture, frames: ClipShowConfig, engine: EngineName) -> ShownAs:
    """Return how clips are shown to a model; UserError where it is another engine's, or cannot be shown that."""
    if engine not in ("auto", known.engine):
        raise UserError(
            "the engine does not run this model",
            got=f"--engine {engine} and a {name}",
            wanted=f"--engine {known.engine}, or none: the model's folder says which",
        )
    kind = frames.show or known.shows[0]
    if kind not in known.shows:
        able = ", ".join(other for other, architecture in ARCHITECTURES.items() if kind in architecture.shows)
        raise UserError(
            f"a {name} cannot be shown a clip as {kind}",
            got=f"frames.show {kind}",
            wanted=f"{' or '.join(known.shows)}, or for {kind} one of {able}",
        )
    if names := frames.names_without_use(kind):
        what = ", ".join(f"frames.{name}" for name in names)
        raise UserError(f"a setting that means nothing to a clip shown as {kind}", got=what, remedy="leave it out")
    return kind


def _inspect_gated_narrator(folder: Path, name: str, frames: ClipShowConfig, side: int | None) -> Captioner:
    from mama_ray.models.narrator.load import load_narrator_tokenizer, read_gated_config

    config = read_gated_config(folder)
    load_narrator_tokenizer(folder)
    if side not in (None, config.image_size):
        raise UserError("another side than the model's", got=f"side {side}", wanted=f"{config.image_size}, or none")
    length, num_frames = config.context_length, frames.num_frames or config.num_frames
    try:
        require_frames_fit(num_frames, config.image_size)
    except ValueError as error:
        raise UserError(
            "the model takes more than can be shown", got=str(error), remedy="set frames.num_frames"
        ) from None
    # Its prompt is the token that begins a caption; frames come in beside the text and take no positions.
    weights, shown = hash_weights(folder), (FRAMES, num_frames, config.interpolation)
    return Captioner(name, config.image_size, "", 1, length, weights, GPT2, *shown)


def _context_length(config: dict[str, Any]) -> int | None:
    """Return the positions of the language model, whose config is nested or, as Qwen's may be, the model's own."""
    for part in (config.get("text_config"), config):
        length = part.get("max_position_embeddings") if isinstance(part, dict) else None
        if isinstance(length, int) and length > 0:
            return length
    return None


def _check_weights(folder: Path) -> None:
    """Read the headers: safetensors compares them with the length of the file."""
    for name in _weight_names(folder):
        path = folder / name
        if not path.is_file():
            raise UserError(
                "weights are missing", got=str(path), wanted="a safetensors file", remedy="download it again"
            )
        try:
            with safe_open(path, framework="numpy") as file:
                file.keys()
        except (SafetensorError, OSError) as error:
            raise UserError("weights are damaged", got=f"{path} ({error})", remedy="download it again") from error


def _weight_names(folder: Path) -> list[str]:
    index = folder / INDEX_NAME
    if not index.is_file():
        return [WEIGHTS_NAME]
    weight_map = read_json(index).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise UserError("the index of the weights names no files beside it", got=str(index), remedy="download it again")
    return sorted(set(names))
