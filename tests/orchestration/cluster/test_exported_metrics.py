"""A job's numbers reach Prometheus: by name, with their value and their run."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.pool import PoolHistory
from mama_ray.orchestration.captioning.progress import CaptionProgress
from mama_ray.orchestration.cluster.exported_metrics import export_metrics, exported_name, prometheus_names
from mama_ray.reporting.metrics import METRICS, find_metric
from tests.orchestration.cluster.prometheus_page import page_with, read_page, value_of

ROOT = Path(__file__).resolve().parents[3]
_LEGAL_NAME = re.compile(r"[a-z_][a-z0-9_]*")


@pytest.mark.parametrize(
    ("name", "exported"),
    [
        ("train/loss", "mama_ray_train_loss"),
        ("val/t2v_R@1", "mama_ray_val_t2v_r_at_1"),
        ("weights/clean/mean", "mama_ray_weights_mean"),
        ("eval/msvd/v2t_median_rank", "mama_ray_eval_v2t_median_rank"),
        ("val/accuracy", "mama_ray_val_accuracy"),
        ("val/accuracy/colour", "mama_ray_val_accuracy_by_type"),
    ],
)
def test_a_name_of_the_table_is_spelt_as_prometheus_wants_it(name, exported):
    assert exported_name(find_metric(name)) == exported


def test_no_two_metrics_share_a_name_and_every_name_is_legal():
    scalars = [metric for metric in METRICS.values() if not metric.is_curve]
    assert len({exported_name(metric) for metric in scalars}) == len(scalars)
    names = prometheus_names()
    assert len(names) > len(scalars)
    assert all(_LEGAL_NAME.fullmatch(name) for name in names)


@pytest.mark.ray
def test_what_a_worker_exports_is_found_on_its_nodes_endpoint(ray_cluster):
    exporter = Exporter.remote()
    gauges = {"train/loss": 2.5, "val/t2v_R@1": 41.0, "weights/clean/mean": 1.25, "run/step": 30}
    unknowable = {"meta/loss": float("nan"), "meta/direction_norm": None, "weights/curve_loss": [1.0, 2.0]}
    ray.get(exporter.export.remote("night", gauges | unknowable, {"run/checkpoints": 1}))
    counts = {"caption/captioned/clips": 30, "caption/error/clips": 2, "caption/tokens": 0}
    ray.get(exporter.export.remote("night", {}, counts | {"run/checkpoints": 2}))

    wanted = {
        ("ray_mama_ray_train_loss", None): 2.5,
        ("ray_mama_ray_val_t2v_r_at_1", None): 41.0,
        ("ray_mama_ray_weights_mean", 'kind="clean"'): 1.25,
        ("ray_mama_ray_run_step", None): 30.0,
        ("ray_mama_ray_run_checkpoints_total", None): 3.0,
        ("ray_mama_ray_caption_clips_total", 'outcome="captioned"'): 30.0,
        ("ray_mama_ray_caption_clips_total", 'outcome="error"'): 2.0,
    }
    page = page_with(wanted)
    assert {key: value_of(page, *key) for key in wanted} == wanted
    assert "ray_mama_ray_meta" not in page  # neither NaN nor null has a value to show
    assert "curve" not in page
    assert set(re.findall(r"^(ray_mama_ray\w+)", page, re.M)) <= set(prometheus_names())


@pytest.mark.ray
def test_a_captioning_jobs_driver_tells_what_it_counts(ray_cluster):
    progress = CaptionProgress(100, table="s3://bucket/captions/")
    progress.start(40, PoolHistory())
    batch = {name: [0.5] for name in ("read_s", "decode_s", "caption_s", "write_s", "engine_busy_s", "engine_idle_s")}
    progress.add({"num_clips": [32], "num_errors": [2], "num_tokens": [320], "engine": ["one"], **batch})
    wanted = {
        ("ray_mama_ray_caption_clips_left", None): 28.0,
        ("ray_mama_ray_caption_clips_total", 'outcome="captioned"'): 30.0,
        ("ray_mama_ray_caption_clips_total", 'outcome="error"'): 2.0,
        ("ray_mama_ray_caption_seconds_total", 'stage="decode"'): 0.5,
        ("ray_mama_ray_caption_busy_share", None): 0.5,
    }
    page = page_with(wanted, run="s3://bucket/captions")
    assert {key: value_of(page, *key, run="s3://bucket/captions") for key in wanted} == wanted


@pytest.mark.ray
@pytest.mark.slow
def test_a_gauge_that_was_set_once_is_shown_for_as_long_as_its_process_lives(ray_cluster):
    exporter = Exporter.remote()
    ray.get(exporter.export.remote("night", {"train/epoch": 1.5}, {}))
    wanted = {("ray_mama_ray_train_epoch", None): 1.5}
    page_with(wanted)
    time.sleep(35)  # Ray forgets a gauge after 20 s and tells so up to 10 s later
    assert value_of(read_page(), "ray_mama_ray_train_epoch", None) == 1.5


@pytest.mark.ray
def test_an_unknown_metric_is_refused(ray_cluster):
    with pytest.raises(UserError, match="train/lss"):
        export_metrics("night", {"train/lss": 1.0})


def test_without_ray_nothing_is_exported_and_nothing_fails():
    program = """
import threading
from mama_ray.orchestration.captioning.progress import CaptionProgress
from mama_ray.orchestration.captioning.pool import PoolHistory
from mama_ray.orchestration.cluster.exported_metrics import export_metrics
export_metrics("night", {"train/loss": 1.0}, {"run/checkpoints": 1})
assert not [thread for thread in threading.enumerate() if thread.name == "refresh-gauges"]
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr[-2000:]


@ray.remote(num_cpus=0.5)
class Exporter:
    """A worker that lives until its numbers were collected."""

    def export(self, run: str, gauges: dict, counts: dict) -> None:
        export_metrics(run, gauges, counts)
