"""The noisy corpus of one seed in memory, what scores its pairs before any fine-tuning, and one training run on it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from question_cases.data import write_pictures

from mama_ray.captioning.narrator.folder import embedded_narrator, read_narrator_input
from mama_ray.captioning.narrator.kind import NarratorLoss, NarratorSettings
from mama_ray.captioning.narrator.kinds import KINDS, kind_of_folder
from mama_ray.captioning.narrator.settings import FrameInput, NarratorInput, NarratorModelConfig
from mama_ray.data.synthetic.folder import VIDEOS_FOLDER
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.experiments.study.cell import CellConfig
from mama_ray.experiments.study.clip_arrays import ClipArrays, load_split
from mama_ray.experiments.study.job import PretrainingConfig
from mama_ray.experiments.study.pretrain import num_frames_of, pretrain
from mama_ray.experiments.study.run_cell import evaluate, make_meta_set, meta_batches, start_model, training_batches
from mama_ray.models.feature_encoder import FeatureEncoder
from mama_ray.models.pretrained import from_pretrained
from mama_ray.training.loop import StepRecord, train
from mama_ray.training.state import TrainState, build_state

_BATCH = 64
_MAX_TOKENS = 32


def pretrained_model(storage: Path, num_steps: int | None) -> Path:
    """Return the folder of the model that every run starts from, the study's, or one of so many steps and clips.

    It is trained where there is none.
    """
    config = PretrainingConfig()
    if num_steps is not None:
        corpus = config.corpus.model_copy(update={"num_train": 64 * num_steps})
        config = config.model_copy(update={"num_steps": num_steps, "corpus": corpus})
    folder = storage / "pretrained"
    if not (folder / "config.json").exists():
        frames = write_pictures(config.corpus, storage / "source", num_frames=num_frames_of(config))
        pretrain(config, frames, folder)
    return folder


@dataclass(frozen=True)
class Corpus:
    """The clips of one seed: `train` has swapped captions; `texts` are its captions, `generated` the narrator's."""

    splits: dict[str, ClipArrays]
    texts: list[str]
    generated: list[str]

    @property
    def is_swapped(self) -> np.ndarray:
        """Which training pairs are faulty."""
        return self.splits["train"].kinds == "swapped"


def load_corpus(cell: CellConfig, storage: Path, pretrained: Path) -> Corpus:
    """Make or find the pictures and generated captions of a cell's corpus."""
    corpus = cell.seeded_corpus
    frames = write_pictures(corpus, storage / "noisy", num_frames=num_frames_of(PretrainingConfig()))
    tokenizer = Tokenizer.from_directory(pretrained)
    path = frames.parent / "generated.json"
    clips = load_split(corpus, "train", frames, tokenizer, {}).clips
    if not path.exists():
        videos = [frames.parent / VIDEOS_FOLDER / f"{clip.clip_id}.mp4" for clip in clips]
        path.write_text(json.dumps(dict(zip([clip.clip_id for clip in clips], narrate(videos), strict=True))))
    captions = json.loads(path.read_text())
    splits = {split: load_split(corpus, split, frames, tokenizer, captions) for split in corpus.num_clips}
    return Corpus(splits, [clip.captions[0].text for clip in clips], [captions[clip.clip_id] for clip in clips])


def narrate(videos: list[Path]) -> list[str]:
    """Return the embedded narrator's greedy caption of each video."""
    folder = embedded_narrator()
    kind, trained = KINDS[kind_of_folder(folder)], read_narrator_input(folder) or NarratorInput()
    settings = NarratorSettings(NarratorModelConfig(), trained.prompt, trained.grid, FrameInput())
    _, facts = kind.describe(folder, settings, list)
    narrator, show = kind.load(folder), kind.show(facts, settings, DecodeConfig())
    loss = cast(NarratorLoss, narrator.build_loss(facts, settings.model, max_caption_tokens=_MAX_TOKENS).eval())
    captions: list[str] = []
    for start in range(0, len(videos), _BATCH):
        shown = np.stack([show(video.read_bytes(), None) for video in videos[start : start + _BATCH]])
        captions += loss.narrate(torch.from_numpy(shown), max_tokens=_MAX_TOKENS)
    return captions


