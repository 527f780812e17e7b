"""What a worker takes note of after each step; passed to `training.loop.train` as its `report`.

Beside what every trainer records: weights by the kind of caption, the learned curve, warnings, quarantined clips.
"""

import logging
from functools import partial
from pathlib import Path

import numpy as np
import ray
import torch

from mama_ray.data.plan import PADDING_ROW
from mama_ray.data.questions.answers import ANSWERS_NAME
from mama_ray.models.card import CARD, model_card
from mama_ray.models.heads.classes import ClassHeads, capture_class_head, write_class_head
from mama_ray.models.heads.folder import capture_head, write_head
from mama_ray.models.host_copy import Buffers
from mama_ray.models.pretrained import capture_pretrained, write_pretrained
from mama_ray.orchestration.runs.checkpoint_writer import WriteFiles
from mama_ray.orchestration.runs.recording import Recording
from mama_ray.orchestration.training.class_validation import ClassValidation
from mama_ray.orchestration.training.clip_reader import ClipReader
from mama_ray.orchestration.training.data import RunData, truth_kinds
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.question_validation import QuestionValidation
from mama_ray.orchestration.training.questions import AskedData
from mama_ray.orchestration.training.sample_record import SampleRecorder, clips_of_samples
from mama_ray.orchestration.training.validation import ValidationSet
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place, join_uri
from mama_ray.training.checkpoint import capture_state, write_state
from mama_ray.training.diagnosis import MetaSetWatch, StepWindow, weight_curve
from mama_ray.training.loop import StepRecord
from mama_ray.training.state import TrainState

logger = logging.getLogger(__name__)

_THIS_FOLDER = "path/of/this/folder"  # in the model card: where a run lies is nobody's affair
SELECTION_METRIC = "val/t2v_R@1"
QUESTION_METRIC = "val/accuracy"  # of a run that learns to answer
_QUARANTINED = "data/num_quarantined"


