"""Checkpoint key layouts, each mapped to this model's names by an explicit list; whatever is left over is an error.

Layouts: Hugging Face's CLIPModel (ours without `NEW_KEYS`) and the released CLIP-ViP checkpoints (ours behind
`clipmodel.`). Old files of both carry the `POSITION_IDS` buffers, which are dropped.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mama_ray.errors import UserError
from mama_ray.models.clip_vip.model import ClipVipConfig
from mama_ray.models.transformer import EncoderConfig
from mama_ray.models.weight_files import LoadReport, State, compare_states, is_flat, name_some

TEMPORAL_KEY = "vision_model.embeddings.temporal_embedding"
POSITION_KEY = "vision_model.embeddings.position_embedding.weight"
NEW_KEYS = ("vision_model.embeddings.added_cls", TEMPORAL_KEY)
POSITION_IDS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
RELEASE_PREFIX = "clipmodel."
CLIP_HEAD_WIDTH = 64


def load_state(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    may_be_fresh: tuple[str, ...] = (),
    interpolated: tuple[str, ...] = (),
) -> LoadReport:
    """Copy weights into a model, cast to its dtype; UserError unless keys and shapes match but for `may_be_fresh`."""
    wanted = model.state_dict()
    dropped = tuple(key for key in POSITION_IDS if key in state)
    state = {key: tensor for key, tensor in state.items() if key not in POSITION_IDS}
    report = compare_states(wanted, state, may_be_fresh=may_be_fresh, dropped=dropped, interpolated=interpolated)
    report.raise_if_incomplete(source)
    model.load_state_dict(wanted | state, strict=True)
    return report


def strip_release_layout(content: Any, source: str) -> State:
    """Map a released CLIP-ViP checkpoint to this model's names; UserError for any other layout.

    Known wrappings, taken off in this order: {"model": state}, `module.` and `clipmodel.` before every key.
    """
    if isinstance(content, Mapping) and set(content) == {"model"}:
        content = content["model"]
    if not is_flat(content):
        raise UserError(
            f"{source} is not a flat state dict", wanted="names mapped to tensors, or {'model': such a dict}"
        )
    state = dict(content)
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    foreign = sorted(key for key in state if not key.startswith(RELEASE_PREFIX))
    if foreign:
        raise UserError(
            f"{source} is not in the released CLIP-ViP layout",
            got=name_some(foreign),
            wanted=f"every key to start with {RELEASE_PREFIX!r}",
        )
    return {key.removeprefix(RELEASE_PREFIX): tensor for key, tensor in state.items()}


def config_of_release(state: State, source: str) -> ClipVipConfig:
    """Read the model's sizes off the shapes of a stripped release; the heads are 64 wide, as in every CLIP."""
    try:
        patch_size = state["vision_model.embeddings.patch_embedding.weight"].shape[-1]
        vocab_size, _ = state["text_model.embeddings.token_embedding.weight"].shape
        grid = round((state[POSITION_KEY].shape[0] - 1) ** 0.5)
        return ClipVipConfig(
            video=_tower_of_release(state, "vision_model"),
            text=_tower_of_release(state, "text_model"),
            dim=state["visual_projection.weight"].shape[0],
            image_size=grid * patch_size,
            patch_size=patch_size,
            num_frames=state[TEMPORAL_KEY].shape[1],
            num_proxies=state["vision_model.embeddings.added_cls"].shape[0] + 1,
            vocab_size=vocab_size,
            context_length=state["text_model.embeddings.position_embedding.weight"].shape[0],
        )
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(
            f"{source} does not show the sizes of a CLIP-ViP model",
            got=f"{type(error).__name__} {error}",
            wanted="the keys and shapes of the release",
        ) from error


def _tower_of_release(state: State, tower: str) -> EncoderConfig:
    hidden_width, width = state[f"{tower}.encoder.layers.0.mlp.fc1.weight"].shape
    layers = {m[1] for key in state if (m := re.match(rf"{tower}\.encoder\.layers\.(\d+)\.", key))}
    return EncoderConfig(
        width=width, num_layers=len(layers), num_heads=max(1, width // CLIP_HEAD_WIDTH), mlp_ratio=hidden_width // width
    )
