"""What the comparison of models on questions rests on: its blind twin, its area under the curve, its intervals."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.models.asking import asks_like

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))  # where the program finds its cases
data, case, report = (importlib.import_module(f"question_cases.{name}") for name in ("data", "case", "report"))
MODELS, METHODS = case.MODELS, case.METHODS
SIZES = case.Sizes(2, 8, case.MetaSizes(batch_size=4, lr=1e-3))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    corpus = CorpusConfig(num_train=16, num_meta=16, num_val=8, num_test=8)
    return corpus, data.write_pictures(corpus, tmp_path_factory.mktemp("corpus"), num_frames=4)


def asked_corpus(pictures, name, swapped=0.0):
    corpus, frames = pictures
    return data.load_corpus(corpus, frames, kind=MODELS[name].tokenizer, swapped_answers=swapped)


def reader_of(asked, state, name, *, sees):
    ask = asks_like(state.model.model_type, asked.tokenizer, has_own_head=MODELS[name].head is None)
    return data.Reader(asked.assembler("train", ask), asked.tokenizer.pad_id, sees)


def test_the_area_under_the_curve_equals_a_double_loop():
    rng = np.random.default_rng(0)
    scores, is_positive = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.3
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[is_positive] for n in scores[~is_positive]]
    assert case.roc_auc(scores, is_positive) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("name", list(MODELS))
def test_a_blind_batch_answers_as_grey_clips_do_and_as_whole_texts_do(name, pictures):
    asked = asked_corpus(pictures, name)
    torch.manual_seed(0)
    state = case.start(asked, MODELS[name], METHODS["uniform"], SIZES, seed=0)
    model = state.feature_model.eval()
    blind = reader_of(asked, state, name, sees=False).batch(np.arange(10))
    seeing = reader_of(asked, state, name, sees=True).batch(np.arange(10))
    whole = reader_of(asked, state, name, sees=True).assembler.assemble(np.arange(10))
    texts = {"token_ids": torch.from_numpy(whole["token_ids"])}
    question = seeing.question | {"token_ids": torch.from_numpy(whole["question/token_ids"])}
    grey = replace(seeing, frames=torch.full_like(seeing.frames, data.GREY), question=question, **texts)
    with torch.no_grad():
        found, expected = model(blind), model(grey)
    torch.testing.assert_close(found.answer_logits, expected.answer_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.text, expected.text, rtol=1e-4, atol=1e-5)
    assert len(blind.frames) == 1 and torch.equal(blind.clips, seeing.clips)
    assert not torch.allclose(model(seeing).answer_logits, expected.answer_logits, atol=1e-3)


@pytest.mark.parametrize("method", ["learned_task", "task_alone"])
def test_a_run_measures_every_type_and_swapped_answers_where_weights_are_learned(method, pictures):
    asked = asked_corpus(pictures, "clip_vip", swapped=0.5)
    assert 0.4 < asked.is_swapped.mean() < 0.6
    found = case.run_case(asked, MODELS["clip_vip"], METHODS[method], SIZES, seed=0, sees=True)
    assert set(found["accuracy"]) == {"all", "shape", "colour", "size", "motion", "yes_no"}
    assert ("auc" in found) == (method == "learned_task")


def test_twins_are_compared_seed_by_seed():
    def runs(*values):
        return {seed: {"accuracy": {"all": value}} for seed, value in enumerate(values)}

    found = {("m", "uniform", 0.0, True, 9): runs(50, 70, 60), ("m", "uniform", 0.0, False, 9): runs(20, 40, 30)}
    difference = report.twins_of(found, "m", 9)["all"]["difference"]
    assert (difference["low"], difference["mean"], difference["high"]) == (30, 30, 30)
