"""What a checkpoint costs the training thread: the copy of the state alone, over writing, hashing and publishing it.

    .venv/bin/python benchmarks/checkpoint.py [--preset base_32] [--storage FOLDER_OR_URI] [--rounds 3]

Prints JSON: sizes, seconds (medians of one run), and the stall as a share of the whole checkpoint.
"""

import argparse
import json
import statistics
import tempfile
import time

import torch

from mama_ray.models.clip_vip.model import ClipVip
from mama_ray.models.pretrained import capture_pretrained, preset, write_pretrained
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.orchestration.runs.output import RunOutput
from mama_ray.storage.places import Place, join_uri
from mama_ray.training.checkpoint import capture_state, write_state
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import TrainState, build_state
from mama_ray.weighting.settings import MetaConfig, WeightingConfig


def state_of(name: str) -> TrainState:
    """Build a run's state whose optimiser has taken a step, as its moments are most of a checkpoint."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    state = build_state(
        ClipVip(preset(name)).to(device),
        objective=ContrastiveConfig(),
        weighting=WeightingConfig(),
        meta=MetaConfig(),
        optim=OptimConfig(),
        num_steps=100,
        global_batch_size=8,
    )
    for parameter in state.model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return state


def measure(state: TrainState, output: RunOutput, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds that a save kept the training thread, and those until its checkpoint was published."""

    def capture():
        model = capture_pretrained(state.evaluated_model, buffers)
        captured = capture_state(state, selection=None, buffers=buffers)

        def write(staged):
            write_pretrained(model, staged)
            write_state(captured, staged)

        return write

    buffers, stalls, wholes = {}, [], []
    for _ in range(rounds + 1):
        state.step += 1
        start = time.perf_counter()
        output.checkpoints.save(state.step, capture, selection=None)
        stalls.append(time.perf_counter() - start)
        output.checkpoints.wait()
        wholes.append(time.perf_counter() - start)
    return stalls[1:], wholes[1:]  # the first one also makes the buffers


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="base_32")
    parser.add_argument("--storage", default=None)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    state = state_of(arguments.preset)
    with tempfile.TemporaryDirectory() as scratch:
        place = Place.of(join_uri(arguments.storage or scratch, "benchmark-checkpoint"))
        place.make_folder()  # as a job does for its run
        settings = {"first_step": 0, "num_steps": 100, "num_checkpoints_to_keep": 1, "show_bar": False}
        output = RunOutput("benchmark", place, **settings)
        stalls, wholes = measure(state, output, arguments.rounds)
        output.close(has_failed=False)
        place.delete_folder()
    num_bytes = sum(value.nbytes for value in state.model.state_dict().values())
    result = {
        "model_mib": round(num_bytes / 2**20, 1),
        "stall_s": round(statistics.median(stalls), 3),
        "checkpoint_s": round(statistics.median(wholes), 3),
        "stall_over_checkpoint": round(statistics.median(s / w for s, w in zip(stalls, wholes, strict=True)), 3),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
