"""Released CLIP-ViP checkpoints: the sizes are read off the shapes, so the heads are 64 wide."""

import pytest
import torch
from safetensors.torch import save_file

from mama_ray.errors import UserError
from mama_ray.models.clip_vip.load import import_clip_vip_release
from mama_ray.models.clip_vip.model import ClipVip, ClipVipConfig
from mama_ray.models.pretrained import from_pretrained
from mama_ray.models.transformer import EncoderConfig


@pytest.fixture(scope="module")
def release_model() -> ClipVip:
    torch.manual_seed(0)
    tower = EncoderConfig(width=64, num_layers=1, num_heads=1)
    config = ClipVipConfig(video=tower, text=tower, dim=8, image_size=16, patch_size=8, num_frames=3, vocab_size=40)
    return ClipVip(config)


@pytest.fixture(scope="module")
def release(release_model) -> dict[str, torch.Tensor]:
    state = {f"clipmodel.{key}": tensor.half() for key, tensor in release_model.state_dict().items()}
    state["clipmodel.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    state["clipmodel.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    return state


@pytest.mark.parametrize("wrap", ["plain", "model", "module", "both", "safetensors"])
def test_released_layout_loads_in_every_known_wrapping(release_model, release, tmp_path, wrap):
    content = {f"module.{key}": tensor for key, tensor in release.items()} if wrap in ("module", "both") else release
    path = tmp_path / "pretrain_clipvip.pt"
    if wrap == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(content, path)
    else:
        torch.save({"model": content} if wrap in ("model", "both") else content, path)
    model, report = import_clip_vip_release(path)
    assert model.config == release_model.config
    assert len(report.dropped) == 2
    assert not report.fresh
    for key, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        if key != "logit_scale":
            assert torch.equal(tensor, release_model.state_dict()[key].half().float()), key
    assert from_pretrained(path).config == model.config


@pytest.mark.parametrize("change", ["no prefix", "extra", "missing", "nested"])
def test_any_other_layout_of_a_release_is_refused(release, tmp_path, change):
    content = dict(release)
    if change == "no prefix":
        content = {key.removeprefix("clipmodel."): tensor for key, tensor in content.items()}
    elif change == "extra":
        content["clipmodel.vision_model.encoder.layers.0.adapter.weight"] = torch.zeros(1)
    elif change == "missing":
        del content["clipmodel.vision_model.post_layernorm.bias"]
    else:
        content = {"state_dict": content, "epoch": 3}
    torch.save(content, tmp_path / "release.pt")
    with pytest.raises(UserError):
        import_clip_vip_release(tmp_path / "release.pt")


class Payload:
    """An object whose unpickling would run code."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_release_with_pickled_objects_is_refused_and_runs_nothing(release, tmp_path, capsys):
    torch.save({**release, "args": Payload()}, tmp_path / "release.pt")
    with pytest.raises(UserError, match="tensors only"):
        import_clip_vip_release(tmp_path / "release.pt")
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("num_bytes", [0, 50, 3000])
def test_truncated_release_is_one_clear_error(release, tmp_path, num_bytes):
    path = tmp_path / "release.pt"
    torch.save(release, path)
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(UserError):
        import_clip_vip_release(path)
