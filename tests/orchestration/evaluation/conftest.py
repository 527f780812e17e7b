"""A model of random weights with its tokenizer."""

from pathlib import Path

import pytest
import torch

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.models.clip_vip.model import ClipVip
from mama_ray.models.clip_vip.presets import PRESETS
from mama_ray.models.pretrained import save_pretrained


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["a red green blue white thing number moves 0123456789"] * 3, 514, 24)
    config = PRESETS["tiny"].model_copy(update={"vocab_size": tokenizer.vocab_size, "context_length": 24})
    save_pretrained(ClipVip(config), folder, tokenizer=tokenizer)
    return folder
