"""A decoder writes what a model without a cache writes, for each clip and seed alone, and computes nothing twice."""

import math

import pytest
import torch

from mama_ray.captioning.gpt2 import choice as choice_module
from mama_ray.captioning.gpt2.choice import Drawing, choose, step_keys
from mama_ray.captioning.gpt2.decoding import Decoder, Written
from mama_ray.captioning.gpt2.scoring import exact_logits, legacy_perplexity, token_logprobs
from mama_ray.errors import UserError
from tests.captioning.gpt2.narrators import some_narrator, some_visuals

GREEDY, SAMPLED = Drawing(), Drawing(0.7, top_p=0.95)


@pytest.fixture(scope="module")
def narrator():
    return some_narrator()


@pytest.fixture(scope="module")
def visuals(narrator):
    return some_visuals(narrator, 200)


def written_by(decoder: Decoder, visuals, seeds) -> dict[tuple[int, int], Written]:
    """All captions by (clip, sample), the clips added while the decoder runs."""
    found, clips = [], list(zip(visuals, seeds, strict=True))
    while clips or decoder.has_work:
        while clips and decoder.num_free > 0:
            decoder.add(*clips.pop(0))
        found += decoder.step()
    rows = {(one.clip, one.sample): one for one in found}
    assert len(rows) == len(found)
    return rows


@torch.inference_mode()
def uncached(model, visual, seed: int, drawing: Drawing, max_tokens: int) -> tuple[int, ...]:
    """Compute every token anew for each further one."""
    tokens, keys = [model.config.bos_id], step_keys(seed, max_tokens)
    while len(tokens) <= max_tokens and (len(tokens) == 1 or tokens[-1] != model.config.eos_id):
        logits = model(visual[None], torch.tensor([tokens]))[:, -1]
        tokens.append(choose(logits, drawing, [keys[len(tokens) - 1]]).tokens.item())
    return tuple(tokens[1:])


@pytest.mark.parametrize("drawing", [GREEDY, SAMPLED], ids=["greedy", "seeded"])
def test_cached_equals_uncached_token_for_token(drawing, narrator, visuals):
    decoder = Decoder(narrator, drawing, max_tokens=24, num_rows=64)
    rows = written_by(decoder, visuals, [[place] for place in range(200)])
    lengths = {len(one.token_ids) for one in rows.values()}
    assert len({one.token_ids for one in rows.values()}) > 20 and len(lengths) > 5
    for place, visual in enumerate(visuals):
        assert rows[place, 0].token_ids == uncached(narrator, visual, place, drawing, 24)


def test_batches_of_1_and_64_write_the_same_ten_captions_of_each_clip(narrator, visuals):
    visuals, seeds = visuals[:20], [range(1000 * clip, 1000 * clip + 10) for clip in range(20)]
    many = written_by(Decoder(narrator, SAMPLED, max_tokens=24, num_rows=64), visuals, seeds)
    one = written_by(Decoder(narrator, SAMPLED, max_tokens=24, num_rows=1), visuals, seeds)
    odd = written_by(Decoder(narrator, SAMPLED, max_tokens=24, num_rows=7), visuals[::-1], seeds[::-1])
    assert many.keys() == one.keys() == odd.keys() and len(many) == 200
    for (clip, sample), row in many.items():
        others = one[clip, sample], odd[19 - clip, sample]
        assert all(other.token_ids == row.token_ids for other in others)
        assert all(other.logprob == pytest.approx(row.logprob, abs=1e-4) for other in others)
    assert len({row.token_ids for row in many.values()}) > 100


@pytest.mark.parametrize("drawing", [GREEDY, SAMPLED, Drawing(1.0, top_k=5)], ids=["greedy", "top_p", "top_k"])
def test_a_clip_that_is_no_numbers_ends_at_once_and_changes_no_other(drawing, narrator, visuals):
    clips, seeds = [visuals[0], visuals[1] * math.nan, visuals[2]], [[5, 6], [7, 8], [9]]
    rows = written_by(Decoder(narrator, drawing, max_tokens=24, min_tokens=3, num_rows=3), clips, seeds)
    alone = written_by(Decoder(narrator, drawing, max_tokens=24, min_tokens=3, num_rows=3), clips[::2], seeds[::2])
    assert {key: row.token_ids for key, row in rows.items() if key[0] != 1} == {
        (2 * clip, sample): row.token_ids for (clip, sample), row in alone.items()
    }
    assert all(math.isnan(rows[1, sample].logprob) and len(rows[1, sample].token_ids) == 1 for sample in range(2))


def test_choices_that_are_close_are_settled_in_double_precision_and_change_nothing(narrator, visuals, monkeypatch):
    seeds = [[place, place + 1] for place in range(8)]
    plain = written_by(Decoder(narrator, SAMPLED, max_tokens=12, num_rows=16), visuals[:8], seeds)
    monkeypatch.setattr(choice_module, "_ROUNDINGS", 1e9)  # everything is close
    decoder = Decoder(narrator, SAMPLED, max_tokens=12, num_rows=16)
    settled = written_by(decoder, visuals[:8], seeds)
    assert decoder.counts.num_settled == sum(len(row.token_ids) for row in settled.values())
    assert {key: row.token_ids for key, row in settled.items()} == {key: row.token_ids for key, row in plain.items()}


