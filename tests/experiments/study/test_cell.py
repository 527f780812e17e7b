"""Cells: what names them, and what is refused."""

import pytest

from mama_ray.config import with_overrides
from mama_ray.config.fields import leaf_paths
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.experiments.study.cell import CellConfig, cell_hash, pictures_of
from mama_ray.experiments.study.forecast import _step_seconds

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
    "early_every": 16,
    "gallery_size": 256,
    "tests": False,
    "meta_copies": 4,
    "rule.kind": "keep_lowest",
    "reverse_share": 0.5,
    "logit_scale": 14.0,
    "told_wrong": 0.1,
    "meta.margin": "scalar",
    "told_topics": "rare",
    "corpus.label_rate.swapped": 1.0,
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
        ({"gallery_size": 100}, "gallery_size 100 does not divide corpus.num_val 256"),
        ({"rule.kind": "mixture", "weighting.kind": "learned"}, "rule mixture is in place of weighting"),
        ({"reverse_share": 0.5, "objective.margin": 0.1}, "reverse_share is of loss softmax without a margin"),
        ({"reverse_share": 0.5, "weighting.kind": "learned"}, "reverse_share is a control by itself"),
        ({"told_wrong": 0.1, "captions": "narrator"}, "wanted one narrator"),
        ({"objective.generated_share": 0.5}, "objective.generated_share: no narrator"),
        ({"objective.generated_share": 0.5, "told_wrong": 0.1, "reverse_share": 0.5}, "reverse_share is of one text"),
        ({"objective.generated_share": "learned", "told_wrong": 0.1, "meta_set.size": 8}, "meta.batch_size 32"),
        ({"meta.margin": "scalar", "meta_set.size": 8}, "meta.batch_size 32"),
        ({"meta.margin": "scalar", "objective.margin": 0.6}, "wanted less than meta.margin_limit"),
        ({"meta.margin": "per_sample", "reverse_share": 0.5}, "a control by itself: got meta.margin per_sample"),
    ],
)
def test_an_impossible_cell_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        with_overrides(CellConfig(), overrides)


@pytest.mark.parametrize("normalisation", ["none", "l2"])
def test_joint_learning_with_a_trivial_optimum_is_refused(normalisation):
    joint = {"weighting.kind": "learned", "weighting.learner": "joint"}
    assert with_overrides(CellConfig(), joint).weighting.normalisation == "sum_global"
    with pytest.raises(ValueError, match=f"joint has a trivial optimum.*normalisation {normalisation}"):
        with_overrides(CellConfig(), joint | {"weighting.normalisation": normalisation})
    learned = {"weighting.kind": "learned", "weighting.normalisation": normalisation}
    assert with_overrides(CellConfig(), learned).is_meta_learned


def test_a_cell_with_a_learned_margin_needs_a_meta_set_and_counts_its_meta_steps():
    plain, learned = (with_overrides(CellConfig(), {"meta.margin": kind}) for kind in ("fixed", "scalar"))
    assert learned.is_meta_learned and not plain.is_meta_learned
    assert _step_seconds(learned) == pytest.approx(_step_seconds(plain) * (1 + 1.6 / learned.meta.meta_every))


def test_a_cell_without_the_options_that_came_later_has_the_name_that_it_had():
    assert cell_hash(CellConfig(), {}) == "3b1f8477e7f6580c1f8e"
    assert CellConfig(num_steps=8, num_evaluations=3).evaluated_steps == {3, 5, 8}


def test_further_evaluations_are_where_early_stopping_chooses():
    cell = CellConfig(num_steps=264, num_evaluations=8, early_every=16)
    early = {16, 32, 48, 64, 80, 96, 112, 128, 144}
    assert cell.evaluated_steps == early | {33, 66, 99, 132, 165, 198, 231, 264}
    assert max(CellConfig(num_steps=20, early_every=16).evaluated_steps) == 20


def test_labels_that_go_by_the_fault_make_pictures_that_do_too():
    labelled = with_overrides(CellConfig().corpus, {"label_rate.swapped": 1.0})
    assert pictures_of(labelled) == labelled
    assert pictures_of(CellConfig().corpus).swapped_rate == 0


def test_spoiled_captions_change_no_pixel():
    spoiled = CellConfig().seeded_corpus
    for number in (0, 1, 2):
        assert (
            generate_clip(spoiled, "train", number).video == generate_clip(pictures_of(spoiled), "train", number).video
        )
