"""Looking at a captioner's folder before an engine is started: is it whole, is it a model that can be served, and of
what size are its pictures?
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mama_ray.captioning.pictures.settings import GRID, ShownAs
from mama_ray.captioning.prompts import PromptConfig, render_prompt
from mama_ray.errors import UserError, unknown_name
from mama_ray.models.weight_files import INDEX_NAME, WEIGHTS_NAME, hash_weights, read_json
from mama_ray.storage.manifest import require_whole_model

# The architectures that vLLM serves pictures to; whether the Hugging Face processor needs torchvision.
NEEDS_TORCHVISION = {
    "LlavaForConditionalGeneration": False,
    "LlavaNextForConditionalGeneration": False,
    "LlavaOnevisionForConditionalGeneration": True,
    "Qwen2_5_VLForConditionalGeneration": True,
}
_DEFAULT_SIDE = 336  # of LLaVA-1.5; for processors that take pictures of any size


@dataclass(frozen=True)
class Captioner:
    """A folder that was found servable.

    Attributes:
        architecture: the model's class.
        side: pixels of the square that its processor makes of a picture.
        prompt: rendered.
        num_prompt_tokens: of one request, picture included.
        context_length: tokens that the language model has positions for, None where its config does not say.
        weights_sha256: of its weight files.
        engine: name of what runs it, in build.py.
        shows: what it is shown of a clip.
        num_frames: of frames and of a video; 0 for a grid.
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

    def check_length(self, max_tokens: int, max_model_len: int | None) -> None:
        """Raise UserError where prompt, picture and the longest caption do not fit the engine or the model."""
        limit = min((length for length in (max_model_len, self.context_length) if length), default=None)
        if limit is not None and self.num_prompt_tokens + max_tokens > limit:
            raise UserError(
                "prompt, picture and caption are too long together",
                got=f"{self.num_prompt_tokens} + {max_tokens} tokens",
                wanted=f"at most {limit}",
                remedy="lower sampling.max_tokens or side, or raise engine.max_model_len as far as the model allows",
            )


def inspect_captioner(folder: Path, prompt: PromptConfig, side: int | None = None) -> Captioner:
    """Check config, weights, processor and prompt of a model folder; `side` overrides the processor's own.

    Raises UserError that names what is missing, damaged or not servable. Weights are hashed, so reading takes the time
    that the disk needs for them.
    """
    if not folder.is_dir():
        raise UserError("no such model folder", got=str(folder), wanted="a folder in Hugging Face's layout")
    require_whole_model(folder)
    config = read_json(folder / "config.json")
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else "none"
    if architecture not in NEEDS_TORCHVISION:
        raise unknown_name("architecture of a captioner", architecture, NEEDS_TORCHVISION)
    if NEEDS_TORCHVISION[architecture] and importlib.util.find_spec("torchvision") is None:
        raise UserError(
            f"{architecture} needs torchvision", got="no torchvision", remedy="pip install torchvision==0.28.0"
        )
    _check_weights(folder)
    processor = _load_processor(folder)
    side = side or picture_side(processor)
    text = render_prompt(prompt, processor)
    num_tokens = _count_tokens(processor, text, side, folder)
    return Captioner(architecture, side, text, num_tokens, _context_length(config), hash_weights(folder), "vllm")


def picture_side(processor: Any) -> int:
    """Return the pixels of the square that a processor makes of a picture; 336 where it takes any size."""
    images = processor.image_processor
    crop_size, size = getattr(images, "crop_size", None), getattr(images, "size", None)
    if _item(size, "longest_edge"):  # Qwen's two edges are bounds of the number of pixels
        return _DEFAULT_SIDE
    for edges in (crop_size, size):
        for key in ("height", "shortest_edge"):
            value = _item(edges, key)
            if isinstance(value, int) and 16 <= value <= 4096:
                return value
    return _DEFAULT_SIDE


def _context_length(config: dict[str, Any]) -> int | None:
    """Return the positions of the language model, whose config is nested or, as Qwen's may be, the model's own."""
    for part in (config.get("text_config"), config):
        length = part.get("max_position_embeddings") if isinstance(part, dict) else None
        if isinstance(length, int) and length > 0:
            return length
    return None


def _item(size: Any, key: str) -> Any:
    return size.get(key) if hasattr(size, "get") else getattr(size, key, None)


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


def _load_processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # Whatever a damaged tokenizer or processor file makes of it: there is no common class.
    except Exception as error:
        raise UserError("the model's processor cannot be loaded", got=f"{folder} ({error})") from error
    if not hasattr(processor, "image_processor"):
        raise UserError("the model's processor takes no pictures", got=f"{type(processor).__name__} of {folder}")
    return processor


def _count_tokens(processor: Any, prompt: str, side: int, folder: Path) -> int:
    from PIL import Image

    try:
        inputs = processor(images=Image.new("RGB", (side, side)), text=prompt, return_tensors="pt")
    except Exception as error:  # a processor raises what its parts raise
        raise UserError("the model's processor refuses prompt and picture", got=f"{folder} ({error})") from error
    return inputs["input_ids"].shape[-1]
