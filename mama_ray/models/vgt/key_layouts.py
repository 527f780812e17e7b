"""VGT's released checkpoints: our names behind `module.`, without a logit scale; whatever is left over is an error."""

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor, nn

from mama_ray.errors import UserError
from mama_ray.models.vgt.language import TextConfig
from mama_ray.models.vgt.model import VgtConfig
from mama_ray.models.weight_files import LoadReport, State, compare_states, is_flat, name_some

RELEASE_PREFIX = "module."
# What the release has no weight for; at export it is left out.
NEW_KEYS = ("logit_scale",)
# A buffer of older transformers, which counts from 0.
DROPPED_KEYS = ("amodel.bert.bert.embeddings.position_ids",)
EDGE_TRANSFORMERS = ("graph_trans", "graph_trans_n")
HEAD_WIDTH = 64  # of BERT and RoBERTa; VGT's own transformers have 8 heads and the edges' 5

# Every key of a release, with {i} a layer, {edge} one of EDGE_TRANSFORMERS; the heads of the pre-training may lack.
_LINEAR = ("weight", "bias")
_BLOCK = tuple(
    f"layer.{{i}}.{part}.{kind}"
    for part in (
        *(f"attention.{name}_lin" for name in "qkv"),
        "attention.out_lin",
        "sa_layer_norm",
        "ffn.lin1",
        "ffn.lin2",
        "output_layer_norm",
    )
    for kind in _LINEAR
)
_BERT_LAYER = tuple(
    f"encoder.layer.{{i}}.{part}.{kind}"
    for part in (
        *(f"attention.self.{name}" for name in ("query", "key", "value")),
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    )
    for kind in _LINEAR
)
_BERT = (
    *(f"embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type")),
    "embeddings.LayerNorm.weight",
    "embeddings.LayerNorm.bias",
    *_BERT_LAYER,
    "pooler.dense.weight",
    "pooler.dense.bias",
)
_BATCH_NORM = (*_LINEAR, "running_mean", "running_var", "num_batches_tracked")
RELEASE_KEYS = (
    *(f"encode_vid.bbox_conv.{place}.{kind}" for place in (0, 3) for kind in _LINEAR),
    *(f"encode_vid.bbox_conv.{place}.{kind}" for place in (1, 4) for kind in _BATCH_NORM),
    *(
        f"{part}.{kind}"
        for part in (
            *("encode_vid.tohid.0", "linear_video", "norm_video", "position_v.LayerNorm", "vqproj.1", "merge_fr.0"),
            *("satt_pool.0", "satt_pool.2", "gnn.fc_k", "gnn.fc_q", "gnn.layers.0", "gnn.layers.1"),
            "amodel.linear_text",
        )
        for kind in _LINEAR
    ),
    "position_v.position_embeddings.weight",
    "position_v.modality_embedding.weight",
    *(f"{transformer}.{key}" for transformer in ("mmt", "ttrans", "{edge}") for key in _BLOCK),
    *(f"amodel.bert.bert.{key}" for key in _BERT),
)
PRETRAINING_KEYS = tuple(
    f"{head}.{kind}"
    for head in ("vocab_transform", "vocab_norm", "vocab_projector", "crossmodal_matching")
    for kind in _LINEAR
)


def release_keys(config: VgtConfig) -> set[str]:
    """Return the keys of a release of this size, without the prefix."""
    layers = {True: config.text.num_layers, False: config.num_layers}
    heads = PRETRAINING_KEYS if config.has_pretraining_heads else ()
    return {
        key.format(i=i, edge=config.edge_transformer)
        for key in (*RELEASE_KEYS, *heads)
        for i in range(layers[key.startswith("amodel.")])
    }


def load_state(
    model: nn.Module, state: Mapping[str, Tensor], *, source: str, may_be_fresh: tuple[str, ...] = ()
) -> LoadReport:
    """Copy weights into a model, cast to its dtype; UserError unless keys and shapes match but for `may_be_fresh`."""
    wanted = model.state_dict()
    dropped = tuple(key for key in DROPPED_KEYS if key in state)
    state = {key: tensor for key, tensor in state.items() if key not in DROPPED_KEYS}
    report = compare_states(wanted, state, may_be_fresh=may_be_fresh, dropped=dropped)
    report.raise_if_incomplete(source)
    model.load_state_dict(wanted | state, strict=True)
    return report


