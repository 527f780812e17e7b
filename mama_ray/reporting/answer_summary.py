"""What the report page shows of answers: of a benchmark's result, or of the val split during training."""

from collections.abc import Mapping, Sequence

from mama_ray.evaluation.question_protocol import AnsweredExample, Count, QuestionResult
from mama_ray.reporting.content import Accuracy, AnsweredQuestion, Answering, Choice
from mama_ray.reporting.intervals import CONFIDENCE, wilson_interval
from mama_ray.reporting.run_summary import load_clips
from mama_ray.reporting.writers import read_series
from mama_ray.storage.places import Place

VAL_METRIC = "val/accuracy"


def summarise_result(result: QuestionResult, shards: Place) -> Answering:
    """Return a benchmark's scores with their intervals, and its examples with frames from the shards."""
    protocol, counts = result.protocol, result.counts
    rows = [_accuracy("all", result.metrics["accuracy"], counts["all"])]
    rows += [_accuracy(name, result.metrics[f"accuracy/{name}"], own) for name, own in counts.items() if name != "all"]
    note = f"Percent of all questions, with {CONFIDENCE:.0%} intervals (Wilson's, each question on its own)."
    if protocol.ceiling is not None:
        note += (
            f" No model with this list of {protocol.num_answers:,} answers can have more than {protocol.ceiling:.1f} %."
        )
    if protocol.num_options:
        note += f" Chance is {100 / protocol.num_options:.3g} %."
    for name in (name for name in result.metrics if name.startswith("mean_squared_error")):
        note += f" {name.replace('_', ' ').capitalize()}: {result.metrics[name]:.3g}."
    if protocol.num_missing:
        note += f" {protocol.num_missing:,} questions are wrong because their clip is not there or cannot be read."
    told = f"{protocol.name} {protocol.split}: {protocol.num_questions:,} {protocol.task.replace('_', ' ')} questions "
    told += f"about {protocol.num_videos:,} videos, ids {protocol.ids_sha256[:12]}"
    return Answering(
        rows=tuple(rows),
        benchmark=protocol.name,
        note=note,
        protocol=told,
        warning=result.warning or "",
        examples=load_examples(result.examples, shards),
    )


def summarise_validation(
    records: Sequence[Mapping], examples: Sequence[AnsweredExample], shards: Place
) -> Answering | None:
    """Return the last accuracy on the val split, of all and by type, with some of its questions; None without one."""
    if not read_series(records, VAL_METRIC)[1]:
        return None
    last = next(record for record in reversed(records) if record.get(VAL_METRIC) is not None)
    prefix = f"{VAL_METRIC}/"
    rows = [Accuracy("all", last[VAL_METRIC])]
    rows += [
        Accuracy(name[len(prefix) :].replace("_", " "), value)
        for name, value in last.items()
        if name.startswith(prefix)
    ]
    note = f"Percent of all questions of the val split after step {last['step']:,}."
    return Answering(tuple(rows), "the val split", note, examples=load_examples(examples, shards))


def load_examples(examples: Sequence[AnsweredExample], shards: Place) -> tuple[AnsweredQuestion, ...]:
    """Fetch the frames of the questions' clips from the shards."""
    clips = load_clips(shards, [one.clip_id for one in examples]) if examples else {}
    return tuple(
        AnsweredQuestion(
            frames=clips[one.clip_id][0] if one.clip_id in clips else None,
            clip_id=one.clip_id,
            question=one.question,
            choices=_choices(one),
            type=(one.type or "").replace("_", " "),
        )
        for one in examples
    )


def _choices(one: AnsweredExample) -> tuple[Choice, ...]:
    """Return all options of a multiple choice, else the right answer and the one that was given."""
    is_right = one.predicted == one.right if one.is_right is None else one.is_right
    texts = one.options or dict.fromkeys((one.right, *([one.predicted] if one.predicted and not is_right else [])))
    given = one.right if is_right else one.predicted
    return tuple(Choice(text, text == one.right, text == given) for text in texts)


def _accuracy(name: str, percent: float, count: Count) -> Accuracy:
    interval = ""
    if count.num_questions:
        low, high = wilson_interval(count.num_right / count.num_questions, count.num_questions)
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
    return Accuracy(name.replace("_", " "), percent, count.num_right, count.num_questions, interval)
