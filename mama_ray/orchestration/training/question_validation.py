"""Answers on the val split during training: each worker answers its share, rank 0 tells the accuracy. Test is never
read here."""

import re
from collections.abc import Sequence

import numpy as np
import ray
import torch

from mama_ray.data.batch import to_clip_batch
from mama_ray.data.questions.assemble import ANSWER
from mama_ray.evaluation.question_protocol import AnsweredExample
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.heads.head import AnswerHead
from mama_ray.objectives.gather import gather_plain
from mama_ray.objectives.gather import rank as current_rank
from mama_ray.orchestration.runs.kept_chunks import KeptChunks
from mama_ray.orchestration.training.clip_reader import ClipReader
from mama_ray.weighting.question_model import QuestionModel

_CHUNK = 64
_KEPT_BYTES = 512 << 20  # decoded clips kept per worker
_NO_TYPE = ""
_NO_ANSWER = -2  # unlike UNLISTED, so never right
_UNLISTED_TEXT = "(an answer that is on no list)"
NUM_EXAMPLES = 6
_ODD = re.compile(r"[^A-Za-z0-9_.-]+")  # what a metric's name has none of


class QuestionValidation:
    """This worker's part of the questions of the val split, those of a clip together as far as may be."""

    def __init__(
        self,
        reader: ClipReader,
        table: ray.ObjectRef,
        pairs: ray.ObjectRef,
        *,
        rank: int,
        world_size: int,
        answers: Sequence[str] = (),
    ) -> None:
        self.examples: list[dict] = []
        """Some of this worker's questions with what was answered last, as `AnsweredExample` has them."""
        self._table, self._answers = table, answers
        self._assembler = None if ray.get(pairs) is None else reader.pairs(table, pairs)
        if self._assembler is None:
            return
        types = [kind or _NO_TYPE for kind in self._assembler.pairs["type"].to_pylist()]
        self._names, self._types = np.unique(types, return_inverse=True)
        self._rows = np.array_split(np.arange(len(types)), world_size)[rank]
        self._chunks = KeptChunks(self._decode, lambda chunk: chunk["frames"].nbytes, max_bytes=_KEPT_BYTES)

    @torch.no_grad()
    def metrics(self, model: DualEncoder, head: AnswerHead | None) -> dict[str, float]:
        """Return val/accuracy and val/accuracy/<type>, of all questions, on rank 0; {} elsewhere and where none is
        asked. What no list holds is wrong, and so is a question whose clip cannot be read."""
        if self._assembler is None:
            return {}
        answering = QuestionModel(model, head)
        was_training = model.training
        answering.eval()
        device = next(model.parameters()).device
        counts, given = np.zeros((2, len(self._names)), np.int64), []
        for start in range(0, len(self._rows), _CHUNK):
            batch = to_clip_batch(self._chunks[start]).to(device)
            logits = answering(batch).answer_logits
            # The largest of scores that are no numbers would be the first answer, which is right now and then.
            chosen = torch.where(torch.isfinite(logits).all(dim=1), logits.argmax(dim=1), _NO_ANSWER)
            given += torch.where(batch.valid, chosen, _NO_ANSWER).tolist()
            is_right = ((chosen == batch.targets[ANSWER]) & batch.valid).cpu().numpy()
            types = self._types[self._rows[start : start + _CHUNK]]
            counts += [np.bincount(types[is_right], minlength=len(self._names)),
                       np.bincount(types, minlength=len(self._names))]  # fmt: skip
        answering.train(was_training)
        self.examples = self._examples(given)
        num_right, num_asked = gather_plain(torch.from_numpy(counts)[None].to(device)).sum(0).cpu().numpy()
        if current_rank() != 0:
            return {}
        by_type = {
            f"val/accuracy/{_ODD.sub('_', name)}": 100.0 * float(right) / float(asked)
            for name, right, asked in zip(self._names, num_right, num_asked, strict=True)
            if name != _NO_TYPE
        }
        return {"val/accuracy": 100.0 * float(num_right.sum()) / float(num_asked.sum()), **by_type}

    def _examples(self, given: list[int]) -> list[dict]:
        """Return a few questions of this worker, evenly spread, with the text of what was answered."""
        assert self._assembler is not None
        places = np.unique(np.linspace(0, len(given) - 1, min(NUM_EXAMPLES, len(given))).astype(np.int64))
        clip_ids = ray.get(self._table)["clip_id"]
        examples = []
        for place in places.tolist():
            (pair,) = self._assembler.pairs.slice(int(self._rows[place]), 1).to_pylist()
            texts = pair["options"] or self._answers
            is_listed, chosen = pair["answer"] >= 0, given[place]
            example = AnsweredExample(
                question_id=pair["question_id"],
                clip_id=clip_ids[pair["row"]].as_py(),
                question=pair["question"],
                right=texts[pair["answer"]] if is_listed else _UNLISTED_TEXT,
                predicted=texts[chosen] if 0 <= chosen < len(texts) else None,
                type=pair["type"],
                options=tuple(pair["options"] or ()),
                is_right=is_listed and chosen == pair["answer"],
            )
            examples.append(example.model_dump(mode="json"))
        return examples

    def _decode(self, start: int) -> dict[str, np.ndarray]:
        assert self._assembler is not None
        return self._assembler.assemble(self._rows[start : start + _CHUNK])
