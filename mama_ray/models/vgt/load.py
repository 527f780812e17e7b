"""What `models/pretrained.py` asks of VGT, its released checkpoints in and out, and a language model's own folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import torch

from mama_ray.errors import UserError
from mama_ray.models.adapters import exported_state
from mama_ray.models.config_json import validated
from mama_ray.models.vgt.key_layouts import (
    NEW_KEYS,
    config_of_release,
    load_state,
    strip_release_layout,
    to_release_layout,
)
from mama_ray.models.vgt.language import TextConfig
from mama_ray.models.vgt.model import Vgt, VgtConfig
from mama_ray.models.vgt.presets import PRESETS as PRESETS  # a part of what a backbone offers
from mama_ray.models.weight_files import (
    LoadReport,
    State,
    read_json,
    read_state,
    read_weights_file,
    write_safetensors,
)

LOGIT_SCALE_TOLERANCE = 0.01  # a half-precision file rounds a scale that stands at its bound
# What folders say nothing of that were written before these were fields: how such models learned.
_OF_EARLIER_FOLDERS = {"answer_length": None, "question_form": "fitted"}
_BERT = "amodel.bert.bert."
_LANGUAGE_MODELS = ("bert", "roberta")
# Heads that a folder of a language model may have beside it, and a buffer of older transformers.
_HEADS = ("cls.", "lm_head.", "classifier.", "qa_outputs.")


def build_fresh(config: VgtConfig) -> Vgt:
    """Build a model with new weights."""
    return Vgt(config)


def load_directory(directory: Path, *, interpolate: bool = False, **overrides: Any) -> tuple[Vgt, LoadReport]:
    """Load a directory of ours; VGT has nothing to interpolate."""
    return _build(_own_config(directory), read_state(directory), overrides, source=str(directory))


def trained_overrides(directory: Path) -> dict[str, Any]:
    """Return no overrides: a directory of ours has all weights."""
    return {}


def describe_directory(directory: Path) -> VgtConfig:
    """Return the config that `load_directory` would give, with its errors: of the weights it reads names and shapes."""
    config = _own_config(directory)
    state = read_state(directory, values_of=NEW_KEYS)
    bounds = _require_fit(config, state, source=str(directory)).logit_scale_bounds
    _require_bounded(state["logit_scale"].float().item(), bounds, str(directory))
    return config


def import_vgt_release(path: str | Path, *, content: Any = None, **overrides: Any) -> tuple[Vgt, LoadReport]:
    """Load a released checkpoint; half precision becomes float32, sizes are read off the shapes.

    `content` is the file's, where it has been read already.
    """
    path = Path(path)
    state = strip_release_layout(read_weights_file(path) if content is None else content, str(path))
    return _build(config_of_release(state, str(path)), state, overrides, source=str(path), may_be_fresh=NEW_KEYS)


def export_vgt_release(model: Vgt, path: str | Path) -> None:
    """Write the weights under the release's names, as safetensors: what was imported comes out byte for byte."""
    write_safetensors(to_release_layout(exported_state(model)), Path(path))


def build_on_language_model(config: VgtConfig, directory: str | Path) -> Vgt:
    """Build a model with new weights around the language model of a folder, whose sizes and weights it takes."""
    text, vocab_size = text_config_of(directory)
    model = Vgt(config.model_copy(update={"text": text, "vocab_size": vocab_size}))
    load_language_model(model, directory)
    return model


def load_language_model(model: Vgt, directory: str | Path) -> LoadReport:
    """Replace the text model's weights by those of a BERT or RoBERTa folder, whose heads are left out.

    UserError where the folder is of another kind or size; a pooler that it lacks stays as it is.
    """
    directory = Path(directory)
    model_type = read_json(directory / "config.json").get("model_type")
    if model_type not in _LANGUAGE_MODELS or model_type != model.config.text.kind:
        raise UserError(f"{directory} is no {model.config.text.kind} model", got=model_type)
    state = {}
    for key, tensor in read_state(directory).items():
        if not key.startswith(_HEADS):
            state[key.removeprefix(f"{model_type}.")] = tensor
    state.pop("embeddings.position_ids", None)
    pooler = ("pooler.dense.weight", "pooler.dense.bias")
    return load_state(model.amodel.bert.bert, state, source=str(directory), may_be_fresh=pooler)


def text_config_of(directory: str | Path) -> tuple[TextConfig, int]:
    """Read the sizes of a BERT or RoBERTa folder, and its vocabulary's; UserError where it is neither."""
    path = Path(directory) / "config.json"
    content = read_json(path)
    if content.get("model_type") not in _LANGUAGE_MODELS:
        raise UserError(f"{path} is no language model of VGT", got=content.get("model_type"), wanted=_LANGUAGE_MODELS)
    names = {
        "model_type": "kind",
        "hidden_size": "width",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "intermediate_size": "ff_width",
        "max_position_embeddings": "num_positions",
        "type_vocab_size": "num_token_types",
        "pad_token_id": "pad_token_id",
        "layer_norm_eps": "layer_norm_eps",
        "hidden_dropout_prob": "dropout",
    }
    unlike = {"hidden_act": "gelu", "position_embedding_type": "absolute"}
    for name, wanted in unlike.items():
        if content.get(name, wanted) != wanted:
            raise UserError(f"{path}: a {name} that is not supported", got=content[name], wanted=wanted)
    try:
        fields = {ours: content[theirs] for theirs, ours in names.items() if theirs in content}
        return TextConfig.model_validate(fields), int(content["vocab_size"])
    except (pydantic.ValidationError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a usable config", got=str(error), wanted="the fields of BertConfig") from error


def _own_config(directory: Path) -> VgtConfig:
    path = directory / "config.json"
    content = _OF_EARLIER_FOLDERS | read_json(path)
    content.pop("model_type")
    return validated(VgtConfig, content, source=str(path))


def _build(
    config: VgtConfig,
    state: State,
    overrides: Mapping[str, Any],
    *,
    source: str,
    may_be_fresh: tuple[str, ...] = (),
) -> tuple[Vgt, LoadReport]:
    """Build a model of `config` with `overrides` and fill it; the report says what came from where."""
    config = validated(VgtConfig, config.model_dump() | dict(overrides), source=f"overrides of {source}")
    _require_fit(config, state, source=source, may_be_fresh=may_be_fresh)
    model = Vgt(config)
    report = load_state(model, state, source=source, may_be_fresh=may_be_fresh)
    _require_bounded(model.logit_scale.item(), model.logit_scale_bounds, source)
    model.clamp_logit_scale_()
    return model, report


def _require_fit(config: VgtConfig, state: State, *, source: str, may_be_fresh: tuple[str, ...] = ()) -> Vgt:
    """Raise UserError where a config is not that of the weights, before the memory that it asks for is taken; returns
    the model without memory."""
    with torch.device("meta"):
        model = Vgt(config)
        shapes = {name: tensor.to("meta") for name, tensor in state.items()}
        load_state(model, shapes, source=source, may_be_fresh=may_be_fresh)
    return model


def _require_bounded(scale: float, bounds: tuple[float, float], source: str) -> None:
    low, high = bounds
    if not low - LOGIT_SCALE_TOLERANCE <= scale <= high + LOGIT_SCALE_TOLERANCE:
        raise UserError(
            f"logit scale of {source} lies out of bounds",
            got=scale,
            wanted=f"a log scale from {low} to {high:.4f}",
            remedy="store the logarithm, or widen logit_scale.min and .max",
        )
