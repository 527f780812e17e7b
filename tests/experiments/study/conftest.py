"""A very small corpus with its frames, and a model to start from; made once."""

from pathlib import Path
from typing import NamedTuple

import pytest

from mama_ray.config import with_overrides
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.folder import write_corpus
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.experiments.study.cell import CellConfig, pictures_of
from mama_ray.experiments.study.clip_arrays import ClipArrays, load_split, write_frames
from mama_ray.experiments.study.job import PretrainingConfig
from mama_ray.experiments.study.pretrain import pretrain


class SmallStudy(NamedTuple):
    """What cells of the tests share."""

    cell: CellConfig
    frames_path: Path
    pretrained: Path


@pytest.fixture(scope="session")
def small_study(tmp_path_factory) -> SmallStudy:
    """A study of 48 training clips with every kind of fault, and a model that two steps have trained."""
    folder = tmp_path_factory.mktemp("study")
    corpus = CorpusConfig(num_train=48, num_meta=32, num_val=16, num_test=16, swapped_rate=0.4, seed=7)
    cell = CellConfig(
        corpus=corpus,
        meta_set={"size": 16},
        meta={"batch_size": 8},
        num_steps=4,
        batch_size=16,
        num_evaluations=2,
        seed=7,
    )
    pictures = pictures_of(corpus)
    write_corpus(pictures, folder / "corpus")
    frames_path = write_frames(pictures, folder / "corpus", num_frames=4)
    source = PretrainingConfig(num_steps=2, batch_size=16)
    source = with_overrides(source, {"corpus.num_train": 32, "corpus.num_val": 8, "corpus.num_test": 8})
    write_corpus(source.corpus, folder / "source")
    pretrain(source, write_frames(source.corpus, folder / "source", num_frames=4), folder / "pretrained")
    return SmallStudy(cell, frames_path, folder / "pretrained")


@pytest.fixture
def splits(small_study) -> dict[str, ClipArrays]:
    """Its clips by split."""
    tokenizer = Tokenizer.from_directory(small_study.pretrained)
    corpus = small_study.cell.seeded_corpus
    return {name: load_split(corpus, name, small_study.frames_path, tokenizer, {}) for name in corpus.num_clips}
