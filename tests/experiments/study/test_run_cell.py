"""One cell: what it trains on, what it writes down."""

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from mama_ray.config import load_config, with_overrides
from mama_ray.data.synthetic.facts import facts_of, topic_ranks
from mama_ray.data.synthetic.generate import clip_id_of
from mama_ray.data.synthetic.read_back import read_thing
from mama_ray.data.synthetic.vocabulary import TOPICS
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.errors import UserError
from mama_ray.experiments.study.cell import cell_hash
from mama_ray.experiments.study.clip_arrays import ClipArrays, load_split
from mama_ray.experiments.study.columns import weight_columns
from mama_ray.experiments.study.job import StudyJob
from mama_ray.experiments.study.plan import plan_runs
from mama_ray.experiments.study.records import shorten
from mama_ray.experiments.study.results import StudyRun
from mama_ray.experiments.study.run_cell import (
    make_meta_set,
    run_cell,
    start_model,
)
from mama_ray.experiments.study.told import told_captions
from mama_ray.weighting.settings import WeightingConfig

LEARNED = {"weighting.kind": "learned", "meta.meta_every": 1}


def run(small_study, overrides=None, captions=None):
    cell = with_overrides(small_study.cell, overrides or {})
    return run_cell(cell, small_study.frames_path, small_study.pretrained, captions or {})


def as_record(result) -> StudyRun:
    return StudyRun(method="m", x=None, cell="c", **{name: value for name, value in result.items() if name != "ranks"})


def test_a_run_gives_a_record_with_its_curve_and_its_weights(small_study):
    record = as_record(run(small_study, LEARNED))
    assert [point.step for point in record.curve] == [2, 4]
    assert record.weights.keys() <= {"clean", "incomplete", "wrong", "swapped"}
    assert record.effective_sample_size <= 1.0 + 1e-6
    losses = [loss for loss, _ in record.weight_curve]
    assert losses == sorted(losses)
    assert sum(record.topic_share.values()) == pytest.approx(100, abs=0.1)


def test_the_same_cell_gives_the_same_result(small_study):
    first, second = (as_record(run(small_study, LEARNED)) for _ in range(2))
    assert first.model_dump(exclude={"step_s"}) == second.model_dump(exclude={"step_s"})


def test_without_steps_the_start_is_evaluated(small_study):
    record = as_record(run(small_study, {"num_steps": 0}))
    assert [point.step for point in record.curve] == [0]
    assert record.weights == {} and record.step_s is None


def test_uniform_weights_are_one_for_every_kind(small_study):
    assert set(as_record(run(small_study)).weights.values()) == {1.0}


def test_an_oracle_meets_no_false_pair(small_study):
    weights = as_record(run(small_study, {"pairs": "true", "num_steps": 8})).weights
    assert weights.keys() <= {"clean", "incomplete"} and weights


def test_a_careless_source_is_told_by_its_name_and_can_be_left_out(small_study):
    rates = {"misread_rate": 0.3, "wrong_rate": 0.0, "incomplete_rate": 0.0}
    careless = {f"corpus.{name}": rate for name, rate in rates.items()}
    everything, rest = (
        as_record(run(small_study, careless | {"pairs": pairs, "num_steps": 8})).weights
        for pairs in ("all", "first_source")
    )
    assert everything.keys() - rest.keys() == {"misread"} and "swapped" in rest
    corpus = with_overrides(small_study.cell.seeded_corpus, rates)
    tokenizer = Tokenizer.from_directory(small_study.pretrained)
    clips = load_split(corpus, "train", small_study.frames_path, tokenizer, {})
    config = WeightingConfig(inputs=("loss", "source"), categories={"source": ["plain", "second"]})
    model = start_model(small_study.cell, small_study.pretrained)
    np.testing.assert_array_equal(weight_columns(config, clips, model)[:, 0], clips.kinds == "misread")


