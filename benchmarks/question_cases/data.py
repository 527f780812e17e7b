"""The embedded corpus with its questions in memory: frames decoded once, batches of pairs as in training."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from mama_ray.data.batch import PADDING_ROW, ClipBatch, pad_batch, to_clip_batch
from mama_ray.data.questions.answers import AnswerList, build_answer_list
from mama_ray.data.questions.assemble import Ask, DecodedClips, QuestionAssembler, pairs_table
from mama_ray.data.questions.noise import swap_answers
from mama_ray.data.questions.plan import QuestionPlan, QuestionPlanConfig
from mama_ray.data.questions.videos import join_clips
from mama_ray.data.synthetic.config import CorpusConfig, Split
from mama_ray.data.synthetic.folder import write_corpus
from mama_ray.data.synthetic.generate import describe_clip
from mama_ray.data.synthetic.quiz import quiz_of_index
from mama_ray.data.tokenizer import Tokenizer, WordPieceTokenizer
from mama_ray.experiments.study.cell import pictures_of
from mama_ray.experiments.study.clip_arrays import ClipArrays, load_split, write_frames

SPLITS: tuple[Split, ...] = ("train", "meta", "test")
GREY = 127  # what the blind twin sees
VOCAB_SIZE, CONTEXT_LENGTH = 1024, 24  # as jobs/train.py trains a tokenizer


def write_pictures(corpus: CorpusConfig, storage: Path, *, num_frames: int) -> Path:
    """Make the corpus's videos and decode them, unless they are there; the captions' noise has no part in them."""
    pictures = pictures_of(corpus)
    sizes = "-".join(str(count) for count in pictures.num_clips.values())
    folder = storage / f"{pictures.level}-{pictures.seed}-{sizes}"
    write_corpus(pictures, folder)
    return write_frames(pictures, folder, num_frames=num_frames)


@dataclass(frozen=True)
class AskedCorpus:
    """The clips and questions of a corpus.

    Attributes:
        clips: of each split.
        pairs: PAIRS of each split; their rows are those of its clips.
        answers: of the training questions, those that were swapped among them.
        is_swapped: of each training pair, whether its answer is a wrong one.
        tokenizer: trained on the captions and questions of the training split.
    """

    clips: dict[str, ClipArrays]
    pairs: dict[str, pa.Table]
    answers: AnswerList
    is_swapped: np.ndarray
    tokenizer: Tokenizer

    def assembler(self, split: str, ask: Ask) -> QuestionAssembler:
        """Return what makes batches of a split's pairs."""
        clips = self.clips[split]
        rows = np.arange(len(clips))
        arrays = {"frames": clips.frames, "token_ids": clips.token_ids, "rows": rows, "valid": np.ones(len(rows), bool)}
        return QuestionAssembler(DecodedClips(arrays), self.pairs[split], ask)


def load_corpus(
    corpus: CorpusConfig, frames_path: Path, *, kind: type[Tokenizer], swapped_answers: float = 0.0
) -> AskedCorpus:
    """Load what a run reads; `swapped_answers` is the share of training questions with a wrong answer."""
    tables = {split: _table(corpus, split) for split in SPLITS}
    questions = quiz_of_index(pa.concat_tables(tables.values()))
    questions, ids = swap_answers(questions, swapped_answers, seed=corpus.seed)
    asked = {split: join_clips(questions.of_split(split), tables[split]) for split in SPLITS}
    train = asked["train"].questions
    captions = [describe_clip(corpus, "train", number).captions[0].text for number in range(corpus.num_clips["train"])]
    texts = [*captions, *(one.question for one in train), *(f"answer: {one.answers[0]}" for one in train)]
    tokenizer = kind.train(
        texts if kind is WordPieceTokenizer else captions, vocab_size=VOCAB_SIZE, context_length=CONTEXT_LENGTH
    )
    answers = build_answer_list(train)
    return AskedCorpus(
        clips={split: load_split(corpus, split, frames_path, tokenizer, {}) for split in SPLITS},
        pairs={split: pairs_table(asked[split], answers) for split in SPLITS},
        answers=answers,
        is_swapped=np.array([one.question_id in ids for one in train]),
        tokenizer=tokenizer,
    )


def _table(corpus: CorpusConfig, split: Split) -> pa.Table:
    clips = [describe_clip(corpus, split, number) for number in range(corpus.num_clips[split])]
    columns = {name: [getattr(clip, name) for clip in clips] for name in ("clip_id", "video_id", "split")}
    return pa.table({**columns, "truth": [json.dumps(clip.truth) for clip in clips]})


@dataclass(frozen=True)
class Reader:
    """Makes the batches of a split; without pixels every clip is the same grey one."""

    assembler: QuestionAssembler
    pad_id: int
    sees: bool

    def batch(self, rows: np.ndarray, size: int | None = None) -> ClipBatch:
        """Return the pairs at `rows`, which are in the order of their clips, and padding up to `size`."""
        arrays = self.assembler.assemble(rows[rows != PADDING_ROW])
        for name in ("token_ids", "question/token_ids"):
            arrays[name] = shorten(arrays[name], self.pad_id)
        batch = to_clip_batch(pad_batch(arrays, size or len(arrays["rows"])))
        if self.sees:
            return batch
        # One clip for all pairs: the same numbers as a grey clip for each, at the cost of one.
        frames = torch.full_like(batch.frames[:1], GREY)
        return ClipBatch(
            frames,
            batch.token_ids,
            batch.rows,
            batch.valid,
            batch.targets,
            batch.question,
            batch.clips,
            torch.zeros(len(batch), dtype=torch.int64),
        )

    def stream(self, batch_size: int, config: QuestionPlanConfig, *, is_sorted: bool = False) -> Iterator[ClipBatch]:
        """Yield batches without end in the order of the product's plan; `is_sorted` for its meta batches."""
        plan = QuestionPlan(self.assembler.pairs["row"].to_numpy(), batch_size, config)
        step = 0
        while True:
            rows, _ = plan.global_batch(step, batch_size)
            yield self.batch(np.sort(rows) if is_sorted else rows, batch_size)
            step += 1


def shorten(token_ids: np.ndarray, pad_id: int) -> np.ndarray:
    """Leave out what all texts are filled up with at the end but for one column: it costs time and changes nothing."""
    longest = int((token_ids != pad_id).sum(axis=1).max()) + 1
    return np.ascontiguousarray(token_ids[:, :longest])
