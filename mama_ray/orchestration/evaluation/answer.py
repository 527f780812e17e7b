"""Answer every question of a split on the cluster: Ray Data decodes on CPU tasks, a pool of actors holds the model.

As `embed.py` does of clips. A batch is whole clips with their questions as far as they fit, so a clip is decoded once,
and encoded once where the model allows it. A clip that cannot be decoded leaves its questions without an answer.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from jaxtyping import Float
from ray.data import ActorPoolStrategy, DataContext
from torch import Tensor

from mama_ray.data.assemble import ClipAssembler
from mama_ray.data.batch import PADDING_ROW, ClipBatch, pad_batch, to_clip_batch
from mama_ray.data.questions.answers import ANSWERS_NAME, AnswerList, answer_list_from_json
from mama_ray.data.questions.assemble import QuestionAssembler
from mama_ray.data.region_features.assemble import FeatureAssembler
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.masking import masked_errors
from mama_ray.models.answering import AnsweringEncoder, JointEncoder
from mama_ray.models.asking import asks_like, give_answers
from mama_ray.models.heads.headed import HeadedEncoder, load_answering
from mama_ray.models.settings import QuestionForm
from mama_ray.orchestration.cluster.own_device import own_device
from mama_ray.orchestration.cluster.results import user_errors
from mama_ray.storage.places import Place, storage_errors

# Unlike the actors' CPUs: operators with equal resources are fused, and decoding would then queue inside the actors.
_DECODE_CPUS, _ACTOR_CPUS = 0.5, 1.0


@dataclass(frozen=True)
class AnswerPlan:
    """What the tasks and actors need; picklable and small.

    Attributes:
        table: the clips that are asked about.
        pairs: the questions, tied to rows of that table; see `data/questions/assemble.py`.
        num_choices: answers of the model's list, or options of each question.
    """

    table: ray.ObjectRef
    pairs: ray.ObjectRef
    batches: tuple[tuple[int, int], ...]
    num_choices: int
    tokenizer_files: ray.ObjectRef
    model_type: str
    has_own_head: bool
    shards: str
    model: str
    question_length: int
    num_frames: int
    transform: TransformConfig
    decode: DecodeConfig
    batch_size: int
    features: str | None = None
    """Table of features that the model reads instead of pixels, and how many regions of a frame."""
    num_regions: int = 0
    question_form: QuestionForm = "release"


def cut_at_clips(rows: np.ndarray, size: int) -> tuple[tuple[int, int], ...]:
    """Cut pairs that are sorted by clip into [start, stop) of at most `size`, between clips where that is possible."""
    ends = np.append(np.flatnonzero(np.diff(rows)) + 1, len(rows))
    batches, start = [], 0
    while start < len(rows):
        within = ends[(ends > start) & (ends <= start + size)]
        stop = int(within[-1]) if len(within) else start + size
        batches.append((start, stop))
        start = stop
    return tuple(batches)


def answer_questions(plan: AnswerPlan, output: str, *, num_actors: int, use_gpu: bool) -> None:
    """Write one Parquet row per pair under the URI `output`: pair, choice, and whether its clip could be read."""
    folder = Place.of(output)
    folder.make_folder()
    DataContext.get_current().enable_progress_bars = False

    def decode(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tables = ray.get([plan.table, plan.pairs])
        return decode_pairs(plan, *tables, ray.get(plan.tokenizer_files), number=int(batch["id"][0]))

    batches = ray.data.range(len(plan.batches), override_num_blocks=len(plan.batches))
    asked = batches.map_batches(decode, batch_size=1, num_cpus=_DECODE_CPUS)
    answered = asked.map_batches(
        Answerer,
        fn_constructor_args=(plan,),
        batch_size=1,
        compute=ActorPoolStrategy(min_size=1, max_size=max(1, num_actors)),
        num_cpus=_ACTOR_CPUS,
        num_gpus=1 if use_gpu else 0,
    )
    answered.set_name("answer")  # in Ray's dashboard
    with user_errors(), storage_errors(output):
        answered.write_parquet(folder.path, filesystem=folder.filesystem)


class Answerer:
    """Holds the model in an actor and chooses an answer for each pair of a batch."""

    @masked_errors
    def __init__(self, plan: AnswerPlan) -> None:
        self._num_choices = plan.num_choices
        self._device = own_device()
        with storage_errors(plan.model), Place.of(plan.model).local() as folder:
            tokenizer = Tokenizer.from_directory(folder, plan.question_length)
            model = load_answering(folder, tokenizer, trained_only=True)
            answers = answers_of(folder)
            if answers is not None and not isinstance(model, HeadedEncoder):
                give_answers(model, answers.answers, tokenizer)
        assert isinstance(model, torch.nn.Module)
        self._model: AnsweringEncoder = model.eval().to(self._device)

    @torch.inference_mode()
    def __call__(self, batches: dict[str, np.ndarray]) -> pa.Table:
        batch = {name: values[0] for name, values in batches.items()}
        is_pair = batch["rows"] != PADDING_ROW
        logits = _logits(self._model, to_clip_batch(batch).to(self._device))
        if logits.shape[1] < self._num_choices:
            raise UserError(
                "the model does not fit the questions", got=f"{logits.shape[1]} scores",
                wanted=f"{self._num_choices}, one for each answer of its list or each option",
            )  # fmt: skip
        logits = logits[:, : self._num_choices].cpu()
        _require_finite(logits[torch.from_numpy(is_pair & batch["valid"])])
        choices = logits.argmax(dim=1).numpy()
        columns = {"pair": batch["rows"][is_pair], "choice": choices[is_pair], "valid": batch["valid"][is_pair]}
        return pa.table({name: pa.array(values) for name, values in columns.items()})


def _require_finite(logits: Float[Tensor, "pairs answers"]) -> None:
    """Raise UserError for scores of which the largest says nothing: the first answer would be right now and then."""
    num_bad = int((~torch.isfinite(logits).all(dim=1)).sum())
    if num_bad:
        raise UserError(
            "the model gives scores that are no numbers", got=f"{num_bad} of {len(logits)} questions of a batch",
            wanted="finite numbers",
            remedy="the model has diverged or the checkpoint is damaged: evaluate an earlier one",
        )  # fmt: skip


def read_choices(folder: Place, num_pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what was chosen for each pair and whether its clip could be read.

    Raises RuntimeError unless every pair is there: a lost one would flatter.
    """
    table = pq.read_table(folder.path, filesystem=folder.filesystem).sort_by("pair")
    pairs = table["pair"].to_numpy()
    keep = np.r_[True, np.diff(pairs) > 0] if len(pairs) else np.zeros(0, bool)  # a task that ran twice wrote twice
    table = table.filter(pa.array(keep))
    if not np.array_equal(table["pair"].to_numpy(), np.arange(num_pairs)):
        raise RuntimeError(f"answers to {len(table)} questions were written, wanted {num_pairs}")
    return table["choice"].to_numpy(), table["valid"].to_numpy(zero_copy_only=False)