def test_generated_captions_change_what_is_learned(small_study):
    plain = as_record(run(small_study))
    name = f"simple-{small_study.cell.seed}-train-%06d"
    captions = {name % number: "a small blue ring blinks" for number in range(48)}
    mixed = as_record(run(small_study, {"captions": "narrator", "generated_share": 1.0}, captions))
    assert mixed.final.train_loss != plain.final.train_loss


@pytest.mark.parametrize(
    "inputs",
    [
        ["loss", "loss_video_to_text", "loss_text_to_video", "cosine"],
        ["loss", "average_loss"],
        ["loss", "source"],
        ["pretrained_cosine", "agreement", "topic"],
    ],
)
def test_a_weight_net_sees_what_it_is_asked_to(small_study, inputs):
    categories = {"source": ["plain", "labelled"], "topic": list(TOPICS)}
    seen = {name: values for name, values in categories.items() if name in inputs}
    richer = LEARNED | {"weighting.inputs": inputs, "weighting.categories": seen, "told_wrong": 0.2}
    record = as_record(run(small_study, richer))
    plain = as_record(run(small_study, LEARNED | {"told_wrong": 0.2}))
    assert record.weights != plain.weights
    assert record.final.train_loss != plain.final.train_loss


def test_columns_say_what_their_names_do(small_study, splits):
    model = start_model(small_study.cell, small_study.pretrained).eval()
    train = splits["train"]
    told = ClipArrays(train.frames, train.token_ids, train.clips, {0: train.token_ids[0], 1: train.token_ids[2]})
    names = ["pretrained_cosine", "agreement", "source", "topic"]
    categories = {"source": ["plain", "labelled"], "topic": list(TOPICS[1:])}
    config = WeightingConfig(inputs=("loss", *names), categories=categories)
    cosine, agreement, source, topic = weight_columns(config, told, model).T
    batch = told.batch(np.arange(48))
    videos, texts = model(batch.frames, batch.token_ids)
    np.testing.assert_allclose(cosine, (videos @ texts.T).diagonal().detach(), atol=1e-5)
    assert agreement[0] == 1 and 0 <= agreement[1] < 1 and np.isnan(agreement[2:]).all()
    assert set(source) == {0.0}
    wanted = [TOPICS.index(name) - 1 for name in train.topics]
    np.testing.assert_array_equal(topic, [np.nan if place < 0 else place for place in wanted])
    assert weight_columns(WeightingConfig(), told, model) is None
    unknown = WeightingConfig(inputs=("loss", "sharpness"))
    with pytest.raises(UserError, match="unknown input of a weight net in the study: got sharpness"):
        weight_columns(unknown, told, model)


STUDIES = Path(__file__).resolve().parents[3] / "configs" / "study"
PARTS = {name: load_config(StudyJob, STUDIES / f"{name}.yaml") for name in ("second", "sources")}
SHRUNK = {
    "corpus.num_train": 48, "corpus.num_meta": 32, "corpus.num_val": 16, "corpus.num_test": 16, "meta_set.size": 16,
    "meta.batch_size": 8, "batch_size": 16, "gallery_size": 8, "num_evaluations": 1, "early_every": 0,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("part", "name"), [(part, name) for part, job in PARTS.items() for name in job.experiments])
def test_every_setting_of_the_study_trains(small_study, part, name):
    job, cells = PARTS[part], {}
    experiment = job.experiments[name].model_copy(update={"seeds": ()})
    for found in plan_runs(job.cell, {name: experiment}, job.methods, {}, (1,)):
        cell = with_overrides(found.cell, SHRUNK | {"num_steps": min(2, found.cell.num_steps)})
        cells.setdefault(cell_hash(cell, {}), (found, cell))
    for found, cell in cells.values():  # the pictures are another corpus's, of as many clips
        result = run_cell(cell, small_study.frames_path, small_study.pretrained, {})
        record = shorten(result, cell)
        StudyRun(method=found.method, x=found.x, cell="c", **record)
        assert len(result["ranks"]["t2v"]) == 16


