"""A model folder of a tiny dual encoder with its tokenizer, for the tests of the encoder, of search and of evaluation.

Their conftests import the fixtures.
"""

from pathlib import Path

import pytest
import torch

import mama_ray
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.models.clip_vip.model import ClipVip
from mama_ray.models.clip_vip.presets import PRESETS
from mama_ray.models.pretrained import save_pretrained
from mama_ray.training.manifest import step_directory, write_manifest


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def encoder(model_folder) -> mama_ray.Encoder:
    return mama_ray.load_encoder(model_folder, num_processes=1)


def write_model(folder: Path, *, seed: int = 0) -> Path:
    """Write a model with random weights, and return its folder."""
    torch.manual_seed(seed)
    tokenizer = Tokenizer.train(["a red green blue white thing number moves 0123456789"] * 3, 514, 24)
    config = PRESETS["tiny"].model_copy(update={"vocab_size": tokenizer.vocab_size, "context_length": 24})
    save_pretrained(ClipVip(config), folder, tokenizer=tokenizer)
    return folder


def write_run(run: Path, scores: dict[int, float], *, config: str = "data: {resize: random_resized_crop}\n") -> Path:
    """Write a run of one checkpoint per step, each of other weights, with the metric that training selects by."""
    for step, score in scores.items():
        folder = write_model(run / "checkpoints" / step_directory(step), seed=step)
        (folder / "config.yaml").write_text(config)
        write_manifest(folder, step=step, selection={"metric": "val/t2v_R@1", "value": score})
    return run
