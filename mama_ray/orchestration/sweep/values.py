"""What a trial reports, and how points and values read."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

# Ray Train reports these beside the metrics of a validation; a trial's own number of steps, which a search may change.
STEP, NUM_STEPS = "step", "num_steps"
STEP_TIME = "throughput/step_s"
# The one line by which a trial tells that it ended by what only its user can put right, and whether a storage failed.
FAILURE, IS_OF_STORAGE = "failure", "is_of_storage"


def missing_metrics(result: Mapping[str, Any], objectives: Iterable[str]) -> list[str]:
    """Return the objectives of which a result holds no finite number."""
    given = {metric: result.get(metric) for metric in objectives}
    return [name for name, value in given.items() if not (isinstance(value, int | float) and math.isfinite(value))]


def describe_point(point: Mapping[str, Any]) -> str:
    """Return values by key as one line."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in point.items()
    )


def describe_values(objectives: Mapping[str, str], values: list[float]) -> str:
    """Return the values of the objectives as one line."""
    return ", ".join(f"{metric} {value:.4g}" for metric, value in zip(objectives, values, strict=True))
