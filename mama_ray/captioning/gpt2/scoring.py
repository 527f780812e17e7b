"""Scores of texts that a narrator could have written: the true log-probability, and what LaViLa's release calls one."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.func import functional_call

from mama_ray.models.narrator.gpt2 import GatedGpt2
from mama_ray.models.narrator.model import GatedNarrator


@torch.inference_mode()
def token_logprobs(
    model: GatedNarrator, visual: Float[Tensor, "batch queries width"], token_ids: Int64[Tensor, "batch tokens"]
) -> Float[Tensor, "batch later"]:
    """Return the log-probability, in nats, of each token behind the first, given the tokens before it and the clip
    (teacher forcing), under the model's own distribution: no temperature, no filter."""
    logprobs = model(visual, token_ids[:, :-1]).float().log_softmax(dim=-1)
    return logprobs.gather(2, token_ids[:, 1:, None])[..., 0]


def legacy_perplexity(
    model: GatedNarrator, visual: Float[Tensor, "batch queries width"], token_ids: Int64[Tensor, "batch tokens"]
) -> Float[Tensor, " batch"]:
    """Return what LaViLa's release gives with a target under the name of a NLL: exp of the mean cross-entropy.

    Of texts that it wrote itself the release gives exp of the mean entropy instead: `Written.legacy_perplexity`.
    """
    return (-token_logprobs(model, visual, token_ids)).mean(dim=1).exp()


@torch.inference_mode()
def exact_logits(
    decoder: GatedGpt2,
    visual: Float[Tensor, "batch queries width"],
    token_ids: Int64[Tensor, "batch tokens"],
    lengths: Int64[Tensor, " batch"],
) -> Float[Tensor, "batch vocab"]:
    """Return the logits behind the last token of each row, in double precision; rows are padded behind their length.

    The weights are widened a layer at a time, so that no second copy of the model is held.
    """
    hidden = decoder.embed_exactly(token_ids)
    visual = visual.double()
    for layer in decoder.layers:
        wide = {name: parameter.double() for name, parameter in layer.named_parameters()}
        hidden = functional_call(layer, wide, (hidden, visual))
    last = hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
    return decoder.logits_exactly(last)