def answers_of(folder: Path) -> AnswerList | None:
    """Return the list of answers that lies in a model's folder, None where there is none."""
    path = folder / ANSWERS_NAME
    return answer_list_from_json(path.read_bytes(), str(path)) if path.is_file() else None


def load_tokenizer(files: Mapping[str, bytes], length: int) -> Tokenizer:
    """Load a tokenizer from the content of its files."""
    with tempfile.TemporaryDirectory(prefix="mama_ray-tokenizer-") as directory:
        for name, content in files.items():
            (Path(directory) / name).write_bytes(content)
        return Tokenizer.from_directory(directory, length)


def _logits(model: AnsweringEncoder, batch: ClipBatch) -> Float[Tensor, "pairs answers"]:
    """Return the scores; a clip is encoded once for its questions where the model allows it."""
    if isinstance(model, HeadedEncoder):
        return model.answer_encoded(batch.for_questions(model.encode_video(batch.frames)), batch.question)
    if isinstance(model, JointEncoder):
        return model.answer_encoded(batch.for_questions(model.encode_frames(batch.frames)), batch.question)
    return model.answer(batch.for_questions(batch.frames), batch.question)


def decode_pairs(
    plan: AnswerPlan, table: pa.Table, pairs: pa.Table, tokenizer_files: Mapping[str, bytes], *, number: int
) -> dict[str, np.ndarray]:
    """Return the arrays of batch `number`, filled up to the batch's size; UserError where the storage fails.

    Axis 0 has one place, for the batch as one row: Ray Data cuts a large block between rows, and a pair's frames are
    found by those before it.
    """
    tokenizer = load_tokenizer(tokenizer_files, plan.question_length)
    ask = asks_like(plan.model_type, tokenizer, has_own_head=plan.has_own_head, form=plan.question_form)
    if plan.features is not None:
        clips = FeatureAssembler(table, plan.features, plan.num_regions, tokenizer)
    else:
        clips = ClipAssembler(
            Place.of(plan.shards), table, tokenizer, plan.num_frames, plan.transform, decode=plan.decode
        )
    arrays = QuestionAssembler(clips, pairs, ask).assemble(np.arange(*plan.batches[number]))
    return {name: values[None] for name, values in pad_batch(arrays, plan.batch_size).items()}
