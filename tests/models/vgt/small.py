"""A VGT of a few thousand parameters, its inputs, and a twin of its forward pass that loops over everything."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mama_ray.config import with_overrides
from mama_ray.models.vgt.model import Vgt, VgtConfig
from mama_ray.models.vgt.presets import PRESETS

SMALL = {
    **{"text.width": 16, "text.num_layers": 1, "text.pad_token_id": 0, "vocab_size": 40, "context_length": 10},
    **{"width": 16, "box_width": 4, "frame_dim": 6, "region_dim": 8, "num_clips": 3, "num_frames": 6},
}
NO_DROPOUT = {"dropout": 0.0, "text.dropout": 0.0}


def small_config(**fields: Any) -> VgtConfig:
    return with_overrides(PRESETS["vgt_tiny"], SMALL | fields)


def small_model(**fields: Any) -> Vgt:
    """A float64 model none of whose weights or running statistics lies at a value that hides an error."""
    torch.manual_seed(0)
    model = Vgt(small_config(**fields)).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter.add_(0.2 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.add_(0.5 * torch.rand_like(buffer))
    return model


def features(config: VgtConfig, batch: int = 2) -> dict[str, Tensor]:
    clips = (batch, config.num_clips, config.num_frames // config.num_clips)
    regions = torch.randn(*clips, config.num_regions, config.region_dim + 5, dtype=torch.float64)
    return {"frames": torch.randn(*clips, config.frame_dim, dtype=torch.float64), "regions": regions}


def padded_texts(*lengths: int, width: int = 7) -> Tensor:
    """Random texts of these lengths, filled up with 0."""
    ids = torch.randint(1, 40, (len(lengths), width))
    for row, length in enumerate(lengths):
        ids[row, length:] = 0
    return ids


def frames_by_loops(model: Vgt, whole: Tensor, regions: Tensor) -> Tensor:
    """Steps 1 to 7 for one video: (clips, frames, frame_dim), (clips, frames, r, d) to (clips, frames, width)."""
    edges_of = model.get_submodule(model.config.edge_transformer)
    out = []
    for clip, clip_regions in zip(whole, regions, strict=True):
        nodes = torch.stack([torch.stack([_node(model, box) for box in frame]) for frame in clip_regions])
        by_object = [model.ttrans(nodes[None, :, r])[0] for r in range(nodes.shape[1])]
        nodes = torch.stack(by_object, dim=1)
        scores = torch.stack([model.gnn.fc_k(x) @ model.gnn.fc_q(x).T for x in nodes])
        edges = edges_of(scores.flatten(1)[None])[0].reshape(scores.shape)
        for frame, x, e in zip(clip, nodes, edges, strict=True):
            x = x + _graph_by_loops(model.gnn, x, e.softmax(dim=1))
            weights = model.satt_pool[:3](x)[:, 0].exp()
            pooled = sum(w * node for w, node in zip(weights, x, strict=True)) / weights.sum()
            seen = model.norm_video(F.gelu(model.linear_video(frame)))
            out.append(F.elu(model.merge_fr[0](torch.cat([seen, pooled]))))
    return torch.stack(out).reshape(*whole.shape[:2], -1)


def _node(model: Vgt, region: Tensor) -> Tensor:
    """A region's vector, batch statistics from the running ones."""
    feature, box = region[:-5], region[-5:]
    for conv, norm in ((0, 1), (3, 4)):
        conv, norm = model.encode_vid.bbox_conv[conv], model.encode_vid.bbox_conv[norm]
        box = conv.weight[:, :, 0, 0] @ box + conv.bias
        box = (box - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        box = box.clamp(min=0)
    return F.elu(model.encode_vid.tohid[0](torch.cat([feature, box])))


def _graph_by_loops(gnn, nodes: Tensor, edges: Tensor) -> Tensor:
    for layer in gnn.layers:
        nodes = convolved_by_loops(layer, nodes, edges).clamp(min=0)
    return nodes


def convolved_by_loops(layer, nodes: Tensor, edges: Tensor) -> Tensor:
    """Each node: its neighbours' projections by their edges, the bias, its own projection."""
    own = [node @ layer.weight for node in nodes]
    return torch.stack(
        [sum(e * x for e, x in zip(row, own, strict=True)) + layer.bias + own[i] for i, row in enumerate(edges)]
    )


def attended_by_loops(tokens: Tensor, words: Tensor, length: int) -> Tensor:
    rows = []
    for token in tokens:
        weights = torch.stack([(token @ word).exp() for word in words[:length]])
        rows.append(token + sum(w * word for w, word in zip(weights, words, strict=False)) / weights.sum())
    return torch.stack(rows)


def fused_by_loops(model: Vgt, frames: Tensor, candidates: list[Tensor], length: int) -> Tensor:
    """Steps 8 and 9 for one video: (clips, frames, width) and each candidate's words."""
    if model.config.sees_words_in_frames:
        seen = [attended_by_loops(frames.flatten(0, 1), words, length) for words in candidates]
        frames = torch.stack(seen).max(dim=0).values.reshape(frames.shape)
    clips = frames.mean(dim=1)
    clips = torch.stack([attended_by_loops(clips, words, length) for words in candidates]).max(dim=0).values
    positions = model.position_v.position_embeddings.weight[: len(clips)]
    clips = model.mmt(model.position_v.LayerNorm(clips + positions)[None])[0]
    return model.vqproj[1](clips.mean(dim=0))
