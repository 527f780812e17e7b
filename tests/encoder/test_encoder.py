"""The five lines of a library user: everything that a model may be named by, and what happens to files of any kind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import mama_ray
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.models.clip_vip.hf_layout import to_hf_clip
from mama_ray.models.pretrained import from_pretrained
from mama_ray.storage.places import Place
from mama_ray.training.manifest import write_manifest
from tests.data.video.video_factory import make_video
from tests.encoder.tiny_encoder import write_model, write_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    """Videos of different length, hence of different frames."""
    folder = tmp_path_factory.mktemp("videos")
    paths = [folder / f"{number}.mp4" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(make_video(num_frames=3 + number, width=64, height=48))
    return paths


def by_hand(model_folder: Path, paths: list[Path], resize: str = "squash") -> np.ndarray:
    model = from_pretrained(model_folder).eval()
    transform = TransformConfig(image_size=model.config.image_size, resize=resize)
    frames = [load_clip_frames(path, num_frames=model.config.num_frames, transform=transform) for path in paths]
    with torch.inference_mode():
        return model.encode_video(torch.from_numpy(np.stack(frames))).numpy()


def test_five_lines_give_the_features_of_the_parts(model_folder, videos):
    encoder = mama_ray.load_encoder(model_folder)
    found = encoder.encode_videos(videos, progress=False)
    assert found.errors == []
    assert found.paths == [str(path) for path in videos]
    np.testing.assert_array_equal(found.features, by_hand(model_folder, videos))
    texts = ["a red thing", "a blue thing moves"]
    features = encoder.encode_texts(texts)
    model, tokenizer = from_pretrained(model_folder).eval(), Tokenizer.from_directory(model_folder)
    with torch.inference_mode():
        expected = model.encode_text(torch.from_numpy(tokenizer(texts))).numpy()
    np.testing.assert_array_equal(features, expected)
    assert (found.features @ features.T).shape == (5, 2)
    assert features.dtype == found.features.dtype == np.float32


def test_texts_that_are_cut_are_told(encoder, caplog):
    encoder.encode_texts(["a red thing", "a red thing " * 100])
    (told,) = caplog.messages
    assert told.startswith(f"50 % of texts are longer than {encoder.context_length} tokens and lose their end")


def test_batches_and_their_last_one_change_nothing_but_rounding(encoder, model_folder, videos):
    whole = encoder.encode_videos(videos, progress=False)
    small = mama_ray.load_encoder(model_folder, batch_size=2, num_processes=2)
    parts, again = (small.encode_videos(videos, progress=False) for _ in range(2))
    np.testing.assert_allclose(parts.features, whole.features, atol=1e-6)
    np.testing.assert_array_equal(parts.features, again.features)


def test_a_bad_file_of_each_kind_is_told_and_the_others_are_encoded(encoder, model_folder, videos, tmp_path):
    (tmp_path / "text.mp4").write_bytes(b"no video at all" * 20)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(videos[4].read_bytes()[:200])
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    bad = [tmp_path / f"{name}.mp4" for name in ("text", "empty", "cut", "pipe", "folder", "absent")]
    mixed = [bad[0], videos[0], *bad[1:4], videos[1], *bad[4:], "zero\0byte.mp4"]
    found = encoder.encode_videos(mixed, progress=False)
    assert found.paths == [str(videos[0]), str(videos[1])]
    np.testing.assert_allclose(found.features, by_hand(model_folder, videos[:2]), atol=1e-6)
    assert [error.path for error in found.errors] == [*map(str, bad), "zero\0byte.mp4"]
    assert all(error.reason and "\n" not in error.reason for error in found.errors)
    assert [error.is_of_video for error in found.errors] == [True] * 3 + [False] * 4


def test_the_limits_of_the_decoder_hold(model_folder, videos):
    encoder = mama_ray.load_encoder(model_folder, decode=DecodeConfig(max_pixels=100))
    found = encoder.encode_videos(videos[:1], progress=False)
    assert found.features.shape == (0, encoder.dim)
    assert "too large" in found.errors[0].reason


def test_nothing_to_encode_is_no_row(encoder):
    assert encoder.encode_videos([]).features.shape == encoder.encode_texts([]).shape == (0, encoder.dim)


def test_one_path_or_sentence_alone_is_told_to_be_no_list(encoder):
    with pytest.raises(UserError, match=r"\['a.mp4'\]"):
        encoder.encode_videos("a.mp4")
    with pytest.raises(UserError, match="list"):
        encoder.encode_texts("a cat")
    with pytest.raises(UserError, match="list of strings"):
        encoder.encode_texts(["a cat", None])


def test_a_run_is_its_best_checkpoint_with_the_resizing_of_its_training(videos, tmp_path):
    run = write_run(tmp_path / "run", {10: 50.0, 20: 30.0})
    best = run / "checkpoints/step_00000010"
    of_run, of_checkpoint = (mama_ray.load_encoder(source, num_processes=1) for source in (run, str(best)))
    assert of_run.transform.resize == "center_crop"
    found = of_run.encode_videos(videos[:2], progress=False)
    np.testing.assert_array_equal(found.features, by_hand(best, videos[:2], "center_crop"))
    assert of_run.features_id == of_checkpoint.features_id


def test_a_run_in_a_bucket_is_the_run(s3_bucket, encoder, model_folder):
    uri = f"s3://{s3_bucket}/runs/mine"
    for path in model_folder.iterdir():
        (Place.of(uri) / "checkpoints/step_00000010" / path.name).write_whole(path.read_bytes())
    with Place.of(uri).local() as local:
        write_manifest(local / "checkpoints/step_00000010", step=10, selection=None)
        manifest = (local / "checkpoints/step_00000010/manifest.json").read_bytes()
    (Place.of(uri) / "checkpoints/step_00000010/manifest.json").write_whole(manifest)
    found = mama_ray.load_encoder(uri).encode_texts(["a red thing"])
    np.testing.assert_array_equal(found, encoder.encode_texts(["a red thing"]))


def test_a_damaged_checkpoint_is_refused(tmp_path):
    weights = write_run(tmp_path / "run", {10: 30.0}) / "checkpoints/step_00000010/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="damaged"):
        mama_ray.load_encoder(tmp_path / "run")


def write_clip_layout(folder: Path, model_folder: Path) -> Path:
    to_hf_clip(from_pretrained(model_folder), folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((model_folder / name).read_bytes())
    return folder


@pytest.mark.parametrize("old_weights", [False, True])
def test_a_folder_in_the_layout_of_clip_works(encoder, model_folder, videos, tmp_path, old_weights):
    folder = write_clip_layout(tmp_path, model_folder)
    if old_weights:  # as OpenAI's own repository of ViT-B/32 has them
        from safetensors.torch import load_file

        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    of_clip = mama_ray.load_encoder(folder, num_frames=1)
    assert of_clip.num_frames == 1
    found = of_clip.encode_videos(videos[:1], progress=False).features
    assert np.isfinite(found).all()
    torch.manual_seed(1)  # the file has no weights for extra proxies: nothing may be drawn in their place
    again = mama_ray.load_encoder(folder, num_frames=1)
    np.testing.assert_array_equal(again.encode_videos(videos[:1], progress=False).features, found)
    expected = encoder.encode_texts(["a red thing"])
    np.testing.assert_allclose(of_clip.encode_texts(["a red thing"]), expected, atol=1e-6)


def test_a_clip_has_the_frames_of_the_training_which_may_be_others_than_the_weights_began_with(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "model")
    (tmp_path / "model/config.yaml").write_text("data: {num_frames: 7}\n")
    assert mama_ray.load_encoder(tmp_path / "model").num_frames == 7
    assert mama_ray.load_encoder(tmp_path / "model", num_frames=2).num_frames == 2
    (tmp_path / "model/config.yaml").write_text("data: {decode: {sampling: ends}}\n")
    of_training = mama_ray.load_encoder(tmp_path / "model").features_id
    ends, times = (DecodeConfig(sampling=name) for name in ("ends", "times"))
    assert mama_ray.load_encoder(tmp_path / "model", decode=ends).features_id == of_training
    assert mama_ray.load_encoder(tmp_path / "model", decode=times).features_id != of_training


def test_a_tokenizer_of_another_model_is_refused(model_folder, tmp_path):
    Tokenizer.train(["other words are here " * 9], 520, 24).save(tmp_path)
    with pytest.raises(UserError, match="token"):
        mama_ray.load_encoder(model_folder, tokenizer=tmp_path)


def test_a_name_that_is_nothing_is_one_line():
    with pytest.raises(UserError, match="runs/no-such-run"):
        mama_ray.load_encoder("runs/no-such-run")


def test_half_precision_gives_unit_features_in_float32(model_folder, videos):
    found = mama_ray.load_encoder(model_folder, precision="bfloat16").encode_videos(videos[:2], progress=False)
    np.testing.assert_allclose(np.linalg.norm(found.features, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found.features, by_hand(model_folder, videos[:2]), atol=0.05)


def test_importing_the_package_imports_nothing_and_the_encoder_needs_no_ray(model_folder, videos):
    program = f"""