@pytest.mark.parametrize("kind", ["keep_lowest", "mixture", "inverse_frequency"])
def test_a_rule_weighs_in_place_of_the_weighting(small_study, kind):
    rule = {"rule.kind": kind, "rule.warmup_steps": 2, "rule.refit_every": 1, "num_steps": 8}
    record = as_record(run(small_study, rule))
    assert len(set(record.weights.values())) > 1
    assert record.effective_sample_size < 1
    assert record.final.train_loss != as_record(run(small_study, {"num_steps": 8})).final.train_loss


def test_the_meta_clips_join_training_so_many_times(small_study, splits):
    meta = make_meta_set(splits["meta"], small_study.cell.meta_set, seed=7)
    joined = splits["train"].joined(meta, 2)
    assert len(joined) == 48 + 2 * 16
    for copy in (48, 64):
        assert np.array_equal(joined.frames[copy : copy + 16], meta.frames)
        assert np.array_equal(joined.token_ids[copy : copy + 16], meta.token_ids)
    assert list(joined.kinds[48:]) == ["clean"] * 32
    record = as_record(run(small_study, {"meta_copies": 2}))
    assert record.final.train_loss != as_record(run(small_study)).final.train_loss


def test_joined_clips_keep_their_generated_captions(splits):
    train = splits["train"]
    told = ClipArrays(train.frames, train.token_ids, train.clips, {3: train.token_ids[5]})
    assert list(splits["meta"].joined(told, 2).generated) == [32 + 3, 32 + 48 + 3]


def test_a_symmetric_loss_is_another_loss(small_study):
    plain, symmetric = (as_record(run(small_study, {"reverse_share": share})) for share in (0.0, 0.9))
    assert symmetric.curve[0].train_loss != plain.curve[0].train_loss


@pytest.mark.parametrize("weighting", [{}, LEARNED])
def test_a_frozen_scale_stays_where_it_is(small_study, weighting):
    cell = with_overrides(small_study.cell, {"logit_scale": 5.0})
    model = start_model(cell, small_study.pretrained)
    assert model.logit_scale.exp().item() == pytest.approx(5.0) and not model.logit_scale.requires_grad
    record = as_record(run(small_study, weighting | {"logit_scale": 5.0}))
    assert record.final.train_loss != as_record(run(small_study, weighting)).final.train_loss


def test_a_narrator_with_known_errors_tells_of_all_topics_or_of_the_rare_ones(small_study):
    corpus = small_study.cell.seeded_corpus
    right, wrong = told_captions(corpus, 0.0), told_captions(corpus, 1.0)
    rare = told_captions(corpus, 0.0, rare_alone=True)
    assert len(right) == 48 and rare.items() < right.items()
    ranks = topic_ranks(corpus.seed)
    for number in range(48):
        name, facts = clip_id_of(corpus, "train", number), facts_of(corpus, "train", number)
        assert (read_thing(right[name]),) == facts
        assert sum(a != b for a, b in zip(astuple(read_thing(wrong[name])), astuple(facts[0]), strict=True)) == 1
        assert (name in rare) == (ranks[facts[0].shape] > 4)
    record = as_record(run(small_study, {"told_wrong": 0.2}))
    assert record.final.train_loss != as_record(run(small_study)).final.train_loss


def test_from_scratch_nothing_of_the_pretrained_weights_is_left(small_study):
    cell = with_overrides(small_study.cell, {"start": "scratch"})
    fresh, pretrained = (start_model(c, small_study.pretrained) for c in (cell, small_study.cell))
    assert fresh.config == pretrained.config
    matrices = [(a, b) for a, b in zip(fresh.parameters(), pretrained.parameters(), strict=True) if a.ndim > 1]
    assert matrices and not any(np.array_equal(a.detach(), b.detach()) for a, b in matrices)
