"""Files for other programs have the model's own names, and the sum of weights and adapters, of every backbone."""

import torch
from safetensors.torch import load_file

from mama_ray.models.hf_encoder.layout import export_to_hf
from mama_ray.models.pretrained import from_pretrained
from mama_ray.models.settings import LoraConfig
from mama_ray.models.trained_part import choose_trained_part
from mama_ray.models.vgt.load import export_vgt_release
from mama_ray.models.violet.load import export_violet_release
from tests.models.hf_encoder.hf_models import build, clips, texts, theirs
from tests.models.test_trained_part import fill_factors
from tests.models.vgt.small import small_model
from tests.models.violet.small import small_violet


def adapt(model):
    choose_trained_part(model, lora=LoraConfig(rank=1))
    fill_factors(model)


def test_model_of_transformers_is_loaded_by_it_again_with_our_features(tmp_path):
    build("clip").save_pretrained(tmp_path / "begin")
    model = from_pretrained(f"hf:{tmp_path / 'begin'}")
    adapt(model)
    export_to_hf(model, tmp_path / "end")
    loaded, report = type(build("clip")).from_pretrained(tmp_path / "end", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    frames, ids = clips(num_frames=1), texts()
    video, text = theirs(loaded.eval(), frames, ids)
    before = theirs(build("clip"), frames, ids)[0]
    with torch.no_grad():
        torch.testing.assert_close(model.encode_video(frames), video[:, 0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.encode_text(ids), text, rtol=1e-4, atol=1e-5)
    assert (video - before).abs().max() > 1e-3


def test_release_of_violet_has_merged_weights_under_its_names(tmp_path):
    export_violet_release(small_violet(), tmp_path / "before.safetensors")
    model = small_violet()
    adapt(model)
    export_violet_release(model, tmp_path / "after.safetensors")
    require_same_names(tmp_path, "trsfr.layer.0.attention.self.query.weight")


def test_release_of_vgt_has_merged_weights_under_its_names(tmp_path):
    export_vgt_release(small_model(), tmp_path / "before.safetensors")
    model = small_model()
    adapt(model)
    export_vgt_release(model, tmp_path / "after.safetensors")
    require_same_names(tmp_path, "mmt.layer.0.attention.q_lin.weight")


def require_same_names(folder, adapted: str) -> None:
    before, after = (load_file(folder / f"{name}.safetensors") for name in ("before", "after"))
    assert {name: value.shape for name, value in before.items()} == {name: v.shape for name, v in after.items()}
    changed = {name.removeprefix("module.") for name in before if not torch.equal(before[name], after[name])}
    assert adapted in changed and not any("layer_norm" in name for name in changed)
