"""What recording every sample of every step costs: CPU time of the recorder over that of the steps, in one run.

    python benchmarks/recording.py [--batch 128] [--num_steps 60] [--checkpoint_every 20]

The smallest model, uniform weights and so the shortest steps; the cosine, which every step takes, counts as cost. The
last line is JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mama_ray.data.batch import ClipBatch
from mama_ray.data.plan import EpochPlan, PlanConfig
from mama_ray.models.pretrained import from_preset
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.orchestration.runs.worker import Worker
from mama_ray.orchestration.training.sample_record import SampleRecorder
from mama_ray.orchestration.training.settings import RecordConfig
from mama_ray.storage.places import Place
from mama_ray.training.loop import StepRecord, train
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import build_state
from mama_ray.weighting import step as weighted_step
from mama_ray.weighting.settings import MetaConfig, WeightingConfig

NUM_CLIPS = 10_000
PRESET = "tiny"


class CostClock:
    """CPU seconds spent inside some calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def of(self, call: Callable, *given: Any) -> Any:
        """Call, and count its time."""
        started = time.process_time()
        found = call(*given)
        self.seconds += time.process_time() - started
        return found


def measure(batch_size: int, num_steps: int, checkpoint_every: int, folder: str) -> dict[str, float]:
    """Train and record; returns CPU milliseconds of a step and of what recording takes of it."""
    torch.manual_seed(0)
    model = from_preset(PRESET, {})
    sizes = {"num_steps": num_steps, "global_batch_size": batch_size}
    weighting, meta = WeightingConfig(kind="uniform"), MetaConfig()
    state = build_state(
        model, objective=ContrastiveConfig(), weighting=weighting, meta=meta, optim=OptimConfig(), **sizes
    )
    plan = EpochPlan([NUM_CLIPS], PlanConfig())
    worker = Worker(0, 1, torch.device("cpu"), Place.of(folder))
    clips = pa.table({"clip_id": [f"a-clip-with-a-name-{row:09d}" for row in range(NUM_CLIPS)]})
    place = {"first_step": 0, "global_batch_size": batch_size}
    recorder = SampleRecorder(RecordConfig(every=1), worker, plan, lambda rows: rows, clips, **place)
    clock, cosines = CostClock(), weighted_step.cosines_of
    weighted_step.cosines_of = lambda outputs: clock.of(cosines, outputs)

    def report(record: StepRecord) -> None:
        clock.of(recorder.add, record)
        if state.step % checkpoint_every == 0:
            clock.of(recorder.write, state.step)

    config, rng = model.config, np.random.default_rng(0)
    shape = (batch_size, config.num_frames, config.image_size, config.image_size, 3)
    frames = torch.from_numpy(rng.integers(0, 256, shape, np.uint8))
    tokens = torch.from_numpy(rng.integers(1, config.vocab_size, (batch_size, config.context_length)))
    batches = (
        ClipBatch(
            frames, tokens, torch.from_numpy(plan.global_batch(step, batch_size)[0]), torch.ones(batch_size).bool()
        )
        for step in range(num_steps)
    )
    started = time.process_time()
    train(state, batches, iter(()), report=report)
    whole = time.process_time() - started
    weighted_step.cosines_of = cosines
    step_ms, cost_ms = (1000 * seconds / num_steps for seconds in (whole - clock.seconds, clock.seconds))
    return {"step_ms": round(step_ms, 2), "recording_ms": round(cost_ms, 3), "share": round(cost_ms / step_ms, 5)}


def main() -> None:
    """Print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--num_steps", type=int, default=60)
    parser.add_argument("--checkpoint_every", type=int, default=20)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(asked.batch, asked.num_steps, asked.checkpoint_every, folder)
    print(json.dumps({"preset": PRESET, "batch": asked.batch, **found}))


if __name__ == "__main__":
    main()