def scores_before_training(corpus: Corpus, pretrained: Path) -> dict[str, np.ndarray]:
    """Return by the pretrained encoder: the cosine of clip and caption, and of generated and given caption."""
    tokenizer = Tokenizer.from_directory(pretrained)
    encoder = FeatureEncoder(from_pretrained(pretrained), tokenizer, batch_size=_BATCH)
    frames = corpus.splits["train"].frames
    videos = [encoder.video_features(frames[start : start + _BATCH]) for start in range(0, len(frames), _BATCH)]
    given, generated = encoder.text_features(corpus.texts), encoder.text_features(corpus.generated)
    return {"cosine": (np.concatenate(videos) * given).sum(1), "caption": (generated * given).sum(1)}


class PairRecord:
    """The `report` of a training loop: sums of what each pair had, over all steps and over the last half."""

    def __init__(self, num_clips: int, num_steps: int) -> None:
        self._num_steps = num_steps
        self._sums = {part: np.zeros((4, num_clips)) for part in ("all", "last half")}

    def __call__(self, record: StepRecord) -> None:
        """Take in a finished step."""
        assert record.cosines is not None
        rows = record.rows.numpy()
        weights = record.weights.numpy() * len(record.weights)
        values = np.stack([weights, record.losses.numpy(), record.cosines.numpy(), np.ones(len(rows))])
        for part, sums in self._sums.items():
            if part == "all" or record.step >= self._num_steps / 2:
                np.add.at(sums.T, rows, values.T)

    def means(self) -> dict[str, dict[str, np.ndarray]]:
        """Return by part of the run each pair's mean weight, loss and cosine."""
        names = ("weight", "loss", "cosine")
        return {part: dict(zip(names, sums[:3] / sums[3], strict=True)) for part, sums in self._sums.items()}


def run_training(
    cell: CellConfig, corpus: Corpus, pretrained: Path, *, keep: np.ndarray, mend: np.ndarray | None = None
) -> tuple[dict[str, Any], PairRecord]:
    """Train on the pairs at `keep` and return what it scored on test, and the record; `mend` are the places of clips
    that get their generated caption. The checkpoint is chosen on val."""
    torch.manual_seed(cell.seed)
    model = start_model(cell, pretrained)
    clips = mended(corpus.splits["train"], mend).select(keep)
    meta = make_meta_set(corpus.splits["meta"], cell.meta_set, seed=cell.seed)
    state = build_state(
        model,
        objective=cell.objective,
        weighting=cell.weighting,
        meta=cell.meta,
        optim=cell.optim,
        num_steps=cell.num_steps,
        global_batch_size=cell.batch_size,
        seed=cell.seed,
    )
    record = PairRecord(len(clips), cell.num_steps)
    points: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def report(step: StepRecord) -> None:
        record(step)
        if (step.step + 1) % (cell.num_steps // cell.num_evaluations) == 0:
            points.append(_evaluated(state, corpus))

    train(state, training_batches(clips, cell), meta_batches(meta, cell), report=report)
    best = max(range(len(points)), key=lambda place: (points[place][0]["t2v_R@1"], -place))
    return {"test": points[best][1], "selected": best, "last": points[-1][1]}, record


def _evaluated(state: TrainState, corpus: Corpus) -> tuple[dict[str, Any], dict[str, Any]]:
    val, test, *_ = evaluate(state.model, corpus.splits["val"], corpus.splits["test"])
    return val, test


def mended(clips: ClipArrays, places: np.ndarray | None) -> ClipArrays:
    """Return the clips, those at `places` with their generated captions."""
    if places is None:
        return clips
    token_ids = clips.token_ids.copy()
    for place in places.tolist():
        token_ids[place] = clips.generated[place]
    return replace(clips, token_ids=token_ids)


def lists_of(values: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Return arrays as JSON has them."""
    return {name: [round(float(one), 5) for one in array] for name, array in values.items()}
