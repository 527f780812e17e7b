"""How a LLaVA learns to narrate: captions as labels, and the loss of a picture's caption given all its tokens before
(teacher forcing).

Only the caption's tokens and the end token are learned; the prompt and the picture are given. As all clips share one
prompt, a sample is a picture and the labels of its caption.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int64, UInt8
from tokenizers import Tokenizer
from torch import Tensor, nn

from mama_ray.captioning.engines.captioner import picture_side
from mama_ray.captioning.narrator.kind import IGNORED
from mama_ray.captioning.narrator.settings import TrainedParts
from mama_ray.errors import UserError

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor


class CaptionLabels:
    """Turns captions into labels (batch, max_tokens): tokens, end token, then IGNORED.

    Args:
        tokenizer: the model's.
        prompt: rendered, with its one placeholder of the picture.
        end_id: the token that ends a caption.
        max_tokens: a longer caption loses its tail, and its end token with it: it does not end there.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: str, *, end_id: int, max_tokens: int) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer, self._end_id, self._max_tokens = tokenizer, end_id, max_tokens
        # A caption is told apart from a prompt that ends in a word, as LLaVA's `ASSISTANT:`, by a space.
        self._before = prompt if prompt[-1:].isspace() else f"{prompt} "
        self._prompt_ids = tokenizer.encode(prompt).ids

    def __call__(self, captions: Sequence[str]) -> Int64[np.ndarray, "batch tokens"]:
        """Return the labels. Raises UserError where the tokens of the prompt depend on what follows it."""
        labels = np.full((len(captions), self._max_tokens), IGNORED, np.int64)
        start = len(self._prompt_ids)
        for row, caption in zip(labels, captions, strict=True):
            token_ids = self._tokenizer.encode(self._before + caption.strip()).ids
            if token_ids[:start] != self._prompt_ids:
                raise UserError(
                    "the prompt's last token runs into the caption",
                    got=self._before[-20:] + caption[:20],
                    remedy="let the prompt end in a colon or a line break",
                )
            chosen = [*token_ids[start:], self._end_id][: self._max_tokens]
            row[: len(chosen)] = chosen
        return labels


class CaptionLoss(nn.Module):
    """The loss of captions under a narrator, in nats, summed over their tokens.

    Holds the model, so that DDP can wrap the one thing that is called in training.
    """

    prompt_ids: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, model: "LlavaForConditionalGeneration", processor: "LlavaProcessor", prompt: str) -> None:
        super().__init__()
        self.model, self.processor = model, processor
        images = processor.image_processor
        self.register_buffer("prompt_ids", prompt_token_ids(processor, prompt), persistent=False)
        self.register_buffer("mean", torch.tensor(images.image_mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(images.image_std)[:, None, None], persistent=False)

    def forward(
        self, pictures: UInt8[Tensor, "batch side side 3"], labels: Int64[Tensor, "batch tokens"]
    ) -> Float[Tensor, ""]:
        """Return the sum over all tokens that count; 0 where none does."""
        num_tokens = max(int((labels != IGNORED).sum(dim=1).max()), 1)
        labels = labels[:, :num_tokens]  # the longest of the batch, not the longest there may be
        prompts = repeat(self.prompt_ids, "tokens -> batch tokens", batch=len(labels))
        # What stands behind a caption's end is seen by no token that counts.
        answers = labels[:, :-1].clamp_min(0)
        logits = self.model(
            input_ids=torch.cat([prompts, answers], dim=1),
            pixel_values=self.normalise(pictures),
            logits_to_keep=num_tokens,
            use_cache=False,
        ).logits
        return F.cross_entropy(
            rearrange(logits, "batch tokens vocabulary -> (batch tokens) vocabulary").float(),
            rearrange(labels, "batch tokens -> (batch tokens)"),
            ignore_index=IGNORED,
            reduction="sum",
        )

    def normalise(self, pictures: UInt8[Tensor, "batch side side 3"]) -> Float[Tensor, "batch 3 side side"]:
        """Return what the processor makes of pictures of its own size."""
        return (rearrange(pictures, "b h w c -> b c h w").float() / 255 - self.mean) / self.std

    def num_places(self, labels: Int64[Tensor, "batch tokens"]) -> Int64[Tensor, ""]:
        """Return the tokens that count: the mean that is learned from is over these."""
        return (labels != IGNORED).sum()

    @torch.no_grad()
    def narrate(self, pictures: UInt8[Tensor, "batch side side 3"], *, max_tokens: int) -> list[str]:
        """Return the likeliest captions, greedily chosen."""
        prompts = repeat(self.prompt_ids, "tokens -> batch tokens", batch=len(pictures))
        written = self.model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            pixel_values=self.normalise(pictures).to(self.model.dtype),
            max_new_tokens=max_tokens,
            do_sample=False,
        )
        return self.processor.batch_decode(written[:, prompts.shape[1] :], skip_special_tokens=True)


def prompt_token_ids(processor: "LlavaProcessor", prompt: str) -> Int64[Tensor, " tokens"]:
    """Return the prompt as the model sees it, with one token per patch of the picture."""
    side = picture_side(processor)
    blank = np.zeros((side, side, 3), np.uint8)
    return processor(text=prompt, images=blank, return_tensors="pt")["input_ids"][0]


def choose_trained_parts(model: "LlavaForConditionalGeneration", trains: TrainedParts) -> None:
    """Let gradients flow to some parts alone. What the loss cannot reach never trains: DDP would wait for it."""
    used_layers = _num_used_vision_layers(model)
    for name, parameter in model.named_parameters():
        if "vision_tower" in name:
            is_trained = trains == "all" and not _lies_behind(name, used_layers)
        elif "multi_modal_projector" in name:
            is_trained = True
        else:
            is_trained = trains != "projector"
        parameter.requires_grad_(is_trained)


def _num_used_vision_layers(model: "LlavaForConditionalGeneration") -> int:
    """How many of the vision tower's layers the projector's input has passed."""
    num_layers = model.config.vision_config.num_hidden_layers
    chosen = model.config.vision_feature_layer
    # -1 is behind the last layer, 0 before the first.
    return max(layer % (num_layers + 1) for layer in (chosen if isinstance(chosen, list | tuple) else [chosen]))


def _lies_behind(name: str, num_layers: int) -> bool:
    if "post_layernorm" in name or ".head." in name:
        return True
    _, _, rest = name.partition(".layers.")
    return rest != "" and int(rest.split(".")[0]) >= num_layers
