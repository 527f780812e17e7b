"""The program that makes the encoder of the package, with its smallest sizes."""

import numpy as np
import torch

import mama_ray
from mama_ray.config import with_overrides
from mama_ray.experiments.embedded_encoder import make_encoder
from mama_ray.experiments.study.job import PretrainingConfig
from mama_ray.models.weight_files import read_state

SMALL = {"corpus.num_train": 24, "corpus.num_val": 2, "corpus.num_test": 2, "num_steps": 2, "batch_size": 8}


def test_what_is_made_has_the_features_of_what_was_learned_in_half_the_bytes(tmp_path):
    folder = make_encoder(with_overrides(PretrainingConfig(), SMALL), tmp_path)
    learned = tmp_path / "learned"
    whole, half = (path / "model.safetensors" for path in (learned, folder))
    assert 0.4 < half.stat().st_size / whole.stat().st_size < 0.6
    assert {value.dtype for value in read_state(folder).values()} == {torch.float16}
    found, wanted = (
        mama_ray.load_encoder(path, num_processes=1).encode_texts(["a red thing", "blue"]) for path in (folder, learned)
    )
    np.testing.assert_allclose(found, wanted, atol=2e-3)
