"""What a job's config says reaches the step that a Train worker takes; no Ray runs here."""

import json

import pytest
import torch

from mama_ray.config import parse_config
from mama_ray.data.batch import ClipBatch
from mama_ray.errors import UserError
from mama_ray.models.pretrained import from_preset, save_pretrained
from mama_ray.models.trained_part import choose_trained_part
from mama_ray.orchestration.narrator.job import NarratorDataConfig
from mama_ray.orchestration.runs.run_folder import write_run_config
from mama_ray.orchestration.training.inputs import (
    look_at_inputs,
    refuse_unread_scale,
    require_adams_step,
    require_exact_differences,
)
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.orchestration.training.settings import DataConfig
from mama_ray.orchestration.training.worker import _build_state, build_model
from mama_ray.storage.places import Place
from mama_ray.training.checkpoint import load_state, save_state
from mama_ray.training.loop import train_step
from mama_ray.training.manifest import step_directory
from mama_ray.training.state import describe_trained
from mama_ray.weighting.settings import require_no_trivial_optimum
from tests.weighting.toys import ToyEncoder, random_batch


def clips_of(model) -> ClipBatch:
    frames = torch.randint(0, 256, (4, 4, 48, 48, 3), dtype=torch.uint8)
    ids = torch.randint(0, model.config.vocab_size, (4, 6))
    return ClipBatch(frames, ids, torch.arange(4), torch.ones(4, dtype=torch.bool))


def first_losses(*words: str) -> torch.Tensor:
    job = parse_config(TrainJob, ["--global_batch_size", "8", "--weighting.kind", "uniform", *words])
    state = _build_state(job, ToyEncoder(), torch.device("cpu"), 1)
    return state.weighted_step.compute_gradients(random_batch(1, 8)).losses


@pytest.mark.parametrize(
    "words",
    [
        ("--objective.margin", "0.1"),
        ("--objective.margin", "0.4"),
        ("--objective.direction_reduction", "sum"),
        ("--objective.loss", "sigmoid"),
    ],
)
def test_margin_from_config_changes_the_loss(words):
    assert (first_losses(*words) != first_losses()).any()


def test_bias_from_config_is_where_the_sigmoid_loss_begins():
    sigmoid = ("--objective.loss", "sigmoid")
    assert (first_losses(*sigmoid) != first_losses(*sigmoid, "--objective.logit_bias", "-2.0")).any()
    assert torch.equal(first_losses(*sigmoid), first_losses(*sigmoid, "--objective.logit_bias", "-10"))
    assert torch.equal(first_losses(), first_losses("--objective.logit_bias", "-2.0"))


def test_rates_by_layer_and_what_is_trained_are_told_from_the_config():
    words = ["--optim.layer_decay", "0.5", "--model.lora.rank", "2", "--model.freeze", "text_model"]
    job = parse_config(TrainJob, words)
    model = from_preset("tiny", {})
    choose_trained_part(model, freeze=job.model.freeze, lora=job.model.lora)
    state = _build_state(job, model, torch.device("cpu"), 1)
    told = describe_trained(state)
    assert told.startswith("5,281 of 702,785 weights are trained"), told
    assert told.endswith(
        "1 x lr for 1, 0.5 x lr for 1,536, 0.25 x lr for 1,536, 0.125 x lr for 1,536, 0.0625 x lr for 672"
    )
    train_step(state, clips_of(model), None)
    assert {group["lr"] / job.optim.lr * group["lr_scale"] ** -1 for group in state.optimizer.param_groups} == {1.0}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model.freeze", "text_modle"], "model.freeze names no parameter of the model"),
        (["--model.freeze", "*"], "nothing is left to train"),
        (["--model.lora.targets", "*.qproj", "--model.lora.rank", "2"], "*.q_proj"),
        (["--model.lora.rank", "100"], "at most 64"),
    ],
)
@pytest.mark.parametrize("is_folder", [False, True])
def test_names_that_the_model_has_not_are_told_before_ray_starts(words, told, is_folder, tmp_path):
    if is_folder:
        save_pretrained(from_preset("tiny", {}), tmp_path)
        words = [*words, "--model.pretrained", str(tmp_path)]
    with pytest.raises(UserError) as error:
        look_at_inputs(parse_config(TrainJob, words))
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_new_run_with_sgds_inner_rate_for_adam_is_refused():
    adam = ["--meta.inner.optimizer", "adam"]
    with pytest.raises(UserError, match=r"meta\.inner\.lr .* got 0\.05, 50 times optim\.lr") as refused:
        require_adams_step(parse_config(TrainJob, adam))
    assert "wanted about optim.lr = 0.001, 0.01 at most" in str(refused.value)
    for words in (
        ["--meta.inner.lr", "0.01"],
        ["--meta.inner.relative"],
        ["--weighting.kind", "uniform"],
        ["--optim.lr", "0.005"],
    ):
        require_adams_step(parse_config(TrainJob, [*adam, *words]))
    require_adams_step(parse_config(TrainJob, []))


@pytest.mark.parametrize("config_class", [DataConfig, NarratorDataConfig])
@pytest.mark.parametrize(
    ("captions", "told"),
    [
        ({"human": 0.5, "genrated": 0.5}, "unknown caption source: got genrated.*did you mean generated"),
        ({"human": 1.0, "asr": -0.5}, "got -0.5 for asr, wanted 0 or more"),
        ({"human": 0.0}, "wanted more than 0 for at least one source"),
        ({}, "wanted more than 0 for at least one source"),
    ],
)
def test_captions_are_drawn_of_known_sources(config_class, captions, told):
    with pytest.raises(ValueError, match=told):
        config_class(captions=captions)
    for right in ({"human": 0.0, "generated": 1.0, "rephrased": 2.0, "asr": 0.5}, None):
        assert config_class(captions=right).captions == right


