"""What `models/pretrained.py` asks of the TimeSformer, and LaViLa's released checkpoints, read and written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mama_ray.errors import UserError
from mama_ray.models.adapters import exported_state
from mama_ray.models.config_json import validated
from mama_ray.models.interpolate import interpolate_positions
from mama_ray.models.outline import without_memory
from mama_ray.models.timesformer.key_layouts import (
    DEFAULT_FORM,
    POSITION_KEY,
    TEMPORAL_KEY,
    ReleaseForm,
    config_of_release,
    content_of,
    from_release,
    pixels_of_release,
    read_release,
    text_tower_of,
)
from mama_ray.models.timesformer.model import Timesformer, TimesformerConfig
from mama_ray.models.timesformer.presets import PRESETS as PRESETS  # a part of what a backbone offers
from mama_ray.models.timesformer.video_tower import resample_temporal
from mama_ray.models.weight_files import LoadReport, State, compare_states, read_json, read_state, read_weights_file
from mama_ray.storage.places import whole_file

# A half-precision file rounds a scale that stands at its bound.
LOGIT_SCALE_TOLERANCE = 0.01
_FEW_LAYERS = 8  # more than the weights have; they cost nothing to find out


def build_fresh(config: TimesformerConfig) -> Timesformer:
    """Build a model with new weights."""
    return Timesformer(config)


def load_directory(directory: Path, *, interpolate: bool = False, **overrides: Any) -> tuple[Timesformer, LoadReport]:
    """Load a directory of ours."""
    config = own_config(directory)
    return build_filled(config, read_state(directory), overrides, source=str(directory), interpolate=interpolate)


def trained_overrides(directory: Path) -> dict[str, Any]:
    """Return nothing: a directory of ours has all weights of its model."""
    return {}


def describe_directory(directory: Path) -> TimesformerConfig:
    """Return the config that `load_directory` would give, with its errors: of the weights it reads names and shapes."""
    config = own_config(directory)
    state = read_state(directory, values_of=("logit_scale",))
    bounds = _require_fit(config, state, source=str(directory)).logit_scale_bounds
    _require_bounded(state["logit_scale"].float().item(), bounds, str(directory))
    return config


def import_lavila_release(
    path: str | Path,
    *,
    content: Any = None,
    config: TimesformerConfig | None = None,
    interpolate: bool = False,
    **overrides: Any,
) -> tuple[Timesformer, LoadReport]:
    """Load a released dual encoder; half precision becomes float32.

    Args:
        path: the file.
        content: its content, where it has been read already.
        config: the sizes that its weights must have; None reads them off the shapes. The pixel constants are those
            that the weights were trained with.
        interpolate: resample positions and times where `overrides` ask for another image_size or num_frames.
        overrides: replace fields of the config.

    UserError names what is missing, too many or of another shape, and a text tower that is not the wanted one.
    """
    model, report, _ = import_with_form(path, content=content, config=config, interpolate=interpolate, **overrides)
    return model, report


def import_with_form(
    path: str | Path,
    *,
    content: Any = None,
    config: TimesformerConfig | None = None,
    interpolate: bool = False,
    **overrides: Any,
) -> tuple[Timesformer, LoadReport, ReleaseForm]:
    """Load a released file as `import_lavila_release` does, and say how `export_lavila_release` writes it again."""
    source = str(path)
    state, form = read_release(read_weights_file(Path(path)) if content is None else content, source)
    wanted_tower = overrides.get("text_tower", text_tower_of(state, source) if config is None else config.text_tower)
    _require_text_tower(text_tower_of(state, source), wanted_tower, source)
    if config is None:
        config = config_of_release(state, form, source)
    else:
        config = config.model_copy(update=pixels_of_release(form))
    with without_memory():
        wanted = Timesformer(config).state_dict()
    state = from_release(wanted, state, form, source)
    model, report = build_filled(config, state, overrides, source=source, interpolate=interpolate)
    return model, LoadReport(dropped=tuple(form.buffers), interpolated=report.interpolated), form


@dataclass(frozen=True, eq=False)
class ReleasedModel:
    """A model as the release has it, in the form of a file."""

    model: Timesformer
    form: ReleaseForm

    def state_dict(self) -> dict[str, Any]:
        """Return the content of the file."""
        return content_of(exported_state(self.model), self.form)


def export_lavila_release(model: Timesformer, path: str | Path, form: ReleaseForm | None = None) -> None:
    """Write a model as a released checkpoint (.pt), without optimizer, scaler and criterion.

    Args:
        model: one with divided attention, as all releases.
        path: where to.
        form: of the file that it came from: names, shapes, types and values of an unchanged import are those of the
            file. By default float32, each name behind `module.`.
    """
    if model.config.attention != "divided":
        raise UserError(
            "LaViLa's layout has no joint attention", got=model.config.attention, wanted="divided attention",
            remedy="save_pretrained writes any model",
        )  # fmt: skip
    released = ReleasedModel(model, form or DEFAULT_FORM)
    with whole_file(Path(path)) as temporary:
        torch.save(released.state_dict(), temporary)


def _require_text_tower(found: str, wanted: str, source: str) -> None:
    if found != wanted:
        raise UserError(
            f"{source} has another text tower", got=found, wanted=wanted,
            remedy="load it with the config, and the tokenizer, of its own text tower: tsf_b and tsf_l have CLIP's,"
            " tsf_l_hr has DistilBERT",
        )  # fmt: skip


def build_filled(
    config: TimesformerConfig,
    state: State,
    overrides: Mapping[str, Any],
    *,
    source: str,
    interpolate: bool = False,
    may_be_fresh: tuple[str, ...] = (),
) -> tuple[Timesformer, LoadReport]:
    """Build a model of `config` with `overrides` and fill it from weights of our names; the report says what came from
    where. Keys of `may_be_fresh` may be absent; every other that is missing or of another shape is a UserError.
    """
    config = validated(TimesformerConfig, config.model_dump() | dict(overrides), source=f"overrides of {source}")
    interpolated: tuple[str, ...] = ()
    if interpolate:
        state, interpolated = _interpolate(state, config)
    outline = _require_fit(config, state, source=source, may_be_fresh=may_be_fresh)
    report = compare_states(outline.state_dict(), state, may_be_fresh=may_be_fresh, interpolated=interpolated)
    report.raise_if_incomplete(source)  # values too
    if "logit_scale" in state:
        _require_bounded(state["logit_scale"].float().item(), outline.logit_scale_bounds, source)
    model = Timesformer(config)
    model.load_state_dict(model.state_dict() | state)
    model.clamp_logit_scale_()
    return model, report


def _require_fit(
    config: TimesformerConfig, state: State, *, source: str, may_be_fresh: tuple[str, ...] = ()
) -> Timesformer:
    """Raise UserError where a config is not that of the weights, before the memory that it asks for is taken; returns
    the model without memory."""
    _require_layers(config, state, source)
    with without_memory():
        model = Timesformer(config)
    shapes = {name: tensor.to("meta") for name, tensor in state.items()}
    compare_states(model.state_dict(), shapes, may_be_fresh=may_be_fresh).raise_if_incomplete(source)
    return model


def _require_layers(config: TimesformerConfig, state: State, source: str) -> None:
    """Raise UserError where the weights have other layers: a model of many takes long to build, even without memory."""
    stacks = {
        "visual": (r"visual\.blocks\.(\d+)\.", config.video),
        "text_model": (r"text_model\.(?:encoder\.layers|transformer\.layer)\.(\d+)\.", config.text),
    }
    for tower, (pattern, size) in stacks.items():
        layers = {found[1] for key in state if (found := re.match(pattern, key))}
        if size.num_layers > 2 * len(layers) + _FEW_LAYERS:
            got = f"{len(layers)} layers of {tower}"
            raise UserError(f"weights of {source} do not fit the model", got=got, wanted=size.num_layers)


def _interpolate(state: State, config: TimesformerConfig) -> tuple[State, tuple[str, ...]]:
    """Resample the embeddings whose length differs from the config's; return the state and their keys."""
    resampled = {}
    if POSITION_KEY in state:
        grid = config.image_size // config.patch_size
        resampled[POSITION_KEY] = interpolate_positions(state[POSITION_KEY][0], grid)[None]
    if TEMPORAL_KEY in state:
        resampled[TEMPORAL_KEY] = resample_temporal(state[TEMPORAL_KEY].float(), config.num_frames)
    changed = tuple(key for key, tensor in resampled.items() if tensor.shape != state[key].shape)
    return state | {key: resampled[key] for key in changed}, changed


def _require_bounded(scale: float, bounds: tuple[float, float], source: str) -> None:
    low, high = bounds
    if not low - LOGIT_SCALE_TOLERANCE <= scale <= high + LOGIT_SCALE_TOLERANCE:
        raise UserError(
            f"logit scale of {source} lies out of bounds",
            got=scale,
            wanted=f"a log scale from {low} to {high:.4f}",
            remedy="store the logarithm, or widen logit_scale.min and .max",
        )


def own_config(directory: Path) -> TimesformerConfig:
    """Read the config.json of a directory of ours; UserError names the first field that is wrong."""
    path = directory / "config.json"
    content = read_json(path)
    content.pop("model_type")
    if "architectures" in content:
        raise UserError(
            f"{path} is that of transformers' TimesformerModel, which is another network", got=content["architectures"],
            wanted="a folder of ours, or timesformer: before one of CLIP",
        )  # fmt: skip
    return validated(TimesformerConfig, content, source=str(path))
