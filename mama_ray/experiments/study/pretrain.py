"""What every fine-tuning starts from: a small model trained on a large, nearly clean split of the source domain."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mama_ray.config import decisive_values, with_overrides
from mama_ray.data.synthetic.config import LabelRate, corpus_hash
from mama_ray.data.synthetic.generate import describe_clip
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.experiments.study.cell import CELL_VERSION, CellConfig, pictures_of
from mama_ray.experiments.study.clip_arrays import load_split
from mama_ray.experiments.study.job import PretrainingConfig
from mama_ray.experiments.study.run_cell import training_batches
from mama_ray.models.pretrained import from_preset, preset, save_pretrained
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.loop import train
from mama_ray.training.state import build_state
from mama_ray.weighting.settings import MetaConfig, WeightingConfig

_TOKENIZER_CAPTIONS = 4000


def describe_start(config: PretrainingConfig) -> dict[str, Any]:
    """Return what names the pretrained model: part of every cell's hash."""
    return {**decisive_values(config), "corpus": corpus_hash(config.corpus), "version": CELL_VERSION}


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
    if config.words == "all":
        more = {"topic_facts": "own", "num_val": 0, "num_test": 0}
        more |= {"label_rate": dict.fromkeys(LabelRate.model_fields, 0.5)}
        corpus = with_overrides(corpus, more)
        texts += [describe_clip(corpus, "train", number).captions[0].text for number in numbers]
    return Tokenizer.train(texts, config.vocab_size, config.context_length)
