"""Gated narrators as folders, as starts from two other models, and as LaViLa's released files.

A folder has config.json, written last, model.safetensors and the tokenizer's files. Nothing is ever unpickled but by
the tensors-only reader of `weight_files.py`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
import torch

from mama_ray.errors import UserError
from mama_ray.models.config_json import validated
from mama_ray.models.narrator.config import POOLER_HEAD_WIDTH, GatedNarratorConfig
from mama_ray.models.narrator.key_layouts import (
    config_of_release,
    content_of,
    gpt2_config,
    gpt2_state,
    read_narrator_release,
)
from mama_ray.models.narrator.model import GatedNarrator
from mama_ray.models.narrator.tokenizer import load_gpt2_tokenizer, require_fit
from mama_ray.models.outline import without_memory
from mama_ray.models.timesformer.key_layouts import DEFAULT_FORM, ReleaseForm
from mama_ray.models.timesformer.model import Timesformer
from mama_ray.models.weight_files import (
    WEIGHTS_NAME,
    LoadReport,
    State,
    compare_states,
    read_json,
    read_state,
    read_weights_file,
    write_json,
    write_safetensors,
)
from mama_ray.storage.manifest import require_whole_model
from mama_ray.storage.places import whole_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONFIG_NAME = "config.json"
ARCHITECTURE = "GatedNarrator"
_VIDEO_FIELDS = (
    "video", "attention", "image_size", "patch_size", "num_frames", "pixel_mean", "pixel_std", "time_start",
    "place_init_std", "interpolation",
)  # fmt: skip
# What folders say nothing of that were written before this was a field: how such narrators learned.
_OF_EARLIER_FOLDERS = {"interpolation": "bicubic"}


def read_gated_config(folder: str | Path) -> GatedNarratorConfig:
    """Read the config.json of a gated narrator, without its weights; UserError names the first field that is wrong."""
    path = Path(folder) / CONFIG_NAME
    content = _OF_EARLIER_FOLDERS | read_json(path)
    if content.pop("model_type", None) != GatedNarrator.model_type:
        kind = read_json(path).get("model_type")
        raise UserError(f"{folder} holds another kind of model", got=kind, wanted=repr(GatedNarrator.model_type))
    content.pop("architectures", None)
    return validated(GatedNarratorConfig, content, source=str(path))


def load_gated_narrator(folder: str | Path, *, dtype: torch.dtype = torch.float32) -> GatedNarrator:
    """Load a folder, in evaluation mode; UserError for another model and for what is missing or damaged."""
    folder = Path(folder)
    require_whole_model(folder)
    config = read_gated_config(folder)
    return _filled(config, read_state(folder), str(folder), dtype).eval()


def load_narrator_tokenizer(folder: str | Path) -> "PreTrainedTokenizerFast":
    """Load the tokenizer of a gated narrator's folder; UserError where it is not that of the model."""
    tokenizer = load_gpt2_tokenizer(folder)
    require_fit(tokenizer, read_gated_config(folder), folder)
    return tokenizer


def save_gated_narrator(model: GatedNarrator, tokenizer: "PreTrainedTokenizerFast", folder: str | Path) -> None:
    """Write a folder that the engine `gpt2` takes; config.json comes last, so half a folder is no model."""
    folder = Path(folder)
    require_fit(tokenizer, model.config, "the call")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_NAME).unlink(missing_ok=True)
    write_safetensors(model.state_dict(), folder / WEIGHTS_NAME)
    tokenizer.save_pretrained(folder)
    # How a machine trades memory for time is not a property of the weights.
    fields = model.config.model_dump(mode="json", exclude={"gradient_checkpointing"})
    named = {"model_type": model.model_type, "architectures": [ARCHITECTURE]}
    write_json(named | fields, folder / CONFIG_NAME)


def start_gated_narrator(vision: Timesformer, gpt2: str | Path, **fields: Any) -> GatedNarrator:
    """Start from a dual encoder's video tower and a GPT-2 folder of Hugging Face; the gates are shut, so it writes as
    the GPT-2 does.

    `fields` replace those of the config that the two do not fix, as `cross_every` and `num_queries`.
    """
    folder = Path(gpt2)
    require_whole_model(folder)
    content = read_json(folder / CONFIG_NAME)
    language = gpt2_config(content, str(folder))
    named = {f"{end}_id": content.get(f"{end}_token_id") for end in ("bos", "eos")}
    ends = {name: language.vocab_size - 1 if one is None else one for name, one in named.items()}
    sizes = {
        "pooler_heads": max(1, language.width // POOLER_HEAD_WIDTH),
        "context_length": min(77, language.num_positions),
    }
    video = {name: getattr(vision.config, name) for name in _VIDEO_FIELDS}
    # As plain values, which the new config checks anew.
    known = {"language": language, **video, **ends, **sizes, **fields}
    config = validated(
        GatedNarratorConfig,
        {name: value.model_dump() if isinstance(value, pydantic.BaseModel) else value for name, value in known.items()},
        source=str(folder),
    )
    with without_memory():
        wanted = GatedNarrator(config).text_decoder.state_dict()
    state = gpt2_state(read_state(folder), wanted, config.language, str(folder))
    model = GatedNarrator(config)
    model.visual.load_state_dict(vision.visual.state_dict())
    model.text_decoder.load_state_dict(model.text_decoder.state_dict() | state)
    return model.eval()


def import_narrator_release(path: str | Path, *, content: Any = None) -> tuple[GatedNarrator, LoadReport, ReleaseForm]:
    """Load a released narrator (.pt, .safetensors) with the form that `export_narrator_release` writes it again in.

    Half precision becomes float32. UserError names what is missing, too many or of another shape. The file has no
    tokenizer: that of the GPT-2 it was started from.
    """
    source = str(path)
    state, form = read_narrator_release(read_weights_file(Path(path)) if content is None else content, source)
    model = _filled(config_of_release(state, form, source), state, source, torch.float32).eval()
    return model, LoadReport(dropped=tuple(form.buffers)), form


@dataclass(frozen=True, eq=False)
class ReleasedNarrator:
    """A model as the release has it, in the form of a file."""

    model: GatedNarrator
    form: ReleaseForm

    def state_dict(self) -> dict[str, Any]:
        """Return the content of the file."""
        return content_of(self.model.state_dict(), self.form)


def export_narrator_release(model: GatedNarrator, path: str | Path, form: ReleaseForm | None = None) -> None:
    """Write a model as a released checkpoint (.pt), without optimizer, scaler and criterion.

    `form` is that of the file it came from: names, shapes, types and values of an unchanged import are those of the
    file. By default float32, each name behind `module.`.
    """
    if model.config.attention != "divided" or not model.config.language.is_tied:
        raise UserError(
            "LaViLa's layout has no such narrator",
            got="joint attention" if model.config.language.is_tied else "an output matrix of its own",
            wanted="divided attention, and the token embeddings as output matrix",
            remedy="save_gated_narrator writes any model",
        )
    with whole_file(Path(path)) as temporary:
        torch.save(ReleasedNarrator(model, form or DEFAULT_FORM).state_dict(), temporary)


def _filled(config: GatedNarratorConfig, state: State, source: str, dtype: torch.dtype) -> GatedNarrator:
    """Build a model and fill it; what does not fit is told before the memory that the config asks for is taken."""
    with without_memory():
        wanted = GatedNarrator(config).state_dict()
    compare_states(wanted, state).raise_if_incomplete(source)
    model = GatedNarrator(config).to(dtype)
    model.load_state_dict(state)
    return model
