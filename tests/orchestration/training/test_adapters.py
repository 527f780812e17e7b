"""A run of adapters on a CLIP of transformers, as a user starts it: killed, resumed, exported."""

import hashlib
from pathlib import Path

import pytest
import torch

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.models.hf_encoder.layout import export_to_hf
from mama_ray.models.hf_encoder.model import HfEncoder
from mama_ray.models.pretrained import from_pretrained
from tests.models.hf_encoder.hf_models import build_sized
from tests.orchestration.runs.training_runs import (
    NUM_STEPS,
    checkpoint,
    outcome,
    start_training,
    wait_until,
    write_shards,
)
from tests.processes import kill_tree

CONTEXT = 16


def write_clip(folder: Path) -> Path:
    tokenizer = Tokenizer.train(["a red green blue circle square moves left right"] * 3, 514, CONTEXT)
    build_sized("clip", tokenizer.vocab_size, CONTEXT, eos=tokenizer.eot_id).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.mark.ray
@pytest.mark.slow
def test_killed_run_of_adapters_resumes_bit_for_bit_and_transformers_loads_its_export(tmp_path):
    from transformers import CLIPModel

    shards, clip = write_shards(tmp_path / "shards"), write_clip(tmp_path / "clip")
    lora = {"rank": 2, "dropout": 0.1, "targets": ["*.self_attn", "*.mlp"]}
    settings = {"num_workers": 1, "model": {"pretrained": f"hf:{clip}", "lora": lora}, "optim": {"ema_decay": 0.5}}
    for run in ("undisturbed", "killed"):
        process = start_training(tmp_path, shards, run, **settings)
        if run == "killed":
            wait_until(checkpoint(tmp_path, run, 4).is_dir)
            kill_tree(process)
            assert not checkpoint(tmp_path, run, NUM_STEPS).is_dir(), "it was killed too late to prove anything"
            process = start_training(tmp_path, shards, run, **settings)
        assert process.wait(timeout=400) == 0, (tmp_path / f"{run}.log").read_text()[-3000:]
    assert "resumed at step" in (tmp_path / "killed.log").read_text()
    assert outcome(tmp_path, "killed") == outcome(tmp_path, "undisturbed")
    ends = [checkpoint(tmp_path, run, NUM_STEPS) for run in ("undisturbed", "killed")]
    for name in ("adapters.safetensors", "trained.safetensors", "ema_adapters.safetensors"):
        ours, theirs = (hashlib.sha256((end / name).read_bytes()).hexdigest() for end in ends)
        assert ours == theirs, name

    ours = from_pretrained(ends[1])
    assert isinstance(ours, HfEncoder)
    export_to_hf(ours, tmp_path / "export", Tokenizer.from_directory(ends[1]))
    theirs, report = CLIPModel.from_pretrained(tmp_path / "export", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    before = CLIPModel.from_pretrained(clip).state_dict()
    moved = {name for name, value in theirs.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in moved} - {""} == {
        "q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2",
    }  # fmt: skip
    ids = torch.tensor([[3, 5, 7, ours.config.hf["text_config"]["eos_token_id"]]])
    with torch.no_grad():
        features = theirs.get_text_features(input_ids=ids)
        features = features if isinstance(features, torch.Tensor) else features.pooler_output
        torch.testing.assert_close(
            torch.nn.functional.normalize(features, dim=-1), ours.encode_text(ids), rtol=1e-4, atol=1e-5
        )
