"""How a gated narrator learns: captions as labels behind the token that begins them, and their loss given the clip.

    inputs  [begin] a b c           labels  a b c [end]

The mean that is learned from is over the tokens of captions, or as in LaViLa's release ("padded") over all places of
the context: there texts are filled up with token 0, which counts as a place but has no loss, so a real token 0, GPT-2's
"!", is never learned either.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64, UInt8
from tokenizers import Tokenizer
from torch import Tensor, nn

from mama_ray.captioning.gpt2.choice import Drawing
from mama_ray.captioning.gpt2.decoding import Decoder
from mama_ray.captioning.narrator.kind import IGNORED
from mama_ray.captioning.narrator.settings import GatedParts, LossMean
from mama_ray.models.narrator.model import GatedNarrator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_PADDING = 0  # of the release


class GatedLabels:
    """Turns captions into labels (batch, max_tokens): tokens, end token, then IGNORED.

    A longer caption loses its tail, and its end token with it: it does not end there.
    """

    def __init__(self, tokenizer: Tokenizer, end_id: int, *, max_tokens: int) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # "<|endoftext|>" in a caption is no end of it
        self._tokenizer, self._end_id, self._max_tokens = tokenizer, end_id, max_tokens

    def __call__(self, captions: Sequence[str]) -> Int64[np.ndarray, "batch tokens"]:
        """Return the labels."""
        labels = np.full((len(captions), self._max_tokens), IGNORED, np.int64)
        for row, caption in zip(labels, captions, strict=True):
            token_ids = self._tokenizer.encode(caption.strip(), add_special_tokens=False).ids
            chosen = [*token_ids, self._end_id][: self._max_tokens]
            row[: len(chosen)] = chosen
        return labels


class GatedCaptionLoss(nn.Module):
    """The loss of captions under a gated narrator, in nats, summed over their tokens.

    Holds the model, so that DDP can wrap the one thing that is called in training.
    """

    def __init__(self, model: GatedNarrator, tokenizer: "PreTrainedTokenizerFast", *, mean: LossMean) -> None:
        super().__init__()
        self.model, self.tokenizer, self.mean = model, tokenizer, mean

    def forward(
        self, frames: UInt8[Tensor, "batch frames side side 3"], labels: Int64[Tensor, "batch tokens"]
    ) -> Float[Tensor, ""]:
        """Return the sum over all tokens that count; 0 where none does."""
        num_tokens = max(int((labels != IGNORED).sum(dim=1).max()), 1)
        labels = labels[:, :num_tokens]  # the longest of the batch, not the longest there may be
        begin = labels.new_full((len(labels), 1), self.model.config.bos_id)
        # What stands behind a caption's end is seen by no token that counts.
        inputs = torch.cat([begin, labels[:, :-1].clamp_min(0)], dim=1)
        logits = self.model(self.model.encode_visual(frames), inputs)
        if self.mean == "padded":
            labels = labels.masked_fill(labels == _PADDING, IGNORED)
        return F.cross_entropy(
            rearrange(logits, "batch tokens vocabulary -> (batch tokens) vocabulary").float(),
            rearrange(labels, "batch tokens -> (batch tokens)"),
            ignore_index=IGNORED,
            reduction="sum",
        )

    def num_places(self, labels: Int64[Tensor, "batch tokens"]) -> Int64[Tensor, ""]:
        """Return the tokens that count, or as in the release all places of the context behind the first."""
        if self.mean == "padded":
            return labels.new_tensor(len(labels) * (self.model.config.context_length - 1))
        return (labels != IGNORED).sum()

    @torch.no_grad()
    def narrate(self, frames: UInt8[Tensor, "batch frames side side 3"], *, max_tokens: int) -> list[str]:
        """Return the likeliest captions, greedily chosen, by the decoder of the engine that will serve the model."""
        with torch.autocast(frames.device.type, enabled=False):  # its store of keys is of the model's own type
            decoder = Decoder(self.model, Drawing(), max_tokens=max_tokens, num_rows=len(frames))
            for visual in self.model.encode_visual(frames):
                decoder.add(visual, [0])
            written: dict[int, Sequence[int]] = {}
            while decoder.has_work:
                written |= {one.clip: one.token_ids for one in decoder.step()}
        token_ids = [list(written[clip]) for clip in range(len(frames))]
        return self.tokenizer.batch_decode(token_ids, skip_special_tokens=True)


def choose_gated_parts(model: GatedNarrator, trains: GatedParts) -> None:
    """Let gradients flow to some parts alone."""
    if trains == "gated_blocks":
        model.freeze_but_trained_()
        return
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trains == "all" or not name.startswith("visual."))
