"""A narrator: a LLaVA that writes captions of clips, with its processor and what it is shown and asked.

Its folder has the Hugging Face layout of LLaVA-1.5, which `from_pretrained` and vLLM both load, and beside it
`narrator.yaml`: the prompt and the grid it was trained with, so that whoever serves it asks the same.
transformers is imported inside the functions: it takes seconds.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from mama_ray.captioning.narrator.settings import NarratorInput
from mama_ray.config import config_to_yaml, load_config
from mama_ray.errors import UserError
from mama_ray.models.weight_files import INDEX_NAME
from mama_ray.storage.manifest import require_whole_model

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

INPUT_FILE = "narrator.yaml"
# transformers 5 dropped a level of the vision tower's names, which vLLM 0.29 wants and transformers reads too.
_TOWER, _SERVED_TOWER = "vision_tower.", "vision_tower.vision_model."
_WEIGHTS_FOLDER = "weights"


@dataclass(frozen=True)
class Narrator:
    """A model and its processor."""

    model: "LlavaForConditionalGeneration"
    processor: "LlavaProcessor"


def embedded_narrator() -> Path:
    """Return the folder of the narrator that comes with the package: it knows the embedded corpus, and nothing else."""
    return Path(__file__).with_name(_WEIGHTS_FOLDER)


def load_processor(directory: str | Path) -> "LlavaProcessor":
    """Load the processor of a LLaVA folder; UserError where it is none."""
    from transformers import AutoProcessor, LlavaProcessor

    try:
        processor = AutoProcessor.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a damaged tokenizer or processor file raises what its reader raises
        raise UserError("the processor cannot be loaded", got=f"{directory} ({error})") from error
    if not isinstance(processor, LlavaProcessor) or not processor.tokenizer.is_fast:
        raise UserError(
            "a narrator is a LLaVA-1.5",
            got=f"{type(processor).__name__} in {directory}",
            wanted="a LlavaProcessor with tokenizer.json",
        )
    return processor


def load_narrator(directory: str | Path, *, dtype: torch.dtype = torch.float32) -> Narrator:
    """Load a folder in the layout of LLaVA-1.5; UserError for another architecture or damaged files."""
    from transformers import LlavaForConditionalGeneration

    require_whole_model(Path(directory))
    processor = load_processor(directory)
    try:
        model = LlavaForConditionalGeneration.from_pretrained(
            directory, dtype=dtype, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError("the narrator's weights cannot be loaded", got=f"{directory} ({error})") from error
    return Narrator(model, processor)


def save_narrator(narrator: Narrator, directory: str | Path, narrator_input: NarratorInput) -> None:
    """Write a folder that transformers and vLLM load; config.json comes last, so half a folder is no model."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=directory) as scratch:
        narrator.model.save_pretrained(scratch)
        narrator.processor.save_pretrained(scratch)
        (Path(scratch) / INPUT_FILE).write_text(config_to_yaml(narrator_input))
        _name_weights_as_served(Path(scratch))
        for path in sorted(Path(scratch).iterdir(), key=lambda path: (path.name == "config.json", path.name)):
            path.replace(directory / path.name)


def read_narrator_input(directory: str | Path) -> NarratorInput | None:
    """Return what a narrator's folder says it is shown and asked; None for a folder that somebody else wrote."""
    path = Path(directory) / INPUT_FILE
    return load_config(NarratorInput, path) if path.is_file() else None


def convert_narrator(source: str | Path, target: str | Path, dtype: Literal["float32", "bfloat16"]) -> None:
    """Write a narrator's folder again with weights of another type."""
    narrator_input = read_narrator_input(source) or NarratorInput()
    save_narrator(load_narrator(source, dtype=getattr(torch, dtype)), target, narrator_input)


def _name_weights_as_served(directory: Path) -> None:
    """Give the vision tower's weights the names of LLaVA-1.5's files, where transformers wrote them without a level."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            renamed = {name: _served_name(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if any(old != new for old, new in renamed.items()):
            weights = load_file(path)
            save_file({renamed[name]: value for name, value in weights.items()}, path, metadata={"format": "pt"})
    index = directory / INDEX_NAME
    if index.is_file():
        record = json.loads(index.read_text())
        record["weight_map"] = {_served_name(name): file for name, file in record["weight_map"].items()}
        index.write_text(json.dumps(record, indent=2))


def _served_name(name: str) -> str:
    if name.startswith(_TOWER) and not name.startswith(_SERVED_TOWER):
        return name.replace(_TOWER, _SERVED_TOWER, 1)
    return name
