"""What every fine-tuning starts from: a small model trained on a large, nearly clean split of the source domain."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from mama_ray.config import Config, with_overrides
from mama_ray.data.synthetic.config import CorpusConfig, corpus_hash
from mama_ray.data.synthetic.generate import describe_clip
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.experiments.study.cell import CELL_VERSION, CellConfig, pictures_of
from mama_ray.experiments.study.clip_arrays import load_split
from mama_ray.experiments.study.run_cell import training_batches
from mama_ray.models.pretrained import from_preset, preset, save_pretrained
from mama_ray.objectives.contrastive import ContrastiveConfig
from mama_ray.training.loop import train
from mama_ray.training.optim import OptimConfig
from mama_ray.training.state import build_state
from mama_ray.weighting.step import MetaConfig
from mama_ray.weighting.weight_net import WeightingConfig

_TOKENIZER_CAPTIONS = 4000


class PretrainingConfig(Config):
    """The pretraining."""

    corpus: CorpusConfig = CorpusConfig(
        domain="source",
        seed=1000,
        num_train=8000,
        num_meta=0,
        num_val=200,
        num_test=400,
        incomplete_rate=0.05,
        wrong_rate=0.02,
        swapped_rate=0.03,
        zipf_exponent=0.0,
    )
    """The clips that are learned from."""

    preset: str = "tiny"
    """Model preset."""

    size: dict[str, int] = {
        "video.width": 64,
        "video.num_layers": 2,
        "video.num_heads": 2,
        "text.width": 48,
        "text.num_layers": 2,
    }
    """Fields of the preset that are replaced, by dotted key."""

    vocab_size: int = Field(768, ge=514)
    """Tokens of the tokenizer, which is trained on captions of all domains, as CLIP's knows words that it never met."""

    context_length: int = Field(20, ge=4)
    """Tokens of a caption."""

    num_steps: int = Field(1250, ge=1)
    """Training steps."""

    batch_size: int = Field(64, ge=2)
    """Clips per step."""

    optim: OptimConfig = OptimConfig(lr=2e-3)
    """The optimiser."""

    seed: int = Field(0, ge=0)
    """Seed of the weights and of the clip order."""


def describe_start(config: PretrainingConfig) -> dict[str, Any]:
    """Return what names the pretrained model: part of every cell's hash."""
    dumped = config.model_dump(mode="json", exclude={"corpus"})
    return {**dumped, "corpus": corpus_hash(config.corpus), "version": CELL_VERSION}


def num_frames_of(config: PretrainingConfig) -> int:
    """Return the frames per clip that the model takes."""
    return preset(config.preset).num_frames


def pretrain(config: PretrainingConfig, frames_path: Path, folder: Path) -> None:
    """Train and write the model with its tokenizer; config.json comes last and makes the folder whole."""
    torch.manual_seed(config.seed)
    tokenizer = train_tokenizer(config)
    sizes = {**config.size, "vocab_size": tokenizer.vocab_size, "context_length": config.context_length}
    model = from_preset(config.preset, sizes)
    clips = load_split(config.corpus, "train", frames_path, tokenizer, {})
    cell = CellConfig(batch_size=config.batch_size, seed=config.seed, num_steps=config.num_steps)
    state = build_state(
        model,
        objective=ContrastiveConfig(margin=0.0),
        weighting=WeightingConfig(kind="uniform"),
        meta=MetaConfig(),
        optim=config.optim,
        num_steps=config.num_steps,
        global_batch_size=config.batch_size,
        seed=config.seed,
    )
    train(state, training_batches(clips, cell), [], report=lambda record: None)
    save_pretrained(model, folder, tokenizer)


def train_tokenizer(config: PretrainingConfig) -> Tokenizer:
    """Return a tokenizer that knows the words of all domains."""
    corpus = with_overrides(pictures_of(config.corpus), {"domain": "all", "num_train": _TOKENIZER_CAPTIONS})
    numbers = np.arange(_TOKENIZER_CAPTIONS).tolist()
    texts = [describe_clip(corpus, "train", number).captions[0].text for number in numbers]
    return Tokenizer.train(texts, config.vocab_size, config.context_length)