@pytest.mark.parametrize("method", ["finite_difference", "central_difference"])
def test_a_new_run_takes_no_finite_differences_in_the_bfloat16_of_a_gpu(tmp_path, method):
    words = ["--storage", str(tmp_path), "--run", "differences", "--meta.hypergradient", method]
    with pytest.raises(UserError, match="finite differences mean nothing in bfloat16.*or precision float32"):
        train(parse_config(TrainJob, [*words, "--use_gpu"]))
    for others in ([], ["--use_gpu", "--precision", "float32"], ["--use_gpu", "--weighting.kind", "uniform"]):
        require_exact_differences(parse_config(TrainJob, [*words, *others]))


def test_a_run_with_finite_differences_moves_to_no_gpu_where_it_would_be_bfloat16(tmp_path):
    words = ["--storage", str(tmp_path), "--run", "differences", "--meta.hypergradient", "finite_difference"]
    folder = tmp_path / "differences"
    write_run_config(parse_config(TrainJob, words), Place.of(folder))
    (folder / "checkpoints" / step_directory(4)).mkdir(parents=True)
    with pytest.raises(UserError, match="every checkpoint of .* is damaged"):  # so far it may go on
        train(parse_config(TrainJob, words))
    with pytest.raises(UserError, match="finite differences mean nothing in bfloat16"):
        train(parse_config(TrainJob, [*words, "--use_gpu"]))


def test_a_new_run_whose_backbone_answers_has_no_rate_of_a_head(tmp_path):
    words = ["--storage", str(tmp_path), "--run", "own", "--task.kind", "question_answering"]
    words += ["--task.head_lr_scale", "10"]
    with pytest.raises(UserError, match="head_lr_scale is read by no head: got 10 with task.head.kind own, wanted 1"):
        train(parse_config(TrainJob, [*words, "--task.head.kind", "own"]))
    refuse_unread_scale(parse_config(TrainJob, words))
    refuse_unread_scale(parse_config(TrainJob, ["--task.kind", "question_answering", "--task.head.kind", "own"]))


@pytest.mark.parametrize("normalisation", ["none", "l2"])
def test_a_new_run_whose_best_weights_say_nothing_is_refused_and_an_old_one_goes_on(tmp_path, normalisation):
    words = ["--storage", str(tmp_path), "--run", "joint", "--weighting.learner", "joint"]
    job = parse_config(TrainJob, [*words, "--weighting.normalisation", normalisation])
    with pytest.raises(UserError, match="joint has a trivial optimum, whatever the clips are") as refused:
        train(job)
    assert f"got weighting.normalisation {normalisation}, wanted sum_global" in str(refused.value)
    folder = tmp_path / "joint"
    assert not (folder / "config.yaml").exists()
    (folder / "checkpoints" / step_directory(4)).mkdir(parents=True)  # of an earlier version, and damaged
    (folder / "config.yaml").write_text(job.to_yaml())
    with pytest.raises(UserError, match="every checkpoint of .* is damaged"):
        train(job)
    require_no_trivial_optimum(parse_config(TrainJob, words).weighting)
    uniform = ["--weighting.kind", "uniform", "--weighting.normalisation", normalisation]
    require_no_trivial_optimum(parse_config(TrainJob, [*words, *uniform]).weighting)


@pytest.mark.parametrize(
    "words",
    [
        ["--model.lora.rank", "0"],
        ["--model.lora.dropout", "1"],
        ["--optim.layer_decay", "0"],
        ["--optim.betas", "0.9", "1"],
        ["--optim.betas", "-0.1", "0.9"],
    ],
)
def test_values_out_of_range_are_refused_with_their_name(words):
    with pytest.raises(UserError, match=words[0][2:].replace(".", r"\.")) as error:
        parse_config(TrainJob, words)
    assert "\n" not in str(error.value)


def test_a_resumed_run_of_a_preset_keeps_the_models_config_that_it_began_with(tmp_path):
    job = parse_config(TrainJob, ["--model.preset", "violet_tiny"])
    model = from_preset("violet_tiny", {})
    save_pretrained(model, tmp_path)
    save_state(_build_state(job, model, torch.device("cpu"), 1), tmp_path, selection=None)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["question_form"]  # as an earlier version wrote it
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert build_model(job, {}, tmp_path).config == model.config.model_copy(update={"question_form": "fitted"})


def test_a_resumed_run_trains_what_was_new_when_it_began(tmp_path):
    job = parse_config(TrainJob, ["--model.pretrained", "nowhere", "--model.lora.rank", "1"])
    model = from_preset("tiny", {})
    model.new_weights = ("text_projection.weight", "vision_model.encoder.layers.0.self_attn.q_proj.weight")
    found = []
    for directory in (None, tmp_path):
        model = model if directory is None else build_model(job, {}, directory)
        choose_trained_part(model, lora=job.model.lora)
        found.append({name for name, parameter in model.named_parameters() if parameter.requires_grad})
        state = _build_state(job, model, torch.device("cpu"), 1)
        if directory is None:
            save_pretrained(model, tmp_path)
            save_state(state, tmp_path, selection=None)
    load_state(state, tmp_path)
    assert found[0] == found[1] > set(model.new_weights)
