"""The dual encoder that comes with the package: made as it says, small, right about clips that it never saw."""

from pathlib import Path

import numpy as np
import pytest
import torch

import mama_ray
from mama_ray.config import load_config
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import GeneratedClip, generate_clip
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.models.embedded import write_embedded
from mama_ray.models.hub import EMBEDDED_ENCODER, evaluated_model, local_model, without_prefix
from mama_ray.models.pretrained import describe_model
from mama_ray.models.timesformer.presets import PRESETS
from mama_ray.models.weight_files import read_state
from mama_ray.orchestration.training.job import TrainJob
from tests.encoder.tiny_encoder import write_model

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(without_prefix(EMBEDDED_ENCODER))
CONFIG = ROOT / "configs/train/embedded_tower.yaml"
NUM_CLIPS = 192


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
    assert f"python jobs/train.py {CONFIG.relative_to(ROOT)}" in (FOLDER / "README.md").read_text()


def test_it_is_what_its_config_makes():
    kept, wanted = load_config(TrainJob, FOLDER / "config.yaml"), load_config(TrainJob, CONFIG)
    assert kept == wanted.model_copy(update={"run": kept.run})
    sizes = {
        "vocab_size": Tokenizer.from_directory(FOLDER).vocab_size,
        "context_length": wanted.data.context_length,
        "num_frames": wanted.data.num_frames,
    }
    assert wanted.model.preset is not None
    assert describe_model(FOLDER) == PRESETS[wanted.model.preset].model_copy(update=sizes)


def test_no_clip_of_the_corpus_that_jobs_make_by_default_was_learned_from():
    assert load_config(TrainJob, FOLDER / "config.yaml").corpus.seed != CorpusConfig().seed


def test_it_finds_clips_that_it_never_saw_by_their_captions(embedded, clips, videos):
    similarity = embedded.encode_texts([clip.clip.captions[0].text for clip in clips]) @ videos.T
    assert (similarity.argmax(axis=1) == np.arange(NUM_CLIPS)).mean() >= 0.8


def test_the_first_clips_have_the_colour_and_the_motion_of_a_caption(embedded, clips, videos):
    """Shapes are smaller than one of its patches: where it is wrong, it is about these."""
    similarity = embedded.encode_texts([clip.clip.captions[0].text for clip in clips]) @ videos.T
    things = [clip.clip.truth["facts"]["objects"][0] for clip in clips]
    for name in ("colour", "motion"):
        wanted = np.array([thing[name] for thing in things])
        assert (wanted[similarity.argmax(axis=1)] == wanted).mean() > 0.98


def test_its_name_is_no_folder_and_none_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / EMBEDDED_ENCODER)
    for open_model in (local_model, evaluated_model):
        with open_model(EMBEDDED_ENCODER) as folder:
            assert folder == FOLDER
    assert mama_ray.load_encoder(EMBEDDED_ENCODER, num_processes=1).source == EMBEDDED_ENCODER
    with local_model(f"./{EMBEDDED_ENCODER}") as folder:
        assert folder.resolve() == tmp_path / EMBEDDED_ENCODER


def test_a_checkpoint_keeps_its_features_in_half_the_bytes_and_no_places(tmp_path):
    whole, half = write_model(tmp_path / "whole"), tmp_path / "half"
    (whole / "config.yaml").write_text("storage: /secret/place\nshards: s3://mine\nseed: 5\n")
    write_embedded(whole, half)
    assert (half / "config.yaml").read_text() == "seed: 5\n"
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (half, whole)]
    assert 0.45 < sizes[0] / sizes[1] < 0.55
    found, wanted = (
        mama_ray.load_encoder(folder, num_processes=1).encode_texts(["a red thing", "blue"]) for folder in (half, whole)
    )
    np.testing.assert_allclose(found, wanted, atol=2e-3)
