"""What a narrator's training starts from is looked at before anything starts; settings of another kind are refused."""

from pathlib import Path

import numpy as np
import pytest

from mama_ray.captioning.narrator.kinds import KINDS
from mama_ray.config import ConfigError, parse_config, with_overrides
from mama_ray.config.fields import decisive_values
from mama_ray.errors import UserError
from mama_ray.orchestration.narrator.data import NarratorData
from mama_ray.orchestration.narrator.job import NarratorJob, sources_of, with_absolute_paths
from mama_ray.orchestration.narrator.sources import look_at_sources, refuse_unused, settings_at_hand
from mama_ray.orchestration.narrator.validation import choose_val_rows
from tests.captioning.narrator.gated_parts import write_dual_encoder, write_gpt2

GATED = {"model.preset": "gated_tiny", "model.gated.trains": "all"}


def job(**overrides) -> NarratorJob:
    return with_overrides(NarratorJob(), {name.replace("__", "."): value for name, value in overrides.items()})


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return write_dual_encoder(tmp_path_factory.mktemp("encoder"))


def test_a_run_stands_for_its_best_checkpoint_and_parts_are_local_folders(encoder, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    gpt2 = write_gpt2(tmp_path / "gpt2")
    asked = with_overrides(NarratorJob(), GATED | {
        "model.gated.video_encoder": str(encoder), "model.gated.language_model": str(gpt2)})  # fmt: skip
    look_at_sources(asked)
    with settings_at_hand(asked) as settings:
        assert settings.model.gated.video_encoder == str(encoder)
        assert settings.model.gated.language_model == str(gpt2)
    with pytest.raises(UserError, match="no checkpoint"):
        look_at_sources(with_overrides(asked, {"model.gated.video_encoder": str(run)}))


@pytest.mark.parametrize("name", ["pretrained", "gated.video_encoder", "gated.language_model"])
def test_a_source_that_can_be_no_model_is_refused_at_once(tmp_path, name):
    (tmp_path / "empty").mkdir()
    gated = {} if name == "pretrained" else GATED
    for source, words in (
        ("no/such/model", "no such model"),
        (str(tmp_path / "empty"), "no.* checkpoint|not the folder"),
    ):
        with pytest.raises(UserError, match=words):
            look_at_sources(with_overrides(NarratorJob(), gated | {f"model.{name}": source}))


def test_local_sources_become_absolute_and_hub_ids_stay(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoder").mkdir()
    parts = {"model.gated.video_encoder": "encoder", "model.gated.language_model": "openai-community/gpt2"}
    absolute = with_absolute_paths(with_overrides(NarratorJob(), GATED | parts))
    assert sources_of(absolute.model) == {
        "gated.video_encoder": str(tmp_path / "encoder"), "gated.language_model": "openai-community/gpt2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "overrides", "named"),
    [
        ("llava", {"frames.num_frames": 4}, "frames says nothing to a llava narrator"),
        ("llava", {"model.gated.loss": "padded"}, "model.gated says nothing"),
        ("gated", GATED | {"prompt.text": "what happens?"}, "prompt says nothing to a gated narrator"),
        ("gated", GATED | {"model.trains": "projector"}, "model.trains says nothing"),
        ("gated", GATED | {"grid.num_candidates": 12}, "grid says nothing"),
    ],
)
def test_settings_of_another_kind_of_narrator_are_refused(kind, overrides, named):
    with pytest.raises(UserError, match=named):
        refuse_unused(with_overrides(NarratorJob(), overrides), KINDS[kind].UNUSED, kind)
    refuse_unused(NarratorJob(), KINDS[kind].UNUSED, kind)


def test_a_run_of_before_the_gated_narrator_is_the_one_that_it_was():
    """What came later is left out where it has its default, so nothing of an earlier run is another now."""
    values = decisive_values(NarratorJob())
    assert {"frames", "val_every", "val_captions"}.isdisjoint(values)
    assert "gated" not in values["model"]


def test_clips_of_val_are_spread_evenly_or_every_nth():
    data = NarratorData(None, None, None, None, {"num_clips": {"val": 1600}})
    assert choose_val_rows(job(num_val_clips=3), data).tolist() == [0, 800, 1599]
    assert choose_val_rows(job(val_every=400), data).tolist() == [0, 400, 800, 1200]
    empty = NarratorData(None, None, None, None, {"num_clips": {"val": 0}})
    assert choose_val_rows(job(), empty).tolist() == choose_val_rows(job(val_every=2), empty).tolist() == []
    assert choose_val_rows(job(), data).dtype == np.int64
    with pytest.raises(ConfigError, match="give one"):
        parse_config(NarratorJob, ["--num_val_clips", "10", "--val_every", "5"])
