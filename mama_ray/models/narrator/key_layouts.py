"""The layouts that a gated narrator's weights come in: LaViLa's released checkpoints and Hugging Face's GPT-2.

The model has the release's names, so only what older versions wrote besides weights is dropped: each attention's
causal mask and the number that it put elsewhere. The output matrix, which is that of the token embeddings, is in a file
twice and in the model once.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mama_ray.errors import UserError, unknown_name
from mama_ray.models.narrator.config import POOLER_HEAD_WIDTH, Activation, GatedNarratorConfig, Gpt2Config
from mama_ray.models.timesformer.key_layouts import (
    HEAD_WIDTH,
    RELEASE_MARK,
    ReleaseForm,
    content_in_form,
    pixels_of_release,
    read_release,
    video_sizes,
)
from mama_ray.models.weight_files import State, compare_states

LANGUAGE = "text_decoder."
EMBEDDINGS, OUTPUT = "transformer.wte.weight", "lm_head.weight"
_MARK = "img_attn_pool.to_q.weight"  # which no other file of LaViLa has
_BUFFER = re.compile(r"(?:.*\.)?h\.\d+\.(?:attn|crossattention)\.(bias|masked_bias)")
_LAYER = re.compile(r"text_decoder\.transformer\.h\.(\d+)\.")
_CROSSES = re.compile(r"text_decoder\.transformer\.h\.(\d+)\.alpha_cattn")
_ACTIVATIONS: tuple[Activation, ...] = ("gelu_new", "gelu_pytorch_tanh", "gelu", "relu", "silu", "tanh")


def is_buffer(name: str) -> bool:
    """Tell whether a key is what older transformers wrote beside the weights of an attention."""
    return _BUFFER.fullmatch(name) is not None


def is_release(content: Any) -> bool:
    """Return whether a file's content is a narrator in LaViLa's layout."""
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    keys = [key.removeprefix("module.") for key in state if isinstance(key, str)] if isinstance(state, Mapping) else []
    return _MARK in keys and any(RELEASE_MARK.match(key) for key in keys)


def read_narrator_release(content: Any, source: str) -> tuple[State, ReleaseForm]:
    """Return a released narrator's tensors under the release's names without prefix, and the file's form.

    The causal masks must be what they are called, and the output matrix that of the embeddings; else a UserError.
    """
    state, form = read_release(content, source, is_buffer)
    _require_causal(form.buffers, source)
    return without_output(state, LANGUAGE, source), form


def config_of_release(state: State, form: ReleaseForm, source: str) -> GatedNarratorConfig:
    """Read the model's sizes off the shapes of a stripped release, and its pixel constants off how it was trained."""
    try:
        vocab_size, width = state[f"{LANGUAGE}{EMBEDDINGS}"].shape
        num_layers = len({found[1] for key in state if (found := _LAYER.match(key))})
        crossed = sorted({int(found[1]) for key in state if (found := _CROSSES.match(key))})
        inner_width = state[f"{LANGUAGE}transformer.h.0.mlp.c_fc.weight"].shape[1]
        num_positions = state[f"{LANGUAGE}transformer.wpe.weight"].shape[0]
        language = Gpt2Config(
            width=width,
            num_layers=num_layers,
            num_heads=max(1, width // HEAD_WIDTH),
            inner_width=None if inner_width == 4 * width else inner_width,
            vocab_size=vocab_size,
            num_positions=num_positions,
        )
        config = GatedNarratorConfig(
            language=language,
            num_queries=state["img_queries"].shape[0],
            pooler_heads=state[_MARK].shape[0] // POOLER_HEAD_WIDTH,
            cross_every=crossed[1] if len(crossed) > 1 else num_layers,
            context_length=min(77, num_positions),  # as the release tokenizes
            bos_id=vocab_size - 1,  # GPT-2's <|endoftext|> is its last
            eos_id=vocab_size - 1,
            **video_sizes(state),
            **pixels_of_release(form),
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise UserError(
            f"{source} does not show the sizes of a gated narrator",
            got=f"{type(error).__name__} {error}",
            wanted="the keys and shapes of LaViLa's release",
        ) from error
    return config


def content_of(model_state: Mapping[str, Tensor], form: ReleaseForm) -> Any:
    """Return the content of a released file: the weights in the form of the file that they came from, whose masks of
    older transformers come back where it had them."""
    embeddings = f"{LANGUAGE}{EMBEDDINGS}"
    released = dict(model_state)
    released.setdefault(f"{LANGUAGE}{OUTPUT}", released[embeddings])
    if form.dtypes and f"{LANGUAGE}{OUTPUT}" not in form.dtypes:
        del released[f"{LANGUAGE}{OUTPUT}"]
    return content_in_form(released, form)


def gpt2_config(content: Mapping[str, Any], source: str) -> Gpt2Config:
    """Return the sizes that the config.json of a Hugging Face GPT-2 names; UserError for another model, and for what a
    GPT-2 of this package does not compute."""
    if content.get("model_type") != "gpt2":
        raise UserError(f"{source} is no GPT-2", got=content.get("model_type"), wanted="model_type gpt2")
    activation = content.get("activation_function", "gelu_new")
    if activation not in _ACTIVATIONS:
        raise unknown_name(f"activation_function of {source}", str(activation), _ACTIVATIONS)
    fields = {"width": "n_embd", "num_layers": "n_layer", "num_heads": "n_head", "inner_width": "n_inner"}
    fields |= {"vocab_size": "vocab_size", "num_positions": "n_positions", "layer_norm_eps": "layer_norm_epsilon"}
    fields |= {"embedding_dropout": "embd_pdrop", "attention_dropout": "attn_pdrop", "residual_dropout": "resid_pdrop"}
    fields |= {"scale_attention": "scale_attn_weights", "scale_by_layer": "scale_attn_by_inverse_layer_idx"}
    fields |= {"is_tied": "tie_word_embeddings", "init_std": "initializer_range"}
    found = {ours: content[theirs] for ours, theirs in fields.items() if content.get(theirs) is not None}
    try:
        return Gpt2Config.model_validate(found | {"activation": activation})
    except ValueError as error:
        raise UserError(f"{source} is no config of a GPT-2", got=" ".join(str(error).split())[:300]) from error


def gpt2_state(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], config: Gpt2Config, source: str) -> State:
    """Return a Hugging Face GPT-2's weights under the names of `wanted`, a GatedGpt2's; those of the gated blocks are
    not among them. A file of GPT2Model has no `transformer.` before its names."""
    _require_causal({name: tensor for name, tensor in state.items() if is_buffer(name)}, source)
    state = {name: tensor for name, tensor in state.items() if not is_buffer(name)}
    if "wte.weight" in state:
        state = {name if name == OUTPUT else f"transformer.{name}": tensor for name, tensor in state.items()}
    if config.is_tied:
        state = without_output(state, "", source)
    new = [name for name in wanted if re.search(r"crossattention|ln_cross_attn|alpha_", name)]
    compare_states(wanted, state, may_be_fresh=new).raise_if_incomplete(source)
    return state


def without_output(state: Mapping[str, Tensor], prefix: str, source: str) -> State:
    """Return a state without the output matrix of a tied GPT-2; UserError where it is not that of the embeddings."""
    kept = {name: tensor for name, tensor in state.items() if name != f"{prefix}{OUTPUT}"}
    output, embeddings = state.get(f"{prefix}{OUTPUT}"), kept.get(f"{prefix}{EMBEDDINGS}")
    if output is not None and embeddings is not None and not torch.equal(output, embeddings):
        raise UserError(
            f"{source} has an output matrix of its own", got=f"{prefix}{OUTPUT}",
            wanted="that of the token embeddings", remedy="set tie_word_embeddings to false in its config.json",
        )  # fmt: skip
    return kept


def _require_causal(buffers: Mapping[str, Tensor], source: str) -> None:
    """Raise UserError for a mask that hides another thing than what comes later: the weights were not made for it."""
    for name, buffer in buffers.items():
        if name.endswith(".masked_bias"):
            is_right = buffer.numel() == 1
        else:
            side = buffer.shape[-1] if buffer.dim() else 0
            is_right = buffer.numel() == side**2 and bool(
                (buffer.reshape(side, side) != 0).equal(torch.ones(side, side, dtype=torch.bool).tril())
            )
        if not is_right:
            raise UserError(f"{name} of {source} is no causal mask", got=tuple(buffer.shape), wanted="a lower triangle")
