"""A job's metrics on the Prometheus endpoint of the Ray node it runs on, for Grafana and alerts.

Names are those of reporting/metrics.py, spelt as Prometheus wants them: `train/loss` is `mama_ray_train_loss`, and Ray
exports it as `ray_mama_ray_train_loss`. What a run chooses is a tag: `weights/clean/mean` is `mama_ray_weights_mean`
with kind="clean". Only what no table of a run holds is named here. Every value bears the tag `run`.
"""

import math
import re
import threading
import time
from collections.abc import Mapping
from functools import cache

import ray
from ray.util.metrics import Counter, Gauge

from mama_ray.reporting.metrics import METRICS, Metric, find_metric

PREFIX = "mama_ray"
_RUN = "run"
# Ray (2.60) forgets a gauge 20 s after its process last set it, and jobs log less often than that.
_REFRESH_EVERY_S = 5.0

# Gauges that metrics.jsonl has no need of, for it has a record per step.
_RUN_GAUGES = (Metric("run/step", "steps", "steps done"),)
_CAPTION_GAUGES = (
    Metric("caption/clips_per_s", "clips/s", "clips committed per second since the job started"),
    Metric("caption/tokens_per_s", "tokens/s", "tokens written per second since the job started"),
    Metric("caption/num_engines", "engines", "engines alive"),
    Metric("caption/clips_left", "clips", "clips that have no caption yet"),
    Metric("caption/busy_share", "", "share of the engines' time in which they had something to write"),
)
_COUNTERS = (
    Metric("run/checkpoints", "checkpoints", "checkpoints taken since the worker started"),
    Metric("caption/<outcome>/clips", "clips", "clips committed, by outcome: captioned or error"),
    Metric("caption/tokens", "tokens", "tokens written"),
    Metric("caption/<stage>/seconds", "s", "seconds of work of a stage: read, decode, caption or write"),
)
_OWN = {metric.name: metric for metric in _RUN_GAUGES + _CAPTION_GAUGES + _COUNTERS}


def export_metrics(run: str, gauges: Mapping[str, float | None], counts: Mapping[str, float] | None = None) -> None:
    """Set gauges and add to counters of this process under the tag `run`; nothing where Ray is not running.

    Names are slashed: those of reporting/metrics.py, `run/step`, `run/checkpoints` and `caption/...`. Curves and values
    that are no finite numbers are left out. A gauge is shown for as long as its process lives, a counter counts what
    this process did. Raises UserError for unknown names.
    """
    if not ray.is_initialized():
        return
    for name, value in gauges.items():
        metric, tags = _metric_and_tags(name)
        if not metric.is_curve and value is not None and math.isfinite(value):
            _gauges().set(metric, tags | {_RUN: run}, float(value))
    for name, amount in (counts or {}).items():
        metric, tags = _metric_and_tags(name)
        if amount > 0:  # Ray refuses to add nothing
            _counter(metric).inc(float(amount), tags | {_RUN: run})


def exported_name(metric: Metric) -> str:
    """Return the name that Ray's metrics get; Ray puts `ray_` before it, and `_total` behind that of a counter."""
    plain = re.sub(r"/<(\w+)>$", r"/by_\1", metric.name)  # else a total and its parts would share a name
    words = re.split(r"[^A-Za-z0-9]+", re.sub(r"<\w+>", "", plain).replace("@", "_at_"))
    return "_".join([PREFIX, *(word.lower() for word in words if word)])  # Ray lowers it without being asked


def prometheus_names() -> dict[str, Metric]:
    """Return every name under which Prometheus may find a metric of this project."""
    gauges = [metric for metric in METRICS.values() if not metric.is_curve] + [*_RUN_GAUGES, *_CAPTION_GAUGES]
    names = {f"ray_{exported_name(metric)}": metric for metric in gauges}
    return names | {f"ray_{exported_name(metric)}_total": metric for metric in _COUNTERS}


def _metric_and_tags(name: str) -> tuple[Metric, dict[str, str]]:
    """Return the row of a concrete name and what stands in place of the angle brackets."""
    for metric in _OWN.values():
        if (found := _pattern(metric).fullmatch(name)) is not None:
            return metric, found.groupdict()
    metric = find_metric(name)
    return metric, _pattern(metric).fullmatch(name).groupdict()


@cache
def _pattern(metric: Metric) -> re.Pattern:
    parts = re.split(r"<(\w+)>", metric.name)
    named = [f"(?P<{part}>.+)" if place % 2 else re.escape(part) for place, part in enumerate(parts)]
    return re.compile("".join(named))


class _Gauges:
    """The gauges of this process, which a thread sets anew while Ray runs."""

    def __init__(self) -> None:
        self._values: dict[tuple[Metric, frozenset[tuple[str, str]]], float] = {}
        threading.Thread(target=self._refresh, name="refresh-gauges", daemon=True).start()

    def set(self, metric: Metric, tags: dict[str, str], value: float) -> None:
        """Set a gauge now, and again until the process ends."""
        self._values[metric, frozenset(tags.items())] = value
        _gauge(metric).set(value, tags)

    def _refresh(self) -> None:
        while True:
            time.sleep(_REFRESH_EVERY_S)
            for (metric, tags), value in list(self._values.items()):
                if ray.is_initialized():
                    _gauge(metric).set(value, dict(tags))


@cache
def _gauges() -> _Gauges:
    return _Gauges()


@cache
def _gauge(metric: Metric) -> Gauge:
    return Gauge(exported_name(metric), _description(metric), _tag_keys(metric))


@cache
def _counter(metric: Metric) -> Counter:
    return Counter(exported_name(metric), _description(metric), _tag_keys(metric))


def _description(metric: Metric) -> str:
    return f"{metric.meaning} ({metric.unit})" if metric.unit else metric.meaning


def _tag_keys(metric: Metric) -> tuple[str, ...]:
    return (_RUN, *_pattern(metric).groupindex)
