"""A meta-set with captions of other clips is noticed by its own losses, and a clean one is not."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.folder import write_corpus
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.experiments.study.cell import MetaSetConfig
from mama_ray.experiments.study.clip_arrays import ClipArrays, load_split, write_frames
from mama_ray.experiments.study.run_cell import make_meta_set
from mama_ray.models.hub import EMBEDDED_ENCODER, without_prefix
from mama_ray.models.pretrained import from_pretrained
from mama_ray.objectives.objective import ContrastiveObjective, NoContrast, TrainingObjective
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.diagnosis import MetaSetWatch
from mama_ray.training.loop import StepRecord
from mama_ray.weighting.draws import Draws
from mama_ray.weighting.features import FeatureModel
from mama_ray.weighting.meta_gradient import chance_of, compute_meta_gradient
from tests.weighting.toys import AnswerLoss, ToyEncoder, build_step, random_batch, random_weight_net

BATCH, NUM_CLIPS = 32, 128


def watch_of(shares: list[tuple[float, float]], *, batch_size: int = BATCH) -> MetaSetWatch:
    watch = MetaSetWatch(batch_size)
    for step, (above, below) in enumerate(shares):
        scalars = {"meta/above_chance": torch.tensor(above), "meta/below_half_chance": torch.tensor(below)}
        empty, everyone = torch.zeros(2), torch.ones(2, dtype=torch.bool)
        watch.add(StepRecord(2 * step, torch.arange(2), empty, empty, scalars, None, everyone))
        watch.add(StepRecord(2 * step + 1, torch.arange(2), empty, empty, {}, None, everyone))  # without a meta step
    return watch


@pytest.mark.parametrize(
    ("above", "below", "is_told"),
    [
        (0.24, 0.63, True),
        (0.12, 0.80, True),
        (0.02, 0.94, False),
        (0.09, 0.90, False),  # few enough to be hard ones
        (0.21, 0.55, False),  # most lies between: it is still being learned
        (0.48, 0.00, False),  # nothing is told apart yet
    ],
)
def test_two_heaps_of_losses_are_told_and_what_is_still_learned_is_not(above, below, is_told):
    assert bool(watch_of([(above, below)] * 16).warning()) == is_told


def test_nothing_is_said_of_few_clips_and_old_ones_are_let_go():
    assert not watch_of([(0.24, 0.63)] * 15).warning()
    assert watch_of([(0.24, 0.63)] * 16).warning()["meta_set"].startswith("24% of the meta-set's pairs are told apart")
    assert not watch_of([(0.24, 0.63)] * 16 + [(0.01, 0.95)] * 16).warning()
    assert watch_of([(0.25, 0.75)], batch_size=1024).warning()
    assert not watch_of([]).warning()


def test_a_meta_step_tells_the_shares_of_its_batch_by_their_losses_at_the_lookahead():
    for config in (ContrastiveConfig(), ContrastiveConfig(direction_reduction="sum", margin=0.1)):
        step = build_step(ToyEncoder(), random_weight_net(), objective=config, batch_size=6)
        batch, meta_batch = random_batch(1, 8), random_batch(2, 6)
        scalars = step.compute_gradients(batch, meta_batch).scalars
        gradients = [value.grad for value in step.parameters.values()]
        ahead = {name: value - step.meta.inner.lr * gradient for (name, value), gradient in
                 zip(step.parameters.items(), gradients, strict=True)}  # fmt: skip
        losses = step._functional_losses(ahead, meta_batch)
        chance = math.log(6) * (1 if config.direction_reduction == "mean" else 2)
        assert scalars["meta/above_chance"] == (losses > chance).double().mean()
        assert scalars["meta/below_half_chance"] == (losses < chance / 2).double().mean()


def test_chance_is_of_softmax_alone():
    softmax = ContrastiveObjective(ContrastiveConfig())
    assert chance_of(softmax, 32) == chance_of(TrainingObjective(softmax), 32) == math.log(32)
    sigmoid = ContrastiveObjective(ContrastiveConfig(loss="sigmoid"))
    others = (sigmoid, NoContrast(), TrainingObjective(softmax, AnswerLoss()))
    assert [chance_of(other, 32) for other in others] == [None] * 3
    step = build_step(ToyEncoder(), random_weight_net(), task=AnswerLoss())
    assert "meta/above_chance" not in step.compute_gradients(random_batch(1, 8), random_batch(2, 4)).scalars


@pytest.fixture(scope="module")
def meta_clips(tmp_path_factory) -> ClipArrays:
    """The meta split of an embedded corpus, whose captions are true."""
    folder = tmp_path_factory.mktemp("corpus")
    corpus = CorpusConfig(num_train=2, num_meta=NUM_CLIPS, num_val=1, num_test=1, seed=3)
    write_corpus(corpus, folder)
    frames = write_frames(corpus, folder, num_frames=4)
    return load_split(corpus, "meta", frames, Tokenizer.from_directory(without_prefix(EMBEDDED_ENCODER)), {})


@pytest.mark.parametrize(("wrong_share", "is_told"), [(0.0, False), (0.25, True)])
def test_a_quarter_of_false_captions_is_noticed_on_the_embedded_corpus_and_a_clean_meta_set_is_not(
    meta_clips, wrong_share, is_told
):
    clips = make_meta_set(meta_clips, MetaSetConfig(size=NUM_CLIPS, wrong_share=wrong_share), seed=3)
    model = FeatureModel(from_pretrained(without_prefix(EMBEDDED_ENCODER)))
    objective, rng, shares = ContrastiveObjective(ContrastiveConfig()), np.random.default_rng(0), []
    for _ in range(512 // NUM_CLIPS):
        for places in rng.permutation(NUM_CLIPS).reshape(-1, BATCH):
            here = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
            found = compute_meta_gradient(
                model, here, clips.batch(places), objective, num_micro_batches=1, autocast=nullcontext, draws=Draws(),
                chance=chance_of(objective, BATCH),
            )  # fmt: skip
            shares.append((float(found.shares[0]), float(found.shares[1])))
    above = np.mean([share for share, _ in shares])
    assert above > 0.2 if is_told else above < 0.02
    assert bool(watch_of(shares).warning()) == is_told
