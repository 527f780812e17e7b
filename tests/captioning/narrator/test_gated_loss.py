"""How a gated narrator learns: its labels, its loss, and what of it learns."""

from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from mama_ray.captioning.narrator.gated import TaughtGated
from mama_ray.captioning.narrator.kind import IGNORED
from mama_ray.captioning.narrator.settings import GatedParts
from mama_ray.errors import UserError
from tests.captioning.narrator.gated_parts import (
    CAPTIONS,
    MAX_TOKENS,
    labels_of,
    loss_of,
    open_narrator,
    settings,
    some_frames,
    started,
    write_dual_encoder,
    write_gpt2,
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return write_dual_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def narrator() -> TaughtGated:
    return open_narrator()


def test_labels_are_the_caption_and_its_end(narrator):
    labels = labels_of(narrator, [CAPTIONS[0], f"  {CAPTIONS[0]}\n"])
    kept = labels[0][labels[0] != IGNORED].tolist()
    assert kept[-1] == narrator.tokenizer.eos_token_id
    assert narrator.tokenizer.decode(kept[:-1]) == CAPTIONS[0]
    assert torch.equal(labels[0], labels[1])


def test_a_caption_that_is_too_long_loses_its_tail_and_its_end(narrator):
    (whole,), (cut,) = labels_of(narrator, CAPTIONS[:1], 32), labels_of(narrator, CAPTIONS[:1], 4)
    assert cut.tolist() == whole[:4].tolist()
    assert narrator.tokenizer.eos_token_id not in cut


def test_the_end_tokens_own_text_in_a_caption_does_not_end_it(narrator):
    (row,) = labels_of(narrator, ["a <|endoftext|> b"], 40).tolist()
    kept = [token for token in row if token != IGNORED]
    assert kept.index(narrator.tokenizer.eos_token_id) == len(kept) - 1


def test_the_loss_equals_a_naive_sum_over_caption_tokens(narrator):
    """One clip and one token at a time, each from the shortest input that leads to it."""
    frames, labels = some_frames(3), labels_of(narrator)
    expected = 0.0
    with torch.no_grad():
        for one, row in zip(frames, labels, strict=True):
            before = [narrator.model.config.bos_id]
            for token in (token for token in row.tolist() if token != IGNORED):
                visual = narrator.model.encode_visual(one[None])
                logits = narrator.model(visual, torch.tensor([before]))[0, -1]
                expected -= float(logits.double().log_softmax(0)[token])
                before.append(token)
        assert float(loss_of(narrator)(frames, labels)) == pytest.approx(expected, rel=1e-5)


def test_the_padded_mean_is_that_of_the_release(encoder, gpt2):
    """Texts filled up with token 0 to the context's length, cross-entropy that passes over 0, the mean over all."""
    one = started(gated_video_encoder=str(encoder), gated_language_model=str(gpt2), gated_loss="padded")
    config = one.model.eval().config
    loss = one.build_loss(None, settings(gated_loss="padded").model, max_caption_tokens=MAX_TOKENS)
    frames, labels = some_frames(3), labels_of(one)
    labels[1, 2] = 0  # a real token 0
    texts = torch.zeros(3, config.context_length, dtype=torch.long)
    for row, own in zip(texts, labels, strict=True):
        kept = own[own != IGNORED]
        row[: len(kept) + 1] = torch.cat([torch.tensor([config.bos_id]), kept])
    with torch.no_grad():
        logits = one.model(one.model.encode_visual(frames), texts[:, :-1])
        each = F.cross_entropy(logits.transpose(1, 2), texts[:, 1:], ignore_index=0, reduction="none")
        ours = loss(frames, labels) / loss.num_places(labels)
    assert float(ours) == pytest.approx(float(each.mean()), rel=1e-5)
    assert float(loss.num_places(labels)) == 3 * (config.context_length - 1)
    assert float(loss_of(one).num_places(labels)) == (labels != IGNORED).sum()


def test_clips_without_labels_cost_nothing_and_move_nothing(narrator):
    value = loss_of(narrator)(some_frames(2), torch.full((2, MAX_TOKENS), IGNORED))
    value.backward()
    assert value == 0
    assert all(not p.grad.any() for p in narrator.model.parameters() if p.grad is not None)
    narrator.model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("trains", get_args(GatedParts))
def test_every_parameter_that_is_to_train_gets_a_gradient_and_no_other(narrator, trains):
    asked = settings(gated_trains="all").model.gated.model_copy(update={"trains": trains})
    narrator.choose_trained_parts(settings().model.model_copy(update={"gated": asked}))
    loss_of(narrator)(some_frames(2), labels_of(narrator, CAPTIONS[:2])).backward()
    named = dict(narrator.model.named_parameters())
    moved = {name for name, p in named.items() if p.grad is not None and p.grad.any()}
    trained = {name for name, p in named.items() if p.requires_grad}
    if trains == "gated_blocks":
        assert trained == set(narrator.model.trained_parameter_names())
        assert not any("transformer.wte" in name or ".attn." in name for name in trained)
    assert any(name.startswith("visual.") for name in trained) == (trains == "all")
    assert any("transformer.wte" in name for name in trained) == (trains != "gated_blocks")
    assert moved == trained
    narrator.model.zero_grad(set_to_none=True)
    narrator.model.requires_grad_(True)


def test_dropout_of_a_frozen_language_model_stays_active(encoder, gpt2):
    one = started(gated_video_encoder=str(encoder), gated_language_model=str(gpt2))
    frames, labels = some_frames(2), labels_of(one, CAPTIONS[:2])
    one.model.train()
    one.choose_trained_parts(settings(
        gated_trains="gated_blocks", gated_video_encoder="a", gated_language_model="b").model)  # fmt: skip
    losses = {loss_of(one)(frames, labels).item() for _ in range(3)}
    assert len(losses) == 3
    one.model.eval()
    assert len({loss_of(one)(frames, labels).item() for _ in range(3)}) == 1


def test_greedy_captions_are_those_of_one_token_at_a_time(narrator):
    frames, config = some_frames(3), narrator.model.config
    for one, caption in zip(frames, loss_of(narrator).narrate(frames, max_tokens=8), strict=True):
        tokens = [config.bos_id]
        with torch.no_grad():
            visual = narrator.model.encode_visual(one[None])
            while len(tokens) < 9 and (len(tokens) == 1 or tokens[-1] != config.eos_id):
                tokens.append(int(narrator.model(visual, torch.tensor([tokens]))[0, -1].argmax()))
        assert caption == narrator.tokenizer.decode(tokens[1:], skip_special_tokens=True)


def test_the_forward_pass_runs_under_bfloat16_autocast_and_captions_as_without(narrator):
    frames, labels = some_frames(2), labels_of(narrator, CAPTIONS[:2])
    loss = loss_of(narrator)
    plain, captions = loss(frames, labels).item(), loss.narrate(frames, max_tokens=6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(frames, labels).item() == pytest.approx(plain, rel=0.05)
        assert loss.narrate(frames, max_tokens=6) == captions


def test_greedy_captions_end_where_the_end_is_likeliest_and_no_later_than_asked(narrator):
    loss, frames = loss_of(narrator), some_frames(4)
    short, longer = (loss.narrate(frames, max_tokens=max_tokens) for max_tokens in (1, 6))
    assert all(whole.startswith(part) and whole != part for part, whole in zip(short, longer, strict=True))
    silent = started()
    with torch.no_grad():  # the end is likeliest everywhere
        silent.model.text_decoder.transformer["ln_f"].weight.zero_()
        silent.model.text_decoder.transformer["ln_f"].bias.copy_(
            silent.model.text_decoder.transformer["wte"].weight[silent.model.config.eos_id]
        )
    silent.model.eval()
    assert loss_of(silent).narrate(frames, max_tokens=5) == [""] * 4


def test_captions_longer_than_the_context_are_refused(narrator):
    with pytest.raises(UserError, match="got 77 tokens, wanted at most 76"):
        narrator.build_loss(None, settings().model, max_caption_tokens=77)
