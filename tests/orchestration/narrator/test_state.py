"""A step of a narrator's training: what moves, by which mean, and that a saved state goes on bit for bit."""

from pathlib import Path

import pytest
import torch

from mama_ray.captioning.narrator import gated, llava
from mama_ray.captioning.narrator.folder import read_narrator_input
from mama_ray.captioning.narrator.kind import IGNORED, NarratorSettings
from mama_ray.captioning.narrator.settings import FrameInput, NarratorInput, NarratorModelConfig
from mama_ray.orchestration.narrator.state import (
    NarratorState,
    StepDraws,
    capture_state,
    load_state,
    train_step,
    write_state,
)
from mama_ray.training.optim import build_optimizer
from mama_ray.training.settings import OptimConfig
from tests.captioning.narrator.gated_parts import (
    CAPTIONS,
    MAX_TOKENS,
    labels_of,
    settings,
    some_frames,
    started,
    write_dual_encoder,
    write_gpt2,
)

NUM_STEPS = 4
OPTIM = OptimConfig(lr=1e-2, warmup_share=0.0)


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, str]:
    encoder = write_dual_encoder(tmp_path_factory.mktemp("encoder"))
    return {
        "gated_video_encoder": str(encoder),
        "gated_language_model": str(write_gpt2(tmp_path_factory.mktemp("gpt2"))),
    }


def state_of(narrator: gated.TaughtGated, parts: dict[str, str], *, num_micro_batches: int = 1, rank: int = 0, **model):
    asked = settings(**parts, gated_trains="gated_blocks", **model).model
    narrator.model.train()
    narrator.choose_trained_parts(asked)
    loss = narrator.build_loss(None, asked, max_caption_tokens=MAX_TOKENS)
    optimizer = build_optimizer(narrator.model, OPTIM)
    return NarratorState(
        narrator, loss, optimizer, OPTIM, NUM_STEPS, 3, num_micro_batches, torch.enable_grad, draws=StepDraws(7, rank)
    )


def steps(state: NarratorState, count: int) -> list[float]:
    """Take steps on clips that differ from step to step, as the plan gives them."""
    found = []
    for _ in range(count):
        frames = some_frames(3).roll(state.step, dims=0)
        labels = labels_of(state.narrator, CAPTIONS).roll(state.step, dims=0)
        found.append(float(train_step(state, frames, labels)["train/caption_loss"]))
    return found


def save(state: NarratorState, folder: Path) -> Path:
    folder.mkdir()
    write_state(capture_state(state, validation={}), folder, NarratorInput())
    return folder


def test_a_state_that_was_saved_goes_on_bit_for_bit_under_dropout(parts, tmp_path):
    whole = state_of(started(**parts), parts)
    losses = steps(whole, NUM_STEPS)
    begun = state_of(started(**parts), parts)
    first = steps(begun, 2)
    folder = save(begun, tmp_path / "step_2")
    torch.manual_seed(999)  # whatever a new process did before
    resumed = state_of(gated.load(folder), parts)
    load_state(resumed, folder)
    assert (resumed.step, resumed.samples_seen) == (2, 6)
    assert first + steps(resumed, 2) == losses
    for name, value in whole.narrator.model.state_dict().items():
        assert torch.equal(value, resumed.narrator.model.state_dict()[name]), name
    save(resumed, tmp_path / "resumed"), save(whole, tmp_path / "whole")
    same = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("resumed", "whole")]
    assert same[0] == same[1]


def test_a_checkpoint_is_that_of_its_step_whatever_is_learned_while_it_is_written(parts, tmp_path):
    state = state_of(started(**parts), parts)
    steps(state, 1)
    captured = capture_state(state, validation={})
    before = {name: value.clone() for name, value in state.narrator.model.state_dict().items()}
    steps(state, 2)
    (tmp_path / "late").mkdir()
    write_state(captured, tmp_path / "late", NarratorInput())
    found = gated.load(tmp_path / "late").model.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in found.items())


def test_only_what_lavila_trains_moves(parts):
    state = state_of(started(**parts), parts)
    model = state.narrator.model
    before = {name: value.clone() for name, value in model.named_parameters()}
    steps(state, 2)
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved and moved <= set(model.trained_parameter_names())
    assert any("alpha" in name for name in moved) and "img_queries" in moved


def test_ranks_and_steps_drop_other_channels_and_the_same_ones_again(parts):
    def first_loss(rank: int, seed_before: int) -> float:
        torch.manual_seed(seed_before)
        return steps(state_of(started(**parts), parts, rank=rank), 1)[0]

    assert first_loss(0, 1) == first_loss(0, 2)
    assert first_loss(0, 1) != first_loss(1, 1)


def test_the_padded_mean_gives_a_gradient_as_much_smaller_as_there_are_places(parts):
    norms, tokens = {}, int((labels_of(started(**parts)) != IGNORED).sum())
    for loss in ("tokens", "padded"):
        narrator = started(**parts)
        state = state_of(narrator, parts, gated_loss=loss)
        narrator.model.text_decoder.eval()  # without dropout, so that the two see the same
        labels = labels_of(narrator)
        assert not (labels == 0).any()
        norms[loss] = float(train_step(state, some_frames(3), labels)["train/gradient_norm"])
    places = 3 * (narrator.model.config.context_length - 1)
    assert norms["padded"] == pytest.approx(norms["tokens"] * tokens / places, rel=1e-4)


def test_parts_of_a_batch_give_the_gradient_of_the_whole(parts):
    found = []
    for num_parts in (1, 3):
        narrator = started(**parts)
        state = state_of(narrator, parts, num_micro_batches=num_parts)
        narrator.model.eval()
        steps(state, 1)
        found.append(narrator.model.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-3, atol=1e-5, msg=name)


def test_a_llavas_state_goes_on_bit_for_bit_too(tmp_path):
    usual, model = NarratorInput(), NarratorModelConfig(vocab_size=320)
    asked = NarratorSettings(model, usual.prompt, usual.grid, FrameInput())
    files, facts = llava.describe(None, asked, lambda: CAPTIONS)
    labels = torch.from_numpy(llava.labels(facts, files, max_tokens=MAX_TOKENS)(CAPTIONS))
    pictures = torch.randint(0, 256, (3, facts.side, facts.side, 3), dtype=torch.uint8)

    def begin(narrator: llava.TaughtLlava) -> NarratorState:
        narrator.model.train()
        narrator.choose_trained_parts(asked.model)
        loss = narrator.build_loss(facts, asked.model, max_caption_tokens=MAX_TOKENS)
        optimizer = build_optimizer(narrator.model, OPTIM)
        return NarratorState(narrator, loss, optimizer, OPTIM, NUM_STEPS, 3, 1, torch.enable_grad)

    torch.manual_seed(0)
    whole = begin(llava.start(facts, files, asked))
    losses = [float(train_step(whole, pictures, labels)["train/caption_loss"]) for _ in range(2)]
    folder = save(whole, tmp_path / "step_2")
    resumed = begin(llava.load(folder))
    load_state(resumed, folder)
    after = [float(train_step(state, pictures, labels)["train/caption_loss"]) for state in (whole, resumed)]
    assert after[0] == after[1] < losses[0]
    for name, value in whole.narrator.model.state_dict().items():
        assert torch.equal(value, resumed.narrator.model.state_dict()[name]), name
    assert read_narrator_input(folder) == NarratorInput()
