"""Cells: what names them, and what is refused."""

import pytest

from mama_ray.config import with_overrides
from mama_ray.config.fields import leaf_paths
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.experiments.study.cell import CellConfig, cell_hash, pictures_of

CHANGES = {
    "seed": 1,
    "num_steps": 7,
    "pairs": "true",
    "start": "scratch",
    "corpus.swapped_rate": 0.1,
    "objective.margin": 0.2,
    "meta.inner.lr": 0.3,
    "meta_set.wrong_share": 0.5,
    "weighting.kind": "learned",
    "optim.lr": 0.1,
    "caption_gate": False,
}


@pytest.mark.parametrize("key", CHANGES)
def test_every_setting_is_part_of_the_name(key):
    cell = CellConfig()
    assert cell_hash(with_overrides(cell, {key: CHANGES[key]}), {}) != cell_hash(cell, {})


def test_the_name_depends_on_what_the_model_starts_from():
    assert cell_hash(CellConfig(), {"steps": 1}) != cell_hash(CellConfig(), {"steps": 2})


def test_the_same_cell_has_the_same_name_however_it_was_written():
    written = with_overrides(CellConfig(), {"objective": {"margin": 0.0}, "num_steps": CellConfig().num_steps})
    assert cell_hash(written, {"a": 1, "b": 2}) == cell_hash(CellConfig(), {"b": 2, "a": 1})


def test_a_name_covers_all_fields():
    # A field that a dump leaves out would let two different runs share a result.
    assert set(CellConfig().model_dump()) == {path.split(".")[0] for path in leaf_paths(CellConfig)}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"meta_set.size": 1000}, "meta_set.size 1000"),
        ({"weighting.kind": "learned", "meta_set.size": 8}, "meta.batch_size 32"),
        ({"batch_size": 2000}, "batch_size 2000"),
        ({"corpus.num_val": 4}, "one of every topic"),
    ],
)
def test_an_impossible_cell_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        with_overrides(CellConfig(), overrides)


def test_spoiled_captions_change_no_pixel():
    spoiled = CellConfig().seeded_corpus
    for number in (0, 1, 2):
        assert (
            generate_clip(spoiled, "train", number).video == generate_clip(pictures_of(spoiled), "train", number).video
        )
