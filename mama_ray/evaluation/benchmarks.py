"""A benchmark file by its family: retrieval, which one without a family is, question answering, or one of those whose
truth lies in official annotation files.
"""

from pathlib import Path
from typing import get_args

from mama_ray.config import ConfigError, load_config
from mama_ray.config.yaml_text import read_yaml
from mama_ray.evaluation.annotated_benchmark import (
    ClassificationBenchmark,
    MultiInstanceBenchmark,
    MultipleChoiceBenchmark,
)
from mama_ray.evaluation.protocol import BenchmarkConfig
from mama_ray.evaluation.question_protocol import QuestionBenchmark

Benchmark = (
    BenchmarkConfig | QuestionBenchmark | MultiInstanceBenchmark | ClassificationBenchmark | MultipleChoiceBenchmark
)
_FAMILIES: dict[str, type[Benchmark]] = {
    get_args(one.model_fields["family"].annotation)[0]: one for one in get_args(Benchmark)
}


def load_benchmark_file(path: str | Path) -> Benchmark:
    """Read a benchmark's YAML file into the config of its family; ConfigError as `load_config` raises, and for another
    family.
    """
    return load_config(benchmark_class(path), path)


def benchmark_class(path: str | Path) -> type[Benchmark]:
    """Return the config class of a benchmark's file."""
    values = read_yaml(path)
    family = values.get("family", BenchmarkConfig.model_fields["family"].default)
    if not isinstance(family, str) or family not in _FAMILIES:
        raise ConfigError(f"family in {path}", got=repr(family), wanted=f"one of {', '.join(_FAMILIES)}")
    return _FAMILIES[family]
