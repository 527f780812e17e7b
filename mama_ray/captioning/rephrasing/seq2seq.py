"""The decoder of a T5 with its key-value cache: tokens in, log-probabilities of the next out."""

import time
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from mama_ray.errors import UserError


class CachedDecoder:
    """Encodes texts once and decodes `rows_per_text` sequences of each, a token at a time.

    Args:
        model: a `transformers` seq2seq model in evaluation mode.
        input_ids: of the texts, padded behind.
        attention_mask: 1 for tokens, 0 for padding.
        rows_per_text: sequences of each text; row r belongs to text r // rows_per_text.

    Attributes:
        last_step_s: when it last began a step, by `time.monotonic()`.
    """

    def __init__(
        self,
        model: Any,
        input_ids: Int[Tensor, "texts tokens"],
        attention_mask: Int[Tensor, "texts tokens"],
        rows_per_text: int,
    ) -> None:
        from transformers.cache_utils import DynamicCache, EncoderDecoderCache
        from transformers.modeling_outputs import BaseModelOutput

        self._model = model
        encoded = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        self._encoded = BaseModelOutput(last_hidden_state=encoded.repeat_interleave(rows_per_text, dim=0))
        self._mask = attention_mask.repeat_interleave(rows_per_text, dim=0)
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.num_texts, self.device = len(input_ids), input_ids.device
        self.last_step_s = time.monotonic()

    def step(self, token_ids: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        """Read the newest token of every row; return the log-probabilities of the next, in float32.

        Raises UserError where they are no numbers: T5s overflow in float16.
        """
        self.last_step_s = time.monotonic()
        output = self._model(
            encoder_outputs=self._encoded,
            attention_mask=self._mask,
            decoder_input_ids=token_ids[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        log_probs = output.logits[:, -1].float().log_softmax(dim=-1)
        if log_probs[:, 0].isnan().any():  # one that is NaN makes all of its row so
            raise UserError(
                "the rephraser computes no numbers",
                got=f"weights in {self._model.dtype}",
                remedy="take --engine.dtype bfloat16 or float32 if it is float16, and else other weights",
            )
        return log_probs

    def reorder(self, rows: Int[Tensor, " rows"]) -> None:
        """Let row r go on from what row `rows[r]` has read; both are of one text, whose encoding they share."""
        own: Any = self._cache.self_attention_cache
        own.reorder_cache(rows)
