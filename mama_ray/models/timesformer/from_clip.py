"""A CLIP folder of Hugging Face as the start of a TimeSformer, or of a joint space-time ViT (`timesformer:`, `joint:`).

Both begin as CLIP's image tower on one frame: the attention over time gives 0, and so does the temporal embedding.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mama_ray.errors import UserError
from mama_ray.models.clip_vip.hf_layout import config_from_hf
from mama_ray.models.clip_vip.key_layouts import POSITION_IDS
from mama_ray.models.clip_vip.load import describe_directory as describe_clip
from mama_ray.models.outline import without_memory
from mama_ray.models.timesformer import load
from mama_ray.models.timesformer.key_layouts import TEMPORAL_KEY
from mama_ray.models.timesformer.model import Timesformer, TimesformerConfig
from mama_ray.models.timesformer.video_tower import AttentionKind
from mama_ray.models.weight_files import LoadReport, State, read_json, read_state

_EMBEDDINGS = "vision_model.embeddings"
_VIDEO = {
    f"{_EMBEDDINGS}.patch_embedding.weight": "visual.patch_embed.proj.weight",
    **{
        f"vision_model.{theirs}.{kind}": f"visual.{ours}.{kind}"
        for theirs, ours in (("pre_layrnorm", "ln_pre"), ("post_layernorm", "norm"))
        for kind in ("weight", "bias")
    },
}
_LAYER = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
# The joint space, and the scale that belongs to it: taken over where the new space is as wide as CLIP's.
_JOINT_SPACE = ("image_projection", "text_projection", "logit_scale")


@dataclass(frozen=True)
class ClipStart:
    """What `models/pretrained.py` asks of a backbone, for CLIP folders that become another model.

    A folder of that model itself, as a run's checkpoint, is loaded as what it is.
    """

    attention: AttentionKind

    @property
    def PRESETS(self) -> Mapping[str, TimesformerConfig]:
        """None: sizes are the folder's."""
        return {}

    def build_fresh(self, config: TimesformerConfig) -> Timesformer:
        """Build a model with new weights."""
        return Timesformer(config)

    def load_directory(
        self, directory: Path, *, interpolate: bool = False, **overrides: Any
    ) -> tuple[Timesformer, LoadReport]:
        """Start from CLIP; what it has no weights for, and a joint space of another width than its, is new."""
        if self._is_own(directory):
            return load.load_directory(directory, interpolate=interpolate, **overrides)
        config = self.describe_directory(directory)
        state = {name: tensor for name, tensor in read_state(directory).items() if name not in POSITION_IDS}
        state = weights_of_clip(state)
        if overrides.get("dim", config.dim) != state["image_projection"].shape[1]:
            state = {name: tensor for name, tensor in state.items() if name not in _JOINT_SPACE}
        fresh = (*_new_weights(config), *(name for name in _JOINT_SPACE if name not in state))
        return load.build_filled(
            config, state, overrides, source=str(directory), interpolate=interpolate, may_be_fresh=fresh
        )

    def trained_overrides(self, directory: Path) -> dict[str, Any]:
        """Keep CLIP's own joint space: a new projection is random."""
        return {} if self._is_own(directory) else {"dim": config_from_hf(directory).dim}

    def describe_directory(self, directory: Path) -> TimesformerConfig:
        """Return the config that `load_directory` would give, with its errors, without reading the weights."""
        if self._is_own(directory):
            return load.describe_directory(directory)
        clip = describe_clip(directory)
        sizes = {name: getattr(clip, name) for name in ("image_size", "patch_size", "vocab_size", "context_length")}
        pixels = {"pixel_mean": clip.pixel_mean, "pixel_std": clip.pixel_std}
        return TimesformerConfig(video=clip.video, text=clip.text, attention=self.attention, **sizes, **pixels)

    def _is_own(self, directory: Path) -> bool:
        """Tell a folder of ours from CLIP's; UserError for any other, and for one of the other attention."""
        model_type = read_json(directory / "config.json").get("model_type")
        if model_type == Timesformer.model_type:
            attention = load.own_config(directory).attention
            if attention != self.attention:
                raise UserError(f"{directory} has another attention", got=attention, wanted=self.attention)
            return True
        if model_type != "clip":
            raise UserError(
                f"{directory} is no start of a TimeSformer", got=model_type, wanted="a CLIPModel folder ('clip')",
                remedy="name a folder or a hub id of CLIP, or leave the prefix out",
            )  # fmt: skip
        return False


def weights_of_clip(state: Mapping[str, torch.Tensor]) -> State:
    """Return a CLIPModel's weights under our names; the text tower's are the same."""
    ours = {_name_of(name): tensor for name, tensor in state.items() if not re.search(r"\.[qkv]_proj\.", name)}
    ours |= {name: tensor for name, tensor in state.items() if name.startswith("text_model.")}
    for name in state:
        if layer := re.fullmatch(r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", name):
            parts = [state[name.replace(".q_proj.", f".{one}_proj.")] for one in "qkv"]
            ours[f"visual.blocks.{layer[1]}.attn.qkv.{layer[2]}"] = torch.cat(parts)
    for theirs, name in (("visual_projection", "image_projection"), ("text_projection", "text_projection")):
        ours[name] = ours.pop(f"{theirs}.weight").T
    ours["visual.cls_token"] = ours.pop(f"{_EMBEDDINGS}.class_embedding")[None, None]
    ours["visual.pos_embed"] = ours.pop(f"{_EMBEDDINGS}.position_embedding.weight")[None]
    return ours


def _name_of(clip: str) -> str:
    layer = re.fullmatch(r"vision_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", clip)
    if layer is None:
        return _VIDEO.get(clip, clip)
    return f"visual.blocks.{layer[1]}.{_LAYER.get(layer[2], layer[2])}.{layer[3]}"


def _new_weights(config: TimesformerConfig) -> list[str]:
    """Names of what no image model has: time."""
    with without_memory():
        names = Timesformer(config).state_dict()
    return [TEMPORAL_KEY, *(name for name in names if re.search(r"\.(timeattn|norm3)\.", name))]
