"""Which checkpoint is evaluated, and which models do not fit."""

import shutil
from pathlib import Path

import pytest

from mama_ray.config import parse_config
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.errors import UserError
from mama_ray.models.pretrained import from_pretrained
from mama_ray.orchestration.evaluation.job import EvaluateJob, with_absolute_paths
from mama_ray.orchestration.evaluation.model import find_model
from mama_ray.orchestration.evaluation.run import load_benchmark
from mama_ray.training.manifest import write_manifest


def write_run(run: Path, model_folder: Path, scores: dict[int, float]) -> None:
    """A run with one checkpoint per step; each has the metric that training selects by."""
    for step, score in scores.items():
        folder = run / "checkpoints" / f"step_{step:08d}"
        folder.mkdir(parents=True)
        for path in model_folder.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "config.yaml").write_text("data: {resize: random_resized_crop}\n")
        write_manifest(folder, step=step, selection={"metric": "val/t2v_R@1", "value": score})


def test_what_tasks_read_is_named_for_another_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = with_absolute_paths(EvaluateJob(shards="shards", questions="q.parquet", checkpoint="runs/a"))
    assert (job.shards, job.questions) == (str(tmp_path / "shards"), str(tmp_path / "q.parquet"))
    for right in (EvaluateJob(), EvaluateJob(shards="s3://bucket/shards", questions="/q.parquet"), job):
        assert with_absolute_paths(right) == right


def test_selection_reads_validation_only(model_folder, tmp_path):
    write_run(tmp_path / "run", model_folder, {10: 30.0, 20: 50.0, 30: 40.0})
    (tmp_path / "run/evaluation").mkdir()
    (tmp_path / "run/evaluation/embedded.json").write_text('{"best on test": "step_00000030"}')
    model = find_model(str(tmp_path / "run"), load_benchmark("embedded"))
    assert (model.name.step, model.name.selection) == (20, "best of its run on the val split")
    assert model.home == str(tmp_path / "run")
    assert model.transform.resize == "center_crop"


def test_frames_that_no_one_sets_are_those_of_the_training(model_folder, tmp_path):
    """A fine-tuning may show more frames than the model, whose config stays as it is, began with."""
    folder, benchmark = shutil.copytree(model_folder, tmp_path / "model"), load_benchmark("embedded")
    benchmark = benchmark.model_copy(update={"num_frames": None})
    own = find_model(str(folder), benchmark).num_frames
    (folder / "config.yaml").write_text(f"data: {{num_frames: {own + 12}}}\n")
    assert find_model(str(folder), benchmark).num_frames == own + 12
    assert find_model(str(folder), benchmark.model_copy(update={"num_frames": 3})).num_frames == 3
    (folder / "config.yaml").write_text("data: {num_frames: many}\n")
    with pytest.raises(UserError, match=r"data\.num_frames of config\.yaml: got 'many', wanted a number from 1"):
        find_model(str(folder), benchmark)


def test_frames_are_chosen_as_in_training_and_the_protocol_says_how(model_folder, tmp_path):
    folder, benchmark = shutil.copytree(model_folder, tmp_path / "model"), load_benchmark("embedded")

    def found(sampling=None):
        model = find_model(str(folder), benchmark, sampling=sampling)
        return model.decoding(DecodeConfig(max_pixels=9)), model.sampling

    (folder / "config.yaml").write_text("data: {resize: squash}\n")  # a run of before
    assert found() == (DecodeConfig(max_pixels=9), "centres of equal segments")
    (folder / "config.yaml").write_text("data: {decode: {sampling: numbers}}\n")
    by_number = "centres of equal segments, by frame number"
    assert found() == (DecodeConfig(max_pixels=9, sampling="numbers"), by_number)
    for words in (["--sampling", "ends"], ["--decode.sampling", "ends"]):
        asked = parse_config(EvaluateJob, words).asked_sampling
        assert found(asked) == (DecodeConfig(max_pixels=9, sampling="ends"), "first to last frame in equal steps")
    assert found(parse_config(EvaluateJob, ["--sampling", "times"]).asked_sampling)[1] == "centres of equal segments"
    with pytest.raises(UserError, match="give one of them"):
        parse_config(EvaluateJob, ["--sampling", "times", "--decode.sampling", "ends"])
    (folder / "config.yaml").write_text("data: {decode: {sampling: all}}\n")
    with pytest.raises(UserError, match=r"data\.decode\.sampling of config\.yaml: got 'all', wanted times or numbers"):
        find_model(str(folder), benchmark)


def test_of_the_encoder_of_the_package_results_lie_among_the_runs():
    model = find_model("embedded", load_benchmark("embedded"))
    assert (model.uri, model.name.selection) == ("embedded", "the one that comes with the package")
    assert model.home == "runs/embedded-encoder"


def test_a_checkpoint_given_by_its_path_says_so(model_folder, tmp_path):
    write_run(tmp_path / "run", model_folder, {10: 30.0, 20: 50.0})
    model = find_model(str(tmp_path / "run/checkpoints/step_00000010"), load_benchmark("embedded"))
    assert (model.name.step, model.name.selection, model.home) == (10, "given by its path", str(tmp_path / "run"))


def test_a_damaged_copy_of_a_checkpoint_is_refused_though_no_run_is_about(model_folder, tmp_path):
    write_run(tmp_path / "run", model_folder, {10: 30.0})
    copy = (tmp_path / "run/checkpoints/step_00000010").rename(tmp_path / "copy")
    assert find_model(str(copy), load_benchmark("embedded")).name.selection == "given by its path"
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1  # safetensors has no checksum: it loads
    (copy / "model.safetensors").write_bytes(weights)
    for use in (lambda: find_model(str(copy), load_benchmark("embedded")), lambda: from_pretrained(copy)):
        with pytest.raises(UserError, match="damaged model folder: got .*copy/model.safetensors: content differs"):
            use()


def test_a_damaged_checkpoint_is_refused(model_folder, tmp_path):
    write_run(tmp_path / "run", model_folder, {10: 30.0})
    weights = tmp_path / "run/checkpoints/step_00000010/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="damaged"):
        find_model(str(tmp_path / "run"), load_benchmark("embedded"))


def test_a_model_that_does_not_fit_the_benchmark_is_refused(model_folder):
    with pytest.raises(UserError, match="224 pixels"):
        find_model(str(model_folder), load_benchmark("msrvtt_1ka").model_copy(update={"text_length": None}))


def test_a_model_with_the_tokenizer_of_another_is_refused(model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "model")
    Tokenizer.train(["a red thing moves to the left of a green thing"] * 5, 530, 24).save(copy)
    with pytest.raises(UserError, match=r"its vocabulary: got 530, wanted 514 as .*/model has"):
        find_model(str(copy), load_benchmark("embedded"))


def test_an_unknown_benchmark_lists_the_known_ones():
    with pytest.raises(UserError, match="msrvtt_1ka"):
        load_benchmark("msrvtt")