class RunRecorder:
    """Called with the record of each step, inside the worker's recording."""

    def __init__(
        self,
        recording: Recording,
        job: TrainJob,
        state: TrainState,
        data: RunData,
        validation: ValidationSet | None,
        reader: ClipReader,
        asked: AskedData | None = None,
        answers: QuestionValidation | ClassValidation | None = None,
        *,
        samples: SampleRecorder,
    ) -> None:
        self._recording, self._job, self._state, self._samples = recording, job, state, samples
        self._validation, self._reader, self._asked, self._answers = validation, reader, asked, answers
        self._window = StepWindow(is_learned=state.weighted_step.is_learned)
        self._watch = MetaSetWatch(job.meta.batch_size)
        self._last: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)  # losses, inputs of the net
        self._num_quarantined = quarantined_before(job, state.step) if recording.is_written_here else 0
        self._warned: set[str] = set()
        self._kinds = truth_kinds(ray.get(data.train)) if recording.is_written_here else None
        self._clips_of = clips_of_samples(data, asked) if self._kinds is not None else None
        self._actions = tuple(data.summary.get("classes", {}).get("actions", ()))
        self._buffers: Buffers = {}

    def __call__(self, record: StepRecord) -> None:
        """Take note of a finished step; log, validate and save when it is time."""
        self._window.add(record)
        self._watch.add(record)
        self._samples.add(record)
        usable = record.weights > 0
        self._last = record.losses, None if record.inputs is None else record.inputs[usable]
        is_time_to_log, is_time_to_save = self._recording.is_time_to_log(), self._recording.is_time_to_save()
        if is_time_to_log or is_time_to_save:
            self._window.require_sound()
            self._samples.settle()
        if is_time_to_log:
            self._log(self._state.step)  # the steps that are done, this one among them
        if is_time_to_save:
            self._validate_and_save()

    def _log(self, step: int) -> None:
        scalars = self._window.means()
        num_steps = self._window.num_steps
        scalars |= self._recording.measures(num_steps)
        self._num_quarantined += round(scalars["data/num_invalid"] * num_steps)
        scalars[_QUARANTINED] = self._num_quarantined
        if self._recording.is_written_here:
            scalars |= self._weights_by_kind() | self._window.of_inputs(self._state.weighting)
            scalars |= self._window.of_captions()
            self._warn_once(step, self._window.warnings(scalars) | self._watch.warning())
        self._recording.log(scalars, loss=scalars["train/unweighted_loss"])
        self._window = StepWindow(is_learned=self._state.weighted_step.is_learned)

    def _warn_once(self, step: int, warnings: dict[str, str]) -> None:
        for kind, text in warnings.items():
            if kind not in self._warned:
                self._warned.add(kind)
                logger.warning("step %d: %s (told once; metrics.jsonl has every step)", step, text)

    def _weights_by_kind(self) -> dict[str, float]:
        """Mean weight (1 is uniform) of the clips whose captions are recorded as clean, wrong and so on, and the mean
        share of a generated caption in the loss of such clips."""
        if self._kinds is None or self._clips_of is None:
            return {}
        samples, weights = self._window.rows_and_weights(self._global_rows)
        is_sample = samples != PADDING_ROW
        kinds, weights = self._kinds.of(self._clips_of(samples[is_sample])), weights[is_sample]
        found = {f"weights/{kind}/mean": float(weights[kinds == kind].mean()) for kind in np.unique(kinds)}
        shares = self._window.shares()
        if len(shares):
            shares = shares[is_sample]
            known = ~np.isnan(shares)
            for kind in np.unique(kinds[known]):
                found[f"captions/{kind}/share"] = float(shares[known & (kinds == kind)].mean())
        return found

    def _global_rows(self, step: int) -> np.ndarray:
        return self._reader.epoch_plan().global_batch(step, self._state.global_batch_size)[0]

    def _validate_and_save(self) -> None:
        with self._recording.paused():
            metrics = {} if self._validation is None else self._validation.metrics(self._state.evaluated_model)
            if isinstance(self._answers, ClassValidation):
                metrics |= self._answers.metrics(self._state.evaluated_model, self._state.evaluated_head)
            elif self._answers is not None:
                head = self._state.evaluated_head
                assert not isinstance(head, ClassHeads)
                metrics |= self._answers.metrics(self._state.evaluated_model, head)
            writes = self._recording.is_written_here
            curves = weight_curve(self._state.weighting, *self._last) if writes else {}
            name = SELECTION_METRIC if self._answers is None else QUESTION_METRIC
            value = metrics.get(name)
            selection = None if value is None else {"metric": name, "value": value}
            self._samples.write(self._state.step)  # before the checkpoint that says that these steps are done
            capture = partial(self._capture, metrics, selection)
            self._recording.save(metrics, capture, selection=selection, curves=curves)

    def _capture(self, metrics: dict[str, float], selection: dict | None) -> WriteFiles:
        model = capture_pretrained(self._state.evaluated_model, self._buffers)
        asked, head, captured, of_classes = self._asked, self._state.evaluated_head, None, None
        if isinstance(head, ClassHeads):
            of_classes = capture_class_head(head, self._actions, self._buffers)
        elif asked is not None and head is not None:
            captured = capture_head(head, asked.answers, self._buffers)
        found: dict = {"validation": metrics}
        if isinstance(self._answers, QuestionValidation):
            found["answered"] = self._answers.examples
        state = capture_state(self._state, selection=selection, extra=found, buffers=self._buffers)

        def write(staged: Path) -> None:
            write_pretrained(model, staged, tokenizer=self._reader.tokenizer())
            if captured is not None:
                write_head(captured, staged)
            if of_classes is not None:
                write_class_head(of_classes, staged)
            if asked is not None and asked.answers:
                (staged / ANSWERS_NAME).write_text(asked.answer_list, encoding="utf-8")
            write_state(state, staged)
            (staged / "config.yaml").write_text(self._job.to_yaml())
            settings = self._job.model_dump(mode="json")
            card = model_card(self._job.run, model.config, settings, record=state.record, address=_THIS_FOLDER)
            (staged / CARD).write_text(card, encoding="utf-8")

        return write


def quarantined_before(job: TrainJob, step: int) -> int:
    """Return how many clips had been left out when the run last told it, of the steps that a resumed one keeps."""
    records = read_metrics(Place.of(join_uri(job.storage, job.run)))
    told = [record[_QUARANTINED] for record in records if record["step"] <= step and _QUARANTINED in record]
    return int(told[-1]) if told else 0
