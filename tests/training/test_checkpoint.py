"""What is in a checkpoint: all that a run needs to go on bit for bit, and nothing that runs code."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mama_ray.data.batch import ClipBatch
from mama_ray.errors import UserError
from mama_ray.models.clip_vip.hf_layout import to_hf_clip
from mama_ray.models.pretrained import from_preset, from_pretrained, save_pretrained
from mama_ray.models.settings import LoraConfig
from mama_ray.models.trained_part import choose_trained_part
from mama_ray.models.weight_files import read_safetensors, read_torch_file
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.checkpoint import load_state, read_train_state, save_state
from mama_ray.training.loop import train
from mama_ray.training.manifest import (
    step_directory,
)
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import TrainState, _weight_optimizer, build_state
from mama_ray.weighting.settings import InnerStepConfig, MetaConfig, WeightingConfig
from mama_ray.weighting.weight_net import WeightNet
from tests.training.toy_runs import (
    BATCH,
    NUM_STEPS,
    batches,
    meta_stream,
    new_state,
    paired_batches,
    save_checkpoint,
)
from tests.weighting.toys import INPUTS, VOCABULARY, random_batch

RUNS = {
    "plain": {},
    "ema": {"ema_decay": 0.9},
    "relative": {"inner": InnerStepConfig(lr=0.01, relative=True)},
    "adam": {"inner": InnerStepConfig(optimizer="adam", lr=0.01)},
    "averaged": {"meta": {"gradient_decay": 0.7}},
    "drawn": {"meta": {"tangent_share": 0.5}},
    "margin": {"meta": {"margin": "scalar"}},
    "margins": {"meta": {"margin": "per_sample"}, "weighting": WeightingConfig(kind="uniform")},
    "pairs": {"objective": ContrastiveConfig(generated_share=0.3)},
    "shares": {"objective": ContrastiveConfig(generated_share="learned")},
    "shares_and_margins": {
        "objective": ContrastiveConfig(generated_share="learned", margin=0.2),
        "meta": {"margin": "per_sample", "arrangement": "faithful"},
        "weighting": INPUTS.model_copy(update={"hidden_dim": 8}),
    },
    "inputs": {"weighting": INPUTS.model_copy(update={"hidden_dim": 8})},
}


@pytest.mark.parametrize("run", RUNS)
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(tmp_path, run):
    whole, of = new_state(**RUNS[run]), paired_batches if "pairs" in run or "shares" in run else batches
    records = []
    train(whole, of(0, NUM_STEPS), meta_stream(0), report=records.append)
    first = new_state(**RUNS[run])
    train(first, of(0, 5), meta_stream(0), report=records.append)
    directory = save_checkpoint(first, tmp_path)
    second = new_state(**RUNS[run])
    load_state(second, directory)
    assert second.step == 5 and second.samples_seen == 5 * BATCH
    resumed = []
    train(second, of(5, NUM_STEPS), meta_stream(3), report=resumed.append)
    for ours, theirs in ((second.model, whole.model), (second.weighting, whole.weighting)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    for ours, theirs in zip(dials_of(second), dials_of(whole), strict=True):
        assert torch.equal(ours, theirs)
    for name, value in second.evaluated_model.state_dict().items():
        assert torch.equal(value, whole.evaluated_model.state_dict()[name]), name
    assert [record.step for record in resumed] == list(range(5, NUM_STEPS))
    assert torch.equal(resumed[-1].losses, records[NUM_STEPS - 1].losses)


def test_a_checkpoint_of_an_earlier_version_has_its_average_in_a_file_of_its_own(tmp_path):
    first, second = new_state(ema_decay=0.9), new_state(ema_decay=0.9)
    train(first, batches(0, 5), meta_stream(0), report=lambda record: None)
    directory = save_checkpoint(first, tmp_path)
    (directory / "model.safetensors").rename(directory / "ema.safetensors")
    (directory / "trained.safetensors").rename(directory / "model.safetensors")
    load_state(second, directory)
    for ours, theirs in ((second.model, first.model), (second.evaluated_model, first.evaluated_model)):
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    pairs = zip(second.model.parameters(), second.evaluated_model.parameters(), strict=True)
    assert not all(torch.equal(*pair) for pair in pairs)


def dials_of(state: TrainState) -> list[torch.Tensor]:
    dials = state.weighted_step.dials
    return [] if dials is None else list(dials.module.state_dict().values())


def test_bias_of_a_sigmoid_loss_is_learned_and_goes_on_where_it_was(tmp_path):
    def state():
        return new_state(objective=ContrastiveConfig(loss="sigmoid", logit_bias=-2.0))

    whole, records = state(), []
    train(whole, batches(0, NUM_STEPS), meta_stream(0), report=records.append)
    assert records[-1].scalars["train/logit_bias"] == whole.feature_model.logit_bias != -2.0
    first = state()
    train(first, batches(0, 5), meta_stream(0), report=records.append)
    directory = save_checkpoint(first, tmp_path)
    second = state()
    load_state(second, directory)
    assert second.feature_model.logit_bias == first.feature_model.logit_bias
    train(second, batches(5, NUM_STEPS), meta_stream(3), report=records.append)
    for name, value in second.feature_model.state_dict().items():
        assert torch.equal(value, whole.feature_model.state_dict()[name]), name
    (directory / "objective.safetensors").unlink()
    with pytest.raises(UserError, match=r"objective\.safetensors"):
        load_state(state(), directory)


def test_a_checkpoint_without_the_average_that_a_run_needs_is_refused(tmp_path):
    directory = save_checkpoint(new_state(), tmp_path)
    with pytest.raises(UserError, match=r"meta_gradient\.safetensors"):
        load_state(new_state(meta={"gradient_decay": 0.7}), directory)


def test_a_checkpoint_without_the_averaged_losses_that_a_run_needs_is_refused(tmp_path):
    directory = save_checkpoint(new_state(), tmp_path)
    with pytest.raises(UserError, match="not of this model and run"):
        load_state(new_state(weighting=WeightingConfig(hidden_dim=8, inputs=("loss", "average_loss"))), directory)
    directory = save_checkpoint(new_state(weighting=INPUTS), tmp_path / "other")
    (directory / "average_loss.safetensors").unlink()
    with pytest.raises(UserError, match=r"average_loss\.safetensors"):
        load_state(new_state(weighting=INPUTS), directory)


def test_a_checkpoint_without_the_learned_margin_that_a_run_needs_is_refused(tmp_path):
    directory = save_checkpoint(new_state(), tmp_path)
    assert not (directory / "dials.safetensors").exists()
    with pytest.raises(UserError, match=r"dials\.safetensors"):
        load_state(new_state(meta={"margin": "scalar"}), directory)
    with pytest.raises(UserError, match=r"dials\.safetensors"):
        load_state(new_state(objective=ContrastiveConfig(generated_share="learned")), directory)


def weight_nets_after(state: TrainState, first: int) -> list[torch.Tensor]:
    train(state, batches(first, NUM_STEPS), meta_stream(first // 2), report=lambda record: None)
    return list(state.weighting.state_dict().values())


def test_decay_of_the_weight_net_is_decoupled_in_a_new_run_and_in_the_gradient_where_a_run_began_so(tmp_path):
    """A run of before the decay was decoupled saved the state of torch's plain Adam."""

    def state() -> TrainState:
        return new_state(meta={"weight_decay": 0.5})

    def plain(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The optimiser of before, with the other's state."""
        group = optimizer.param_groups[0]
        twin = torch.optim.Adam(group["params"], lr=group["lr"], weight_decay=group["weight_decay"])
        if optimizer.state:
            twin.load_state_dict(optimizer.state_dict())
        return twin

    def use(state: TrainState, optimizer: torch.optim.Optimizer) -> None:
        state.weight_optimizer = state.weighted_step.weight_optimizer = optimizer

    of_adamw = state()
    group = of_adamw.weight_optimizer.param_groups[0]
    use(of_adamw, torch.optim.AdamW(group["params"], lr=group["lr"], weight_decay=group["weight_decay"]))
    before, new = state(), state()
    use(before, plain(before.weight_optimizer))
    whole = [weight_nets_after(one, 0) for one in (before, new, of_adamw)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(whole[1], whole[2], strict=True))
    assert not any(torch.equal(ours, theirs) for ours, theirs in zip(whole[0], whole[1], strict=True))
    for is_plain, expected in ((True, whole[0]), (False, whole[1])):
        first, second = state(), state()
        if is_plain:
            use(first, plain(first.weight_optimizer))
        train(first, batches(0, 6), meta_stream(0), report=lambda record: None)
        directory = save_checkpoint(first, tmp_path / str(is_plain))
        for _ in range(2):  # and what it saves says so again
            load_state(second, directory)
            directory = tmp_path / str(is_plain) / "again"
            directory.mkdir(exist_ok=True)
            save_file(second.model.state_dict(), directory / "model.safetensors")
            save_state(second, directory, selection=None)
        assert all(map(torch.equal, weight_nets_after(second, 6), expected))


def test_a_checkpoint_of_an_earlier_version_keeps_the_decay_of_its_weight_net():
    folder = Path(__file__).parents[1] / "carry_on/folders/run_begun/checkpoints/step_00000004"
    weighting = WeightNet(64)
    weighting.load_state_dict(read_safetensors(folder / "weight_net.safetensors"))
    optimizer = _weight_optimizer(weighting, MetaConfig())
    assert optimizer.param_groups[0]["decoupled_weight_decay"]
    optimizer.load_state_dict(read_torch_file(folder / "weight_optimizer.pt"))
    assert not optimizer.param_groups[0]["decoupled_weight_decay"]


def test_resuming_with_another_batch_size_is_refused(tmp_path):
    state = new_state()
    directory = save_checkpoint(state, tmp_path)
    other = new_state()
    other.global_batch_size = 16
    with pytest.raises(UserError, match="global_batch_size"):
        load_state(other, directory)


def test_a_checkpoint_that_carries_code_is_not_loaded(run):
    """The optimiser's file is read with weights_only: a pickled object in its place is refused, not run."""

    class Trap:
        def __reduce__(self):
            return (Path(run / "sprung").touch, ())

    directory = run / "checkpoints" / step_directory(3)
    torch.save({"state": Trap(), "param_groups": []}, directory / "optimizer.pt")
    with pytest.raises(Exception, match="cannot be read as tensors only: got an object of getattr"):
        load_state(new_state(), directory)
    assert not (run / "sprung").exists()


def of_size(batch: ClipBatch) -> ClipBatch:
    """Enlarge the toys' frames of two pixels to the 24 that the model takes."""
    frames = batch.frames.repeat_interleave(12, dim=2).repeat_interleave(12, dim=3)
    return replace(batch, frames=frames)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_run_of_adapters_on_a_clip_folder_resumes_bit_for_bit_and_its_checkpoint_is_a_plain_model(
    tmp_path, ema_decay
):
    to_hf_clip(from_preset("tiny", {"image_size": 24, "vocab_size": VOCABULARY}), tmp_path / "clip")

    def state(folder: Path):
        model = from_pretrained(folder)
        choose_trained_part(
            model, freeze=("text_model.encoder.layers.0",), lora=LoraConfig(rank=2, targets=("*.layers",))
        )
        optim = OptimConfig(lr=0.01, layer_decay=0.8, ema_decay=ema_decay)
        settings = {"objective": ContrastiveConfig(loss="sigmoid"), "weighting": WeightingConfig(hidden_dim=8)}
        return build_state(model, **settings, meta=MetaConfig(), optim=optim, num_steps=6, global_batch_size=4)

    def clips(first: int, last: int):
        return [of_size(random_batch(step, 4)) for step in range(first, last)]

    def metas(first: int):
        return [of_size(random_batch(100 + number, 2)) for number in range(first, 3)]

    torch.manual_seed(0)
    whole, first = state(tmp_path / "clip"), state(tmp_path / "clip")
    first.model.load_state_dict(whole.model.state_dict())  # the proxies, which CLIP's folder lacks, are random
    if ema_decay:
        first.ema.module.load_state_dict(whole.ema.module.state_dict())
    train(whole, clips(0, 6), metas(0), report=lambda record: None)
    train(first, clips(0, 3), metas(0), report=lambda record: None)
    directory = tmp_path / "checkpoint"
    save_pretrained(first.evaluated_model, directory)
    save_state(first, directory, selection=None)
    second = state(directory)
    load_state(second, directory)
    train(second, clips(3, 6), metas(2), report=lambda record: None)
    for ours, theirs in (
        (second.feature_model, whole.feature_model),
        (second.weighting, whole.weighting),
        (second.evaluated_model, whole.evaluated_model),
    ):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    plain = from_pretrained(directory)
    assert not any("lora" in name for name in plain.state_dict())
    assert set(read_train_state(directory)["new_weights"]) == {
        f"vision_model.embeddings.{name}" for name in ("added_cls", "temporal_embedding")
    }
    with torch.no_grad():
        batch = clips(0, 1)[0]
        for ours, theirs in zip(
            *(model(batch.frames, batch.token_ids) for model in (plain, first.evaluated_model)), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    (directory / "adapters.safetensors").unlink()
    with pytest.raises(UserError, match=r"adapters\.safetensors"):
        load_state(state(directory), directory)
