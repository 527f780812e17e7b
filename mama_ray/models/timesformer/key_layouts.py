"""The layout of LaViLa's released checkpoints, mapped to this model's names by an explicit list; the rest is an error.

A release is `{"state_dict": state, "args": argparse.Namespace, "epoch": ..., "optimizer": ..., ...}`, or the state
alone, with `module.` before every name. The video tower has our names. CLIP's text tower has OpenAI's, where query, key
and value are one matrix; DistilBERT's has Hugging Face's behind `textual.`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mama_ray.errors import UserError
from mama_ray.models.timesformer.model import LOGIT_SCALE, TextTower, TimesformerConfig
from mama_ray.models.transformer import EncoderConfig
from mama_ray.models.weight_files import State, compare_states, is_flat, name_some

RELEASE_PREFIX = "module."
RELEASE_MARK = re.compile(r"^visual\.blocks\.\d+\.timeattn\.")  # which no other released file has
DISTILBERT = "textual."
POSITION_IDS = f"{DISTILBERT}embeddings.position_ids"  # a buffer of older transformers
TEMPORAL_KEY, POSITION_KEY = "visual.temporal_embed", "visual.pos_embed"
HEAD_WIDTH = 64  # of CLIP's and DistilBERT's
_AROUND = ("epoch", "best_acc1", "args")  # what describes the weights; optimizer, scaler, criterion are a training's

# RGB mean and standard deviation, full scale 255. The first red mean is a typo of 122.77, which the released weights
# were trained with.
PIXELS = {
    "lavila": ((108.3272985, 116.7460125, 104.0937362), (68.5005327, 66.6321579, 70.3231631)),
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}

# OpenAI's names of CLIP's text tower and ours, {i} a layer.
_CLIP_TEXT = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    **{f"ln_final.{kind}": f"text_model.final_layer_norm.{kind}" for kind in ("weight", "bias")},
}
_CLIP_TEXT_LAYER = {
    f"transformer.resblocks.{{i}}.{theirs}.{kind}": f"text_model.encoder.layers.{{i}}.{ours}.{kind}"
    for theirs, ours in (
        ("attn.out_proj", "self_attn.out_proj"),
        ("ln_1", "layer_norm1"),
        ("ln_2", "layer_norm2"),
        ("mlp.c_fc", "mlp.fc1"),
        ("mlp.c_proj", "mlp.fc2"),
    )
    for kind in ("weight", "bias")
}
# Three of ours, one after the other along axis 0, are one of theirs.
_CLIP_TEXT_QKV = {
    f"transformer.resblocks.{{i}}.attn.in_proj_{kind}": tuple(
        f"text_model.encoder.layers.{{i}}.self_attn.{name}_proj.{kind}" for name in "qkv"
    )
    for kind in ("weight", "bias")
}


@dataclass(frozen=True, eq=False)
class ReleaseForm:
    """What a file has beyond the weights' values, so that it can be written again as it was.

    Attributes:
        prefix: before every name.
        dtypes: of its tensors, in the file's order.
        buffers: those that are no weights.
        around: what stands beside the state, without optimizer, scaler and criterion; None for a file of the state
            alone.
    """

    prefix: str
    dtypes: Mapping[str, torch.dtype]
    buffers: Mapping[str, Tensor]
    around: Mapping[str, Any] | None


# Of a file that no release was the source of.
DEFAULT_FORM = ReleaseForm(RELEASE_PREFIX, {}, {}, {})


def is_release(content: Any) -> bool:
    """Return whether a file's content is a dual encoder or a video tower in LaViLa's layout."""
    return any(RELEASE_MARK.match(key) for key in _stripped(_state_in(content)))


def read_release(
    content: Any, source: str, is_buffer: Callable[[str], object] = POSITION_IDS.__eq__
) -> tuple[State, ReleaseForm]:
    """Return a released file's tensors under the release's names without prefix, and its form; UserError where it holds
    something else than tensors. `is_buffer` tells, by its name, what is no weight."""
    state = _state_in(content)
    if not is_flat(state):
        raise UserError(
            f"{source} holds no state dict",
            got=type(content).__name__,
            wanted="{'state_dict': names mapped to tensors}, or such a dict alone",
        )
    stripped = _stripped(state)
    prefix = RELEASE_PREFIX if len(stripped) and not stripped.keys() & state.keys() else ""
    around = None if state is content else {key: content[key] for key in _AROUND if key in content}
    dtypes = {key: tensor.dtype for key, tensor in stripped.items()}
    buffers = {key: stripped.pop(key) for key in list(stripped) if is_buffer(key)}
    return stripped, ReleaseForm(prefix, dtypes, buffers, around)


def config_of_release(state: State, form: ReleaseForm, source: str) -> TimesformerConfig:
    """Read the model's sizes off the shapes of a stripped release, and its pixel constants off how it was trained."""
    kind = text_tower_of(state, source)
    try:
        return TimesformerConfig(
            **video_sizes(state),
            dim=state["image_projection"].shape[1],
            logit_scale=LOGIT_SCALE.model_copy(update={"frozen": True}),
            **pixels_of_release(form),
            **_text_of_release(state, kind),
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise UserError(
            f"{source} does not show the sizes of a TimeSformer dual encoder",
            got=f"{type(error).__name__} {error}",
            wanted="the keys and shapes of LaViLa's release",
        ) from error


def video_sizes(state: State) -> dict[str, Any]:
    """Read the sizes of the video tower off a stripped release, as fields of a config; KeyError, ValueError, IndexError
    or ZeroDivisionError where its shapes show none."""
    width, _, _, patch_size = state["visual.patch_embed.proj.weight"].shape
    grid = round((state[POSITION_KEY].shape[1] - 1) ** 0.5)
    return {
        "video": _tower(state, "visual.blocks", "mlp.fc1", width),
        "num_frames": state[TEMPORAL_KEY].shape[1],
        "image_size": grid * patch_size,
        "patch_size": patch_size,
    }


def pixels_of_release(form: ReleaseForm) -> dict[str, tuple[float, ...]]:
    """Return the pixel constants that the weights were trained with, as fields of a config.

    Every release started from CLIP and says so in its model's name; a training from scratch took ImageNet's.
    """
    name = getattr((form.around or {}).get("args"), "model", None)
    mean, std = PIXELS["imagenet" if isinstance(name, str) and "OPENAI" not in name else "lavila"]
    return {"pixel_mean": tuple(value / 255 for value in mean), "pixel_std": tuple(value / 255 for value in std)}


def _text_of_release(state: State, kind: TextTower) -> dict[str, Any]:
    if kind == "clip":
        vocab_size, width = state["token_embedding.weight"].shape
        return {
            "text": _tower(state, "transformer.resblocks", "mlp.c_fc", width),
            "vocab_size": vocab_size,
            "context_length": state["positional_embedding"].shape[0],
        }
    vocab_size, width = state[f"{DISTILBERT}embeddings.word_embeddings.weight"].shape
    num_positions = state[f"{DISTILBERT}embeddings.position_embeddings.weight"].shape[0]
    return {
        "text": _tower(state, f"{DISTILBERT}transformer.layer", "ffn.lin1", width),
        "text_tower": kind,
        "vocab_size": vocab_size,
        "num_text_positions": num_positions,
        "context_length": min(77, num_positions),  # as the release tokenizes
    }


def text_tower_of(state: State, source: str) -> TextTower:
    """Return which text tower a stripped release has; UserError for one that no dual encoder of LaViLa has."""
    if any(key.startswith("transformer.resblocks.") for key in state):
        return "clip"
    if any(key.startswith(f"{DISTILBERT}transformer.layer.") for key in state):
        return "distilbert"
    others = sorted({".".join(key.split(".")[:2]) for key in state if not key.startswith(("visual.", "logit_scale"))})
    raise UserError(
        f"{source} has no text tower of LaViLa's dual encoders",
        got=name_some(others) or "a video tower alone",
        wanted="CLIP's (transformer.resblocks) or DistilBERT (textual.transformer)",
        remedy="take the checkpoint of a dual encoder, not that of a narrator or a classifier",
    )


def _tower(state: State, stack: str, mlp: str, width: int) -> EncoderConfig:
    layers = {found[1] for key in state if (found := re.match(rf"{re.escape(stack)}\.(\d+)\.", key))}
    hidden_width = state[f"{stack}.0.{mlp}.weight"].shape[0]
    heads = max(1, width // HEAD_WIDTH)
    return EncoderConfig(width=width, num_layers=len(layers), num_heads=heads, mlp_ratio=max(1, hidden_width // width))


def from_release(wanted: Mapping[str, Tensor], state: State, form: ReleaseForm, source: str) -> State:
    """Return a stripped release's tensors under our names; `wanted` are the model's own.

    UserError names, as the release does, every key that is missing, too many, of another shape or of no numbers.
    """
    _require_counting(form, source)
    compare_states(to_release(wanted), state).raise_if_incomplete(source)
    ours: State = {}
    for name, tensor in state.items():
        names = _names_of_ours(name)
        parts = tensor.chunk(len(names)) if len(names) > 1 else [tensor]
        ours |= {one: part.clone() if len(names) > 1 else part for one, part in zip(names, parts, strict=True)}
    return ours


def _require_counting(form: ReleaseForm, source: str) -> None:
    for name, buffer in form.buffers.items():
        if not torch.equal(buffer, torch.arange(buffer.numel()).view(1, -1)):
            raise UserError(f"{name} of {source} does not count from 0", wanted="positions in order")


def to_release(state: Mapping[str, Tensor]) -> State:
    """Return a model's weights under the release's names, without prefix."""
    named = {name: theirs for theirs in _their_names(state) for name in _names_of_ours(theirs)}
    theirs: dict[str, list[Tensor]] = {}
    for ours, name in named.items():
        theirs.setdefault(name, []).append(state[ours])
    return {name: torch.cat(parts) if len(parts) > 1 else parts[0] for name, parts in theirs.items()}


def content_of(model_state: Mapping[str, Tensor], form: ReleaseForm) -> Any:
    """Return the content of a released file: the model's weights in the form of the file that they came from."""
    return content_in_form(to_release(model_state), form)


def content_in_form(released: Mapping[str, Tensor], form: ReleaseForm) -> Any:
    """Return the content of a file of weights that have the release's names already."""
    state = {**released, **form.buffers}
    order = [*(key for key in form.dtypes if key in state), *(key for key in state if key not in form.dtypes)]
    flat = {
        f"{form.prefix}{key}": state[key].detach().cpu().to(form.dtypes.get(key, torch.float32)).contiguous()
        for key in order
    }
    return flat if form.around is None else {"state_dict": flat, **form.around}


def _names_of_ours(theirs: str) -> tuple[str, ...]:
    """Return our names, in order, of what is one tensor in a release; a name that is no release's stays."""
    if theirs.startswith(DISTILBERT):
        return ("text_model." + theirs.removeprefix(DISTILBERT),)
    layer = re.match(r"transformer\.resblocks\.(\d+)\.", theirs)
    if layer is None:
        return (_CLIP_TEXT.get(theirs, theirs),)
    general = theirs.replace(f".{layer[1]}.", ".{i}.", 1)
    if general in _CLIP_TEXT_QKV:
        return tuple(name.format(i=layer[1]) for name in _CLIP_TEXT_QKV[general])
    return (_CLIP_TEXT_LAYER.get(general, theirs).format(i=layer[1]),)


def _their_names(ours: Mapping[str, Tensor]) -> list[str]:
    """Return the release's names of a model's weights, each once."""
    if "text_model.embeddings.word_embeddings.weight" in ours:
        return [
            DISTILBERT + name.removeprefix("text_model.") if name.startswith("text_model.") else name for name in ours
        ]
    text = {name: theirs for theirs, name in _CLIP_TEXT.items()}
    layers = {name: theirs for theirs, name in _CLIP_TEXT_LAYER.items()}
    layers |= {name: theirs for theirs, names in _CLIP_TEXT_QKV.items() for name in names}
    names = {}
    for name in ours:
        layer = re.match(r"text_model\.encoder\.layers\.(\d+)\.", name)
        if layer is None:
            names[text.get(name, name)] = None
        else:
            names[layers[name.replace(f".{layer[1]}.", ".{i}.", 1)].format(i=layer[1])] = None
    return list(names)


def _state_in(content: Any) -> Any:
    is_wrapped = isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping)
    return content["state_dict"] if is_wrapped else content


def _stripped(state: Any) -> dict[str, Any]:
    """Return a state without `module.`, where all of its names have it."""
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        return {}
    if all(key.startswith(RELEASE_PREFIX) for key in state):
        return {key.removeprefix(RELEASE_PREFIX): tensor for key, tensor in state.items()}
    return dict(state)
