"""Diverse beams against those of transformers 4.46.3, of the last releases that had them without remote code.

`group_beams.json` holds what its `generate(num_beam_groups=, diversity_penalty=)` found for the model below, whose
weights come from a generator that no library's version changes. Compared are whole candidates: where an answer is cut
off, the two versions of transformers themselves differ.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mama_ray.captioning.rephrasing.beams import diverse_beams
from mama_ray.captioning.rephrasing.seq2seq import CachedDecoder
from mama_ray.captioning.rephrasing.settings import DecodingConfig

PUBLISHED = json.loads(Path(__file__).with_name("group_beams.json").read_text())
SIZES = {"vocab_size": 40, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
START, END, MAX_NEW_TOKENS = 0, 1, 24
LENGTHS = (9, 3, 6, 9, 1, 7)


def fixed_model():
    """Return a T5 with weights drawn by NumPy's legacy generator in the order of their names."""
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(T5Config(**SIZES)).eval()
    rng = np.random.RandomState(0)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            values = torch.from_numpy(rng.standard_normal(parameter.shape)).float()
            scale = 1.0 if parameter.ndim == 1 else 2.5 * (1.0 if "shared" in name else parameter.shape[1] ** -0.5)
            parameter.copy_(values * scale + float(parameter.ndim == 1))
    # As trained models do: it never says the start, and ends by and by.
    bias = torch.zeros(SIZES["vocab_size"])
    bias[START], bias[END] = -1000.0, 6.0
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + bias)
    return model


def fixed_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    token_ids = torch.from_numpy(np.random.RandomState(1).randint(2, SIZES["vocab_size"], (len(LENGTHS), max(LENGTHS))))
    mask = (torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]).long()
    return token_ids.long() * mask, mask


@pytest.mark.parametrize("case", PUBLISHED["cases"], ids=lambda case: "{num_beams}-{num_beam_groups}".format(**case))
def test_whole_candidates_and_their_scores_are_those_of_the_published_search(case):
    decoding = DecodingConfig(
        num_kept=1,
        num_beams=case["num_beams"],
        num_groups=case["num_beam_groups"],
        diversity_penalty=case["diversity_penalty"],
        early_stopping=case["early_stopping"],
        max_length=MAX_NEW_TOKENS,
    )
    token_ids, mask = fixed_inputs()
    decoder = CachedDecoder(fixed_model(), token_ids, mask, decoding.num_beams)
    found = diverse_beams(decoder, start_id=START, eos_ids=(END,), decoding=decoding)
    told = [sorted((list(one.token_ids), one.score) for one in own if one.is_whole) for own in found]
    wanted = [sorted((tokens, score) for tokens, score in own) for own in case["candidates"]]
    assert [[tokens for tokens, _ in own] for own in told] == [[tokens for tokens, _ in own] for own in wanted]
    for own, theirs in zip(told, wanted, strict=True):
        assert [score for _, score in own] == pytest.approx([score for _, score in theirs], abs=1e-3)
    assert sum(len({*map(tuple, (tokens for tokens, _ in own))}) for own in wanted) > len(LENGTHS)