def is_release(content: Any) -> bool:
    """Return whether a file's content is in VGT's layout, with or without the prefix."""
    return isinstance(content, Mapping) and any(
        isinstance(key, str) and key.removeprefix(RELEASE_PREFIX).startswith("encode_vid.bbox_conv.") for key in content
    )


def strip_release_layout(content: Any, source: str) -> State:
    """Map a released checkpoint to this model's names; UserError where it is no flat dict of tensors."""
    if not is_flat(content):
        raise UserError(f"{source} is not a flat state dict", wanted="names mapped to tensors")
    has_prefix = [key.startswith(RELEASE_PREFIX) for key in content]
    if any(has_prefix) and not all(has_prefix):
        foreign = sorted(key for key in content if not key.startswith(RELEASE_PREFIX))
        raise UserError(
            f"{source} is not in VGT's layout", got=name_some(foreign), wanted=f"every key behind {RELEASE_PREFIX!r}"
        )
    return {key.removeprefix(RELEASE_PREFIX): tensor for key, tensor in content.items()}


def to_release_layout(state: Mapping[str, Tensor]) -> State:
    """Return a model's weights under the release's names: all but `NEW_KEYS`."""
    return {f"{RELEASE_PREFIX}{key}": tensor for key, tensor in state.items() if key not in NEW_KEYS}


def config_of_release(state: State, source: str) -> VgtConfig:
    """Read the model's sizes off the shapes of a stripped release; heads and dropout are the published ones."""
    try:
        edge = next(name for name in EDGE_TRANSFORMERS if f"{name}.layer.0.ffn.lin1.weight" in state)
        ff_width, edge_width = state[f"{edge}.layer.0.ffn.lin1.weight"].shape
        box_width = state["encode_vid.bbox_conv.0.weight"].shape[0]
        width, region_and_box = state["encode_vid.tohid.0.weight"].shape
        words = state["amodel.bert.bert.embeddings.word_embeddings.weight"]
        return VgtConfig(
            text=_text_of_release(state, words.shape[1]),
            vocab_size=words.shape[0],
            num_regions=isqrt(edge_width),
            frame_dim=state["linear_video.weight"].shape[1],
            region_dim=region_and_box - box_width,
            box_width=box_width,
            width=width,
            ff_width=ff_width,
            num_layers=_num_layers(state, "ttrans.layer"),
            edge_transformer=edge,
            has_pretraining_heads=any(key in state for key in PRETRAINING_KEYS),
        )
    except (KeyError, ValueError, IndexError, StopIteration) as error:
        raise UserError(
            f"{source} does not show the sizes of a VGT model",
            got=f"{type(error).__name__} {error}",
            wanted="the keys and shapes of the release",
        ) from error


def _text_of_release(state: State, width: int) -> TextConfig:
    bert = "amodel.bert.bert"
    num_positions = state[f"{bert}.embeddings.position_embeddings.weight"].shape[0]
    num_token_types = state[f"{bert}.embeddings.token_type_embeddings.weight"].shape[0]
    is_roberta = num_token_types == 1
    return TextConfig(
        kind="roberta" if is_roberta else "bert",
        width=width,
        num_layers=_num_layers(state, f"{bert}.encoder.layer"),
        num_heads=max(1, width // HEAD_WIDTH),
        ff_width=state[f"{bert}.encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_positions=num_positions,
        num_token_types=num_token_types,
        pad_token_id=1 if is_roberta else 0,
        layer_norm_eps=1e-5 if is_roberta else 1e-12,
    )


def _num_layers(state: State, stack: str) -> int:
    return len({found[1] for key in state if (found := re.match(rf"{re.escape(stack)}\.(\d+)\.", key))})
