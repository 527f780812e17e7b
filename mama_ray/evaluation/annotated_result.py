"""The result of an annotated benchmark: its metrics with all that a result must name."""

from mama_ray.data.index import hash_ids
from mama_ray.evaluation.annotated_benchmark import (
    AnnotatedBenchmark,
    AnnotatedProtocol,
    AnnotatedResult,
    ClassificationBenchmark,
    MultiInstanceBenchmark,
    MultipleChoiceBenchmark,
    chance_warning,
)
from mama_ray.evaluation.targets import ClassTargets, Targets


def make_result(
    benchmark: AnnotatedBenchmark,
    targets: Targets,
    metrics: dict[str, float],
    *,
    source: str,
    num_missing: int = 0,
    **named: object,
) -> AnnotatedResult:
    """Return the result; `named` is what else the protocol says, score at least."""
    of_classes = {}
    if isinstance(benchmark, ClassificationBenchmark) and isinstance(targets, ClassTargets):
        of_classes = {"num_classes": len(targets.class_names), "lists": ", ".join(targets.lists or ())}
    protocol = AnnotatedProtocol.model_validate(
        {
            "dataset": benchmark.dataset,
            "split": benchmark.split,
            "family": _family_of(benchmark),
            "ids_sha256": hash_ids(targets.clip_ids),
            "num_clips": len(targets.clip_ids),
            "num_texts": len(targets.texts),
            "num_missing": num_missing,
            "deviation": deviation_of(benchmark, targets, num_missing),
            **of_classes,
            **named,
        }
    )
    return AnnotatedResult(
        protocol=protocol, source=source, metrics=metrics, warning=chance_warning(benchmark, metrics)
    )


def deviation_of(benchmark: AnnotatedBenchmark, targets: Targets, num_missing: int) -> str:
    """Return how what was there differs from the whole benchmark, "" where it is whole."""
    left_out = f"{len(targets.left_out):,} clips left out" if targets.left_out else ""
    return ", ".join(one for one in (_deviation_of_files(benchmark, targets, num_missing), left_out) if one)


def _deviation_of_files(benchmark: AnnotatedBenchmark, targets: Targets, num_missing: int) -> str:
    if found := benchmark.clips_deviation(targets.clip_ids, num_missing):
        return found
    if isinstance(benchmark, ClassificationBenchmark) and isinstance(targets, ClassTargets):
        scored = len(targets.class_names)
        if benchmark.leaves_out_absent:
            scored = int(targets.labels.any(axis=0).sum())
        return _differing(scored, benchmark.num_classes, "classes")
    if isinstance(benchmark, MultiInstanceBenchmark):
        return _differing(len(targets.texts), benchmark.num_texts, "captions")
    if isinstance(benchmark, MultipleChoiceBenchmark):
        return _differing(len(targets.texts), benchmark.num_questions, "questions")
    return ""


def _differing(found: int, wanted: int | None, what: str) -> str:
    return "" if wanted in (None, found) else f"{found:,} of {wanted:,} {what}"


def _family_of(benchmark: AnnotatedBenchmark) -> str:
    known = (MultiInstanceBenchmark, ClassificationBenchmark, MultipleChoiceBenchmark)
    assert isinstance(benchmark, known)
    return benchmark.family
