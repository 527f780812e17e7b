"""Train and evaluate one cell: the product's own step and loop, fed from memory."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mama_ray.config import with_overrides
from mama_ray.data.batch import ClipBatch
from mama_ray.data.synthetic.facts import topic_ranks
from mama_ray.data.synthetic.vocabulary import TOPICS
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.evaluation.retrieval import compute_ranks, recall_metrics
from mama_ray.experiments.study.cell import CellConfig, MetaSetConfig
from mama_ray.experiments.study.clip_arrays import ClipArrays, encode_clips, load_split
from mama_ray.experiments.study.columns import weight_columns
from mama_ray.experiments.study.observe import Evaluation, Observer
from mama_ray.experiments.study.rules import build_rule
from mama_ray.experiments.study.symmetric import SymmetricObjective
from mama_ray.experiments.study.told import told_captions
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.pretrained import from_pretrained, with_new_weights
from mama_ray.objectives.objective import TrainingObjective
from mama_ray.training.loop import StepRecord, train
from mama_ray.training.state import TrainState, build_state

_FALSE_KINDS = ("swapped", "wrong", "misread")
_MEASURE_EVERY = 20  # steps between two looks at the meta loss before the lookahead


def run_cell(cell: CellConfig, frames_path: Path, pretrained: Path, captions: dict[str, str]) -> dict[str, Any]:
    """Return the fields of a StudyRun that the training gives (all but method, x and cell), and the ranks of the test
    clips at the point that is reported.

    frames_path: the decoded frames of the cell's pictures. pretrained: the model folder that the study starts from.
    captions: generated ones by clip id.
    """
    torch.manual_seed(cell.seed)
    tokenizer = _tokenizer_of(pretrained)
    model = start_model(cell, pretrained)
    corpus = cell.seeded_corpus
    if cell.told_wrong is not None:
        captions = told_captions(corpus, cell.told_wrong, rare_alone=cell.told_topics == "rare")
    splits = {split: load_split(corpus, split, frames_path, tokenizer, captions) for split in corpus.num_clips}
    meta = make_meta_set(splits["meta"], cell.meta_set, seed=cell.seed)
    training = training_clips(cell, splits["train"], meta)
    training = replace(training, columns=weight_columns(cell.weighting, training, model))
    state = _new_state(cell, model, len(training))

    def look(is_tested: bool) -> Evaluation:
        return evaluate(model, splits["val"], splits["test"] if is_tested and cell.tests else None, cell.gallery_size)

    observer = Observer(cell, state, training, look)
    if cell.num_steps == 0:
        observer.evaluate()
    batches, report = training_batches(training, cell), observer
    rule = build_rule(cell.rule, training)
    if rule is not None:
        state.weighting = state.weighted_step.weighting = rule
        batches, report = rule.announce(batches), _both(rule.observe, observer)
    train(state, batches, meta_batches(meta, cell), report=report, measure_every=_MEASURE_EVERY)
    return observer.result() | {"seed": cell.seed, "topic_share": topic_share(splits["train"])}


@lru_cache(maxsize=4)
def _tokenizer_of(pretrained: Path) -> Tokenizer:
    """Return one and the same for all runs of a process, which share the splits that it has tokenized."""
    return Tokenizer.from_directory(pretrained)


def training_clips(cell: CellConfig, clips: ClipArrays, meta: ClipArrays) -> ClipArrays:
    """Return what a cell trains on: all clips, or those of an oracle, and the meta-set's as often as asked."""
    if cell.pairs != "all":
        left_out = _FALSE_KINDS if cell.pairs == "true" else ("misread",)
        clips = clips.select(np.flatnonzero(~np.isin(clips.kinds, left_out)))
    return clips.joined(meta, cell.meta_copies) if cell.meta_copies else clips


def _new_state(cell: CellConfig, model: DualEncoder, num_clips: int) -> TrainState:
    state = build_state(
        model,
        objective=cell.objective,
        weighting=cell.weighting,
        meta=cell.meta,
        optim=cell.optim,
        num_steps=cell.num_steps,
        global_batch_size=cell.batch_size,
        seed=cell.seed,
        num_samples=num_clips,
    )
    if cell.reverse_share:
        state.weighted_step.objective = TrainingObjective(SymmetricObjective(cell.reverse_share))
    return state


def start_model(cell: CellConfig, pretrained: Path) -> DualEncoder:
    """Return the pretrained model, or one of its shape from the cell's seed; its logit scale is frozen where asked."""
    model = from_pretrained(pretrained)
    model = model if cell.start == "pretrained" else with_new_weights(model)
    if cell.logit_scale is not None:
        with torch.no_grad():
            model.logit_scale.fill_(math.log(cell.logit_scale))
        model.logit_scale.requires_grad_(False)
    return model