import sys
before = set(sys.modules)
import mama_ray
heavy = {{"torch", "numpy", "ray", "transformers", "av", "pydantic", "tqdm"}}
assert not heavy & (set(sys.modules) - before), "import mama_ray"
assert mama_ray.__version__[0].isdigit() and not heavy & (set(sys.modules) - before)
encoder = mama_ray.load_encoder({str(model_folder)!r})
assert len(encoder.encode_videos([{str(videos[0])!r}]).features) == 1
assert not {{"ray", "vllm"}} & set(sys.modules)
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr[-2000:]
    assert "1/1" in done.stderr  # the bar


def test_the_version_is_the_one_of_pyproject():
    import tomllib

    assert mama_ray.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    with pytest.raises(AttributeError, match="no_such_name"):
        mama_ray.no_such_name  # noqa: B018
    assert {"load_encoder", "push_to_hub", "__version__"} <= set(dir(mama_ray))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"precision": "bf16"}, "unknown precision: got bf16, wanted one of bfloat16"),
        ({"device": "gpu"}, "no such device here: got gpu"),
        ({"device": "meta"}, "no such device here: got meta"),
        ({"resize": "pad"}, "unknown resize: got pad"),
        ({"num_frames": 0}, "num_frames: got 0, wanted a whole number"),
        ({"num_frames": -1}, "num_frames: got -1"),
        ({"num_processes": 0}, "num_processes: got 0"),
        ({"batch_size": 2.5}, "batch_size: got 2.5"),
    ],
)
def test_a_wrong_option_is_one_line(model_folder, wrong, told):
    with pytest.raises(UserError, match=told):
        mama_ray.load_encoder(model_folder, **wrong)


def test_what_is_no_path_and_no_text_is_one_line(encoder):
    for paths in (None, [None], [5], [b"a.mp4"]):
        with pytest.raises(UserError, match="paths to encode: got"):
            encoder.encode_videos(paths, progress=False)
    for texts in (None, 5, [None], ["half of a pair: \ud800"]):
        with pytest.raises(UserError, match="texts to encode: got"):
            encoder.encode_texts(texts)


@pytest.mark.parametrize("value", [3e38, 0.0])  # whose features overflow, or are nothing
def test_weights_whose_features_are_no_directions_are_refused(videos, tmp_path, value):
    folder = write_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    for name in ("text_projection.weight", "visual_projection.weight"):
        weights[name].fill_(value)
    save_file(weights, folder / "model.safetensors")
    encoder = mama_ray.load_encoder(folder, num_processes=1)
    with pytest.raises(UserError, match="no unit vectors"):
        encoder.encode_texts(["a red thing"])
    with pytest.raises(UserError, match="no unit vectors"):
        encoder.encode_videos(videos[:1], progress=False)
