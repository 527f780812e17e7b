"""Whether a checkpoint's own heads tell the classes of a benchmark, and whether they are of its classes."""

import numpy as np

from mama_ray.errors import UserError
from mama_ray.evaluation.annotated_benchmark import AnnotatedBenchmark, ClassificationBenchmark
from mama_ray.evaluation.annotated_scores import head_scores, require_measurable
from mama_ray.evaluation.targets import ClassTargets, Targets
from mama_ray.models.heads.classes import ClassHeadFile
from mama_ray.orchestration.evaluation.model import EvaluatedModel


def tells_classes(benchmark: AnnotatedBenchmark, model: EvaluatedModel) -> bool:
    """Tell whether the model's own heads are scored; UserError where they are asked for and it has none."""
    if not isinstance(benchmark, ClassificationBenchmark) or benchmark.score == "cosine":
        return False
    if benchmark.score == "head" and model.class_head is None:
        raise UserError(
            "the checkpoint has no heads of classes",
            got=model.uri,
            wanted="one of a run with task.kind classification",
            remedy="set score: cosine in a copy of the benchmark's file",
        )
    return model.class_head is not None


def check_targets(benchmark: AnnotatedBenchmark, targets: Targets | None, head: ClassHeadFile | None) -> None:
    """Raise UserError for what annotations and heads alone tell, before a clip is embedded; None is not looked at."""
    if targets is not None:
        leaves_out = isinstance(benchmark, ClassificationBenchmark) and benchmark.leaves_out_absent
        require_measurable(targets, leaves_out_absent=leaves_out)
    require_fitting_head(targets, head)


def require_fitting_head(targets: Targets | None, head: ClassHeadFile | None) -> None:
    """Raise UserError for heads of other kinds, sizes or actions than the benchmark's, before a clip is embedded.

    None for either is not looked at: annotations that are not read yet, heads that are not scored.
    """
    if head is None or targets is None:
        return
    assert isinstance(targets, ClassTargets)
    of_one_clip = {kind: np.zeros((1, 1, size), np.float32) for kind, size in head.sizes.items()}
    head_scores(targets, of_one_clip, actions=head.actions)