def make_meta_set(clips: ClipArrays, config: MetaSetConfig, *, seed: int) -> ClipArrays:
    """Choose the meta-set and degrade it as asked.

    An imbalanced one is filled topic by topic with Zipf's shares, as far as the split has clips of the topic; wrong
    captions go round among a random part of it.
    """
    rng = np.random.default_rng((seed, 1))
    places = np.arange(config.size)
    if config.zipf_exponent:
        ranks = topic_ranks(seed)
        shares = np.array([ranks[topic] ** -config.zipf_exponent for topic in TOPICS])
        wanted = rng.choice(TOPICS, size=len(clips), p=shares / shares.sum())
        by_topic = {topic: iter(np.flatnonzero(clips.topics == topic)) for topic in TOPICS}
        found = [place for topic in wanted if (place := next(by_topic[topic], None)) is not None]
        left = np.setdiff1d(np.arange(len(clips)), found)  # where the draws have used frequent topics up
        places = np.concatenate([np.array(found, dtype=np.int64), rng.permutation(left)])[: config.size]
    chosen = clips.select(places)
    num_wrong = round(config.wrong_share * len(chosen))
    if num_wrong < 2:
        return chosen
    wrong = rng.choice(len(chosen), size=num_wrong, replace=False)
    token_ids = chosen.token_ids.copy()
    token_ids[wrong] = chosen.token_ids[np.roll(wrong, 1)]
    return ClipArrays(chosen.frames, token_ids, chosen.clips, chosen.generated)


def training_batches(clips: ClipArrays, cell: CellConfig) -> Iterator[ClipBatch]:
    """Yield batches without end: every clip once per pass, in a new order each time; batches may straddle passes."""
    rng = np.random.default_rng((cell.seed, 2))
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < cell.batch_size:
            waiting = np.concatenate([waiting, rng.permutation(len(clips))])
        places, waiting = waiting[: cell.batch_size], waiting[cell.batch_size :]
        draws = rng.random(cell.batch_size)
        if cell.objective.mixes_captions:
            yield clips.batch(places, beside=True)
        else:
            drawn = draws < cell.generated_share if cell.has_generated_captions else None
            yield clips.batch(places, use_generated=drawn)


def meta_batches(clips: ClipArrays, cell: CellConfig) -> Iterator[ClipBatch]:
    """Yield batches of the meta-set without end, every clip once per pass."""
    without = {"captions": None, "told_wrong": None, "objective.generated_share": None}
    once = with_overrides(cell, without | {"batch_size": min(cell.meta.batch_size, len(clips))})
    yield from training_batches(clips, once)


@torch.no_grad()
def evaluate(model: DualEncoder, val: ClipArrays, test: ClipArrays | None, gallery_size: int = 0) -> Evaluation:
    """Return the metrics on val and on test, the test recall by topic, and the ranks of the test clips among all.

    Metrics are within galleries of `gallery_size` clips that stand side by side, 0 for all. Without test its part is
    empty.
    """
    metrics, ranks = _rank(*encode_clips(model, val), gallery_size)
    if test is None:
        return metrics, {}, {}, {}
    features = encode_clips(model, test)
    on_test, ranks = _rank(*features, gallery_size)
    found = {topic: ranks["t2v"][test.topics == topic] for topic in TOPICS}
    by_topic = {topic: round(100 * float(np.mean(part <= 1)), 3) for topic, part in found.items() if len(part)}
    whole = _rank(*features, 0)[1] if gallery_size else ranks
    return metrics, on_test, by_topic, {way: np.ceil(part).astype(int).tolist() for way, part in whole.items()}


def _rank(videos: np.ndarray, texts: np.ndarray, gallery_size: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the metrics and the ranks of both directions, each query within its gallery."""
    parts: dict[str, list[np.ndarray]] = {"t2v": [], "v2t": []}
    size = gallery_size or len(videos)
    for start in range(0, len(videos), size):
        some = slice(start, start + size)
        ids = np.arange(len(videos[some]))
        parts["t2v"].append(compute_ranks(texts[some], ids, videos[some], ids))
        parts["v2t"].append(compute_ranks(videos[some], ids, texts[some], ids))
    ranks = {way: np.concatenate(found) for way, found in parts.items()}
    found = {f"{way}_{key}": value for way in ranks for key, value in recall_metrics(ranks[way]).items()}
    return {name: round(value, 3) for name, value in found.items()}, ranks


def _both(first: Callable[[StepRecord], None], second: Callable[[StepRecord], None]) -> Callable[[StepRecord], None]:
    def report(record: StepRecord) -> None:
        first(record)
        second(record)

    return report


def topic_share(clips: ClipArrays) -> dict[str, float]:
    """Return each topic's share of the clips in percent."""
    return {topic: round(100 * float(np.mean(clips.topics == topic)), 3) for topic in TOPICS}