@torch.inference_mode()
@pytest.mark.parametrize("overrides", [{}, {"language.is_tied": False, "language.activation": "relu"}], ids=str)
def test_exact_logits_are_those_of_the_model_in_double_precision(overrides):
    model = some_narrator(overrides)
    visual = torch.stack(some_visuals(model, 3))
    token_ids = torch.randint(0, 300, (3, 7), generator=torch.Generator().manual_seed(1))
    ours = exact_logits(model.text_decoder, visual, token_ids, torch.tensor([7, 4, 1]))
    theirs = model.double()(visual.double(), token_ids)
    for row, length in enumerate((7, 4, 1)):
        torch.testing.assert_close(ours[row], theirs[row, length - 1], rtol=0, atol=1e-12)


@torch.no_grad()
def test_log_probability_is_that_of_teacher_forcing(narrator, visuals):
    decoder = Decoder(narrator, Drawing(1.3, top_k=40), max_tokens=16, num_rows=64, with_entropy=True)
    rows = written_by(decoder, visuals[:20], [[place] for place in range(20)])
    for (clip, _), row in rows.items():
        token_ids = torch.tensor([[narrator.config.bos_id, *row.token_ids]])
        scored = token_logprobs(narrator, visuals[clip][None], token_ids)
        assert row.logprob == pytest.approx(scored.sum().item(), abs=1e-4)
        assert row.has_ended == (row.token_ids[-1] == narrator.config.eos_id)
        # What the release calls a likelihood is another number.
        target = legacy_perplexity(narrator, visuals[clip][None], token_ids).item()
        assert target == pytest.approx(math.exp(-row.logprob / len(row.token_ids)), rel=1e-4)
        logprobs = narrator(visuals[clip][None], token_ids[:, :-1])[0].log_softmax(dim=-1)
        entropy = -(logprobs.exp() * logprobs).sum(dim=-1).mean().item()
        assert row.legacy_perplexity == pytest.approx(math.exp(entropy), rel=1e-4)


def test_no_row_is_computed_that_nobody_waits_for_and_a_clips_keys_once(narrator, visuals):
    calls = []
    hooks = [
        layer.crossattention.c_attn.register_forward_hook(lambda *_: calls.append(1))
        for layer in narrator.text_decoder.layers
        if layer.crosses
    ]
    decoder = Decoder(narrator, SAMPLED, max_tokens=24, num_rows=16)
    rows = written_by(decoder, visuals[:12], [range(clip, clip + 10) for clip in range(12)])
    for hook in hooks:
        hook.remove()
    num_tokens = sum(len(row.token_ids) for row in rows.values())
    assert len(calls) == 12 * len(hooks) == 24
    assert decoder.counts.num_row_steps == num_tokens
    # Rows are full until the clips run out.
    assert decoder.counts.num_steps <= num_tokens / 16 + 24


def test_min_and_max_tokens_are_kept_and_the_end_is_counted(narrator, visuals):
    limits = {"max_tokens": 8, "min_tokens": 5, "num_rows": 32}
    rows = written_by(Decoder(narrator, SAMPLED, **limits), visuals[:30], [[clip] for clip in range(30)])
    for row in rows.values():
        assert 5 < len(row.token_ids) <= 8 and narrator.config.eos_id not in row.token_ids[:-1]
        assert row.has_ended or len(row.token_ids) == 8
    assert {row.has_ended for row in rows.values()} == {True, False}
    fixed = Decoder(narrator, SAMPLED, max_tokens=8, min_tokens=8, num_rows=32)
    assert {len(row.token_ids) for row in written_by(fixed, visuals[:5], [[1]] * 5).values()} == {8}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_writes_captions_of_the_same_kind(dtype, visuals):
    model = some_narrator().to(dtype)
    decoder = Decoder(model, SAMPLED, max_tokens=12, num_rows=16)
    rows = written_by(decoder, visuals[:8], [[clip] for clip in range(8)])
    assert len(rows) == 8 and decoder.counts.num_settled == 0
    for row in rows.values():
        assert -20 < row.logprob / len(row.token_ids) <= 0


@pytest.mark.parametrize("garbage", [math.nan, math.inf])
def test_memory_that_no_row_has_written_is_never_read(garbage, narrator, visuals, monkeypatch):
    """What torch.empty gives may be anything."""
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, size: torch.full(tuple(size), garbage).to(self))
    rows = written_by(Decoder(narrator, SAMPLED, max_tokens=24, num_rows=5), visuals[:6], [[1, 2]] * 6)
    assert all(math.isfinite(row.logprob) for row in rows.values())


def test_a_clip_without_seeds_and_a_decoder_without_clips_write_nothing(narrator, visuals):
    decoder = Decoder(narrator, GREEDY, max_tokens=4)
    assert decoder.step() == [] and not decoder.has_work
    decoder.add(visuals[0], [])
    assert not decoder.has_work and decoder.step() == []


@pytest.mark.parametrize("max_tokens", [0, 128])
def test_captions_beyond_the_models_positions_are_refused(max_tokens, narrator):
    with pytest.raises(UserError, match="wanted 1 to 127"):
        Decoder(narrator, GREEDY, max_tokens=max_tokens)
