"""open_clip's CLIP and training step, of the sizes of one of our models, and its weights under our names."""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mama_ray.data.batch import ClipBatch
from mama_ray.models.clip_vip.model import ClipVipConfig
from mama_ray.training.settings import OptimConfig


@cache
def _peer() -> types.ModuleType:
    """Import the peer's model and loss, also where torchvision is not installed, as on machines without a GPU.

    Its package imports torchvision for the preparation of images, and its models one class of it, for ResNets that are
    frozen: no step of a transformer uses either. So the package's own start is left out, and a class takes the name.
    """
    if importlib.util.find_spec("torchvision") is not None:
        return importlib.import_module("open_clip")
    importlib.import_module("transformers")  # it looks for torchvision, and must not find this one
    package = types.ModuleType("open_clip")
    package.__path__ = list(importlib.util.find_spec("open_clip").submodule_search_locations)
    stand_ins = {name: types.ModuleType(name) for name in ("torchvision", "torchvision.ops", "torchvision.ops.misc")}
    vars(stand_ins["torchvision.ops.misc"])["FrozenBatchNorm2d"] = type("FrozenBatchNorm2d", (), {})
    sys.modules.update(stand_ins, open_clip=package)
    try:
        for module in ("open_clip.model", "open_clip.loss"):
            vars(package).update(vars(importlib.import_module(module)))
    finally:
        for name in (*stand_ins, "open_clip"):
            del sys.modules[name]
    return package


def is_installed() -> bool:
    """Tell whether there is a peer to compare with."""
    return importlib.util.find_spec("open_clip") is not None


def build_peer(config: ClipVipConfig) -> nn.Module:
    """Build open_clip's CLIP of the same towers, with its own random weights."""
    video, text, peer = config.video, config.text, _peer()
    vision = peer.CLIPVisionCfg(
        layers=video.num_layers,
        width=video.width,
        head_width=video.width // video.num_heads,
        mlp_ratio=float(video.mlp_ratio),
        patch_size=config.patch_size,
        image_size=config.image_size,
    )
    words = peer.CLIPTextCfg(
        context_length=config.context_length,
        vocab_size=config.vocab_size,
        width=text.width,
        heads=text.num_heads,
        layers=text.num_layers,
        mlp_ratio=float(text.mlp_ratio),
    )
    return peer.CLIP(config.dim, vision, words, quick_gelu=True)


class PeerStep:
    """A step as open_clip's training takes it: forward, loss, backward, clipping, AdamW, bounds of the logit scale.

    Frames of a clip are images of their own, whose features are averaged. Pixels are handed in as its loader makes
    them, normalised and channels first.
    """

    def __init__(self, model: nn.Module, optim: OptimConfig, autocast: Callable = nullcontext) -> None:
        self.model, self._loss, self._autocast = model, _peer().ClipLoss(), autocast
        self._clip_norm, self._max_log_scale = optim.clip_norm, torch.tensor(100.0).log().item()
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        groups = [
            {"params": [one for _, one in named if one.ndim < 2], "weight_decay": 0.0},
            {"params": [one for _, one in named if one.ndim >= 2], "weight_decay": optim.weight_decay},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas)

    def compute_gradients(self, images: Tensor, token_ids: Tensor, num_frames: int) -> Tensor:
        """Return the loss; images: (clips x frames, channels, height, width)."""
        self._optimizer.zero_grad()
        with self._autocast():
            features = self.model.encode_image(images, normalize=num_frames == 1)
            if num_frames > 1:
                features = F.normalize(features.unflatten(0, (-1, num_frames)).mean(1), dim=-1)
            text_features = self.model.encode_text(token_ids, normalize=True)
            loss = self._loss(features, text_features, self.model.logit_scale.exp())
        loss.backward()
        return loss.detach()

    def __call__(self, images: Tensor, token_ids: Tensor, num_frames: int) -> Tensor:
        """Take a step; returns the loss."""
        loss = self.compute_gradients(images, token_ids, num_frames)
        if self._clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        self._optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, self._max_log_scale)
        return loss


def images_of(batch: ClipBatch, config: ClipVipConfig, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the frames as the peer's loader hands them over, (clips x frames, channels, height, width)."""
    mean, std = (torch.tensor(values, dtype=dtype, device=batch.frames.device)[:, None, None] for values in (
        config.pixel_mean, config.pixel_std))  # fmt: skip
    images = rearrange(batch.frames, "batch frames height width c -> (batch frames) c height width")
    return ((images.to(dtype) / 255 - mean) / std).contiguous()


_PLAIN_NAMES = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TRANSPOSED_NAMES = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
_LAYER_NAMES = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip


def under_our_names(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights or gradients of the peer as our model has them: the same numbers, cut and turned.

    What our video tower has beside an image tower is not among them.
    """
    found = {}
    for name, value in values.items():
        if name in _PLAIN_NAMES:
            found[_PLAIN_NAMES[name]] = value
        elif name in _TRANSPOSED_NAMES:
            found[_TRANSPOSED_NAMES[name]] = value.T
        else:
            tower, _, rest = name.partition("transformer.resblocks.")
            number, _, inner = rest.partition(".")
            layer = f"{'vision' if tower else 'text'}_model.encoder.layers.{number}."
            if inner.startswith("attn.in_proj_"):
                for part, projection in zip(value.chunk(3), ("q", "k", "v"), strict=True):
                    found[f"{layer}self_attn.{projection}_proj.{inner.removeprefix('attn.in_proj_')}"] = part
            else:
                module, _, kind = inner.rpartition(".")
                found[f"{layer}{_LAYER_NAMES[module]}.{kind}"] = value
    return found
