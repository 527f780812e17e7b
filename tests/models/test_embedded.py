"""The dual encoder that comes with the package: made as it says, small, right about clips that it never saw."""

from pathlib import Path

import numpy as np
import pytest
import torch

import mama_ray
from mama_ray.config import load_config, with_overrides
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import GeneratedClip, generate_clip
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.experiments.study.job import PretrainingConfig
from mama_ray.experiments.study.pretrain import train_tokenizer
from mama_ray.models.hub import EMBEDDED_ENCODER, evaluated_model, local_model, without_prefix
from mama_ray.models.pretrained import describe_model, preset
from mama_ray.models.weight_files import read_state
from tests.encoder.tiny_encoder import write_model

FOLDER = Path(without_prefix(EMBEDDED_ENCODER))
CONFIG = Path(__file__).resolve().parents[2] / "configs/encoder/embedded.yaml"
NUM_CLIPS = 192
SAID = {"left": "moving left", "right": "moving right", "up": "moving up", "down": "moving down",
        "orbits": "orbiting", "grows": "growing", "shrinks": "shrinking", "blinks": "blinking"}  # fmt: skip


@pytest.fixture(scope="module")
def embedded() -> mama_ray.Encoder:
    return mama_ray.load_encoder(EMBEDDED_ENCODER, num_processes=1)


@pytest.fixture(scope="module")
def clips() -> list[GeneratedClip]:
    return [generate_clip(CorpusConfig(), "test", number) for number in range(NUM_CLIPS)]


@pytest.fixture(scope="module")
def videos(embedded, clips) -> np.ndarray:
    return np.stack(embedded.encode_each([clip.video for clip in clips]))


def test_it_is_small_and_says_how_it_was_made():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3_000_000
    assert {value.dtype for value in read_state(FOLDER).values()} == {torch.float16}
    assert "python -m mama_ray.experiments.embedded_encoder --storage" in (FOLDER / "README.md").read_text()


def test_it_is_what_its_config_makes(tmp_path):
    config = load_config(PretrainingConfig, CONFIG)
    tokenizer = train_tokenizer(config)
    tokenizer.save(tmp_path)
    assert (FOLDER / "tokenizer.json").read_text() == (tmp_path / "tokenizer.json").read_text()
    sizes = {"vocab_size": tokenizer.vocab_size, "context_length": config.context_length}
    assert describe_model(FOLDER) == with_overrides(preset(config.preset), config.size | sizes)
    assert Tokenizer.from_directory(FOLDER).context_length == config.context_length


def test_no_clip_of_the_corpus_that_jobs_make_by_default_was_learned_from():
    assert load_config(PretrainingConfig, CONFIG).corpus.seed != CorpusConfig().seed


def test_it_finds_clips_that_it_never_saw_by_their_captions(embedded, clips, videos):
    similarity = embedded.encode_texts([clip.clip.captions[0].text for clip in clips]) @ videos.T
    assert (similarity.argmax(axis=1) == np.arange(NUM_CLIPS)).mean() >= 0.98


def test_a_few_words_find_the_clips_that_show_them(embedded, clips, videos):
    """Of each colour, shape and motion: the share of right clips among as many first ones as are right, at most 5."""
    shown = [tuple(clip.clip.truth["facts"]["objects"][0][name] for name in ("colour", "shape", "motion"))
             for clip in clips]  # fmt: skip
    precisions = []
    for colour, shape, motion in sorted(set(shown)):
        is_right = np.array([one == (colour, shape, motion) for one in shown])
        (query,) = embedded.encode_texts([f"{colour} {shape} {SAID[motion]}"])
        best = np.argsort(-(videos @ query), kind="stable")[: min(5, is_right.sum())]
        precisions.append(is_right[best].mean())
    assert len(precisions) > 100
    assert np.mean(precisions) >= 0.95


def test_its_name_is_no_folder_and_none_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / EMBEDDED_ENCODER)
    for open_model in (local_model, evaluated_model):
        with open_model(EMBEDDED_ENCODER) as folder:
            assert folder == FOLDER
    assert mama_ray.load_encoder(EMBEDDED_ENCODER, num_processes=1).source == EMBEDDED_ENCODER
    with local_model(f"./{EMBEDDED_ENCODER}") as folder:
        assert folder.resolve() == tmp_path / EMBEDDED_ENCODER
