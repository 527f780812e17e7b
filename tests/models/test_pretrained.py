import json

import pytest
import torch
from safetensors.torch import save_file

from mama_ray.errors import UserError
from mama_ray.models.clip_vip.model import ClipVip
from mama_ray.models.pretrained import from_pretrained, save_pretrained


@pytest.fixture
def directory(model, tmp_path):
    save_pretrained(model.float(), tmp_path / "shared")
    return tmp_path / "shared"


class Notes:
    """Stands where a tokenizer would."""

    def save(self, directory) -> None:
        (directory / "tokenizer.json").write_text("{}")


def test_round_trip_gives_back_config_keys_and_bytes(model, directory, tmp_path):
    loaded = from_pretrained(directory)
    assert loaded.config == model.config
    assert all(torch.equal(loaded.state_dict()[key], tensor) for key, tensor in model.state_dict().items())
    save_pretrained(loaded, tmp_path / "again", tokenizer=Notes())
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (directory / name).read_bytes()
    assert sorted(file.name for file in (tmp_path / "again").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_gradient_checkpointing_is_not_shared_with_the_weights(model, tmp_path):
    config = model.config.model_copy(update={"gradient_checkpointing": True})
    save_pretrained(ClipVip(config), tmp_path)
    assert not from_pretrained(tmp_path).config.gradient_checkpointing
    model = from_pretrained(tmp_path, gradient_checkpointing=True)
    assert isinstance(model, ClipVip) and model.vision_model.encoder.gradient_checkpointing


def test_other_frame_count_or_image_size_is_refused_unless_asked_for(directory):
    with pytest.raises(UserError, match="temporal_embedding.*got \\(1, 3, 24\\), wanted \\(1, 5, 24\\)"):
        from_pretrained(directory, num_frames=5)
    with pytest.raises(UserError, match="position_embedding"):
        from_pretrained(directory, image_size=32)
    model = from_pretrained(directory, num_frames=5, image_size=32, interpolate=True)
    assert isinstance(model, ClipVip)
    assert model.vision_model.embeddings.temporal_embedding.shape == (1, 5, 24)
    assert model.encode_video(torch.zeros(1, 5, 32, 32, 3, dtype=torch.uint8)).shape == (1, 12)


def test_interpolated_load_equals_the_model_that_interpolates_as_it_runs(directory, frames):
    five_frames = frames[:, [0, 1, 2, 1, 0]]
    stored = from_pretrained(directory).to(torch.float64).encode_video(five_frames)
    resampled = from_pretrained(directory, num_frames=5, interpolate=True).to(torch.float64).encode_video(five_frames)
    torch.testing.assert_close(resampled, stored, rtol=1e-5, atol=1e-6)


def test_missing_unexpected_and_mismatched_keys_are_all_named(model, directory):
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    del state["text_projection.weight"]
    state["adapter.weight"] = torch.zeros(2)
    state["visual_projection.weight"] = torch.zeros(3, 24)
    save_file(state, directory / "model.safetensors")
    with pytest.raises(UserError) as caught:
        from_pretrained(directory)
    for words in (
        "missing: text_projection.weight",
        "unexpected: adapter.weight",
        "visual_projection.weight: got (3, 24)",
    ):
        assert words in str(caught.value)


def test_video_keys_may_not_be_absent_from_an_own_directory(model, directory):
    state = {key: tensor for key, tensor in model.state_dict().items() if not key.endswith("added_cls")}
    save_file(state, directory / "model.safetensors")
    with pytest.raises(UserError, match="missing: vision_model.embeddings.added_cls"):
        from_pretrained(directory)


@pytest.mark.parametrize("num_bytes", [0, 4, 100, 5000])
def test_truncated_weights_are_one_clear_error(directory, num_bytes):
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:num_bytes])
    with pytest.raises(UserError, match="model.safetensors is damaged"):
        from_pretrained(directory)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config.json"),
        ("{", "not valid JSON"),
        ("[]", "no JSON object"),
        ("{}", "another kind of model"),
        ('{"model_type": "bert"}', "bert"),
        ('{"model_type": ["clip_vip"]}', "another kind of model"),
        ('{"model_type": "clip_vip", "patch_sise": 16}', "patch_sise"),
    ],
)
def test_directory_that_is_no_model_is_one_clear_error(directory, content, message):
    (directory / "config.json").unlink()
    if content is not None:
        (directory / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        from_pretrained(directory)


def test_directory_without_weights_is_one_clear_error(directory):
    (directory / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        from_pretrained(directory)


def test_logit_scale_that_is_not_a_logarithm_is_refused(model, tmp_path):
    with torch.no_grad():
        model.logit_scale.fill_(100.0)
    save_pretrained(model, tmp_path)
    with pytest.raises(UserError, match="logit scale"):
        from_pretrained(tmp_path)


def test_unknown_override_is_refused(directory):
    with pytest.raises(UserError, match="frames_per_clip"):
        from_pretrained(directory, frames_per_clip=3)


@pytest.mark.parametrize("source", ["./absent", "/absent/model", "a/b/c", "s3://bucket/model"])
def test_absent_path_is_one_clear_error(source):
    with pytest.raises(UserError, match="no such model"):
        from_pretrained(source)


def test_hub_id_that_cannot_be_reached_is_one_clear_error():
    with pytest.raises(UserError, match="nobody/absent-model"):
        from_pretrained("nobody/absent-model", local_files_only=True)


def test_config_json_is_the_last_file_to_appear(model, tmp_path):
    class Failing:
        def save(self, directory) -> None:
            assert not (directory / "config.json").exists()
            raise OSError(28, "No space left on device")

    save_pretrained(model, tmp_path)
    with pytest.raises(OSError, match="No space"):
        save_pretrained(model, tmp_path, tokenizer=Failing())
    with pytest.raises(UserError, match="config.json"):
        from_pretrained(tmp_path)


def test_config_file_is_readable_json_with_the_model_type(directory):
    content = json.loads((directory / "config.json").read_text())
    assert content["model_type"] == "clip_vip"
    assert content["video"] == {"width": 24, "num_layers": 2, "num_heads": 3, "mlp_ratio": 4}


@pytest.mark.parametrize("key", [1, (1, 2)])
@pytest.mark.parametrize("wrap", [dict, lambda state: {"model": state}])
def test_a_file_whose_tensors_have_no_names_is_one_clear_error(key, wrap, tmp_path):
    torch.save(wrap({key: torch.ones(1), "a": torch.ones(1)}), tmp_path / "weights.pt")
    with pytest.raises(UserError, match="is not a flat state dict"):
        from_pretrained(tmp_path / "weights.pt")
