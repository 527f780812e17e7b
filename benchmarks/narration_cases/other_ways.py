"""How others decode the same narrator: LaViLa's release, and transformers' `generate` with its cache and sampling."""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from transformers import DynamicCache, GenerationMixin, GPT2Config, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from mama_ray.captioning.gpt2.choice import Drawing
from mama_ray.models.attention import attend_heads
from mama_ray.models.narrator.model import GatedNarrator

_APART = "rows tokens (heads dim) -> rows heads tokens dim"
_TOGETHER = "rows heads tokens dim -> rows tokens (heads dim)"


@torch.inference_mode()
def as_the_release(model: GatedNarrator, visual: Tensor, num_samples: int, drawing: Drawing, num_tokens: int) -> Tensor:
    """Return tokens (clips x samples, num_tokens): all of them computed anew for each further one, the visual tokens of
    a clip repeated for its samples, until the last caption could have ended; the release stops early only on request.
    """
    visual = visual.repeat_interleave(num_samples, dim=0)
    tokens = torch.full((len(visual), 1), model.config.bos_id)
    for _ in range(num_tokens):
        scores = model(visual, tokens)[:, -1] / (drawing.temperature or 1.0)
        if drawing.temperature == 0:
            tokens = torch.cat([tokens, scores.argmax(dim=1, keepdim=True)], dim=1)
            continue
        best, ids = scores.sort(dim=1, descending=True)
        shares = best.softmax(dim=1)
        shares = shares.masked_fill(shares.cumsum(dim=1) - shares >= drawing.top_p, 0.0)
        tokens = torch.cat([tokens, ids.gather(1, shares.multinomial(1))], dim=1)
    return tokens[:, 1:]


class GenerateNarrator(PreTrainedModel, GenerationMixin):
    """The same modules behind transformers' `generate`: its loop, its sampling and its DynamicCache.

    The keys and values of the visual tokens are computed once per caption, as `generate` repeats what belongs to an
    input for each of its samples.
    """

    config_class = GPT2Config
    main_input_name = "input_ids"

    def __init__(self, model: GatedNarrator) -> None:
        language = model.config.language
        sizes = {"n_embd": language.width, "n_layer": language.num_layers, "n_head": language.num_heads}
        ends = {"bos_token_id": model.config.bos_id, "eos_token_id": model.config.eos_id}
        super().__init__(
            GPT2Config(vocab_size=language.vocab_size, n_positions=language.num_positions, **sizes, **ends)
        )
        self.decoder, self.num_heads = model.text_decoder, language.num_heads
        self.generation_config.pad_token_id = model.config.eos_id

    def forward(
        self, input_ids: Tensor, visual: Tensor, past_key_values: DynamicCache | None = None, **_: Any
    ) -> CausalLMOutputWithPast:
        """Return the logits of the last token."""
        past_key_values = DynamicCache() if past_key_values is None else past_key_values
        num_past = past_key_values.get_seq_length()
        if num_past == 0:
            self.seen = [one.crossattention.keys_values(visual) if one.crosses else None for one in self.decoder.layers]
        positions = torch.arange(num_past, num_past + input_ids.shape[1])
        hidden = self.decoder.embed(input_ids, positions)
        for number, (layer, seen) in enumerate(zip(self.decoder.layers, self.seen, strict=True)):

            def over_text(queries: Tensor, keys: Tensor, values: Tensor, number: int = number) -> Tensor:
                apart = [rearrange(one, _APART, heads=self.num_heads) for one in (queries, keys, values)]
                kept = past_key_values.update(*apart[1:], number)
                return rearrange(attend_heads(apart[0], *kept, is_causal=queries.shape[1] > 1), _TOGETHER)

            over_visual = (
                None if seen is None else lambda asked, layer=layer, seen=seen: layer.crossattention.over(*seen, asked)
            )
            hidden = layer.run(hidden, over_text, over_visual)
        return CausalLMOutputWithPast(logits=self.decoder.logits(hidden[:, -1:]), past_key_values=past_key_values)


@torch.inference_mode()
def by_generate(
    model: GenerateNarrator, visual: Tensor, num_samples: int, drawing: Drawing, num_tokens: int, *, to_the_end: bool
) -> Tensor:
    """Return tokens (clips x samples, up to num_tokens); with `to_the_end` none ends before."""
    start = torch.full((len(visual), 1), model.config.bos_token_id)
    ways: dict[str, Any] = {"do_sample": False}
    if drawing.temperature:
        ways = {"do_sample": True, "temperature": drawing.temperature, "top_p": drawing.top_p, "top_k": 0}
    if to_the_end:
        ways["min_new_tokens"] = num_tokens
    written = model.generate(
        start,
        visual=visual,
        attention_mask=torch.ones_like(start),
        max_new_tokens=num_tokens,
        num_return_sequences=num_samples,
        use_cache=True,
        **ways,
    )
    return written[:, 1:]
