"""A stream of training batches: a Ray Data pipeline over step numbers.

Its rows are step numbers, not clips: a decode task works out which rows its rank holds at that step (a pure function
of seed, epoch and index) and has them read and decoded. So nothing about the corpus passes through the driver or the
trainer, the data cursor is the step, and `preserve_order` keeps the plan's order whatever finishes first.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import ray
from ray.data import DataContext, ExecutionResources, TaskPoolStrategy

from mama_ray.data.batch import pad_batch
from mama_ray.data.plan import BatchPlan, local_batch_size
from mama_ray.orchestration.cluster.labels import matches

# A pipeline holds one block per step; long runs are cut into pipelines of this many steps.
_STEPS_PER_PIPELINE = 1024


class BatchAssembler(Protocol):
    """Makes the arrays of a batch from rows of the index; axis 0 of each is the clip."""

    def assemble(self, rows: np.ndarray, epochs: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays: a pure function of rows and epochs."""


class BatchReader(Protocol):
    """What a stream of batches wants of its reader, which must be small and picklable."""

    def epoch_plan(self) -> BatchPlan:
        """Return the order of the rows."""

    def assembler(self) -> BatchAssembler:
        """Return what makes a batch of rows."""


def stream_arrays(
    reader: BatchReader,
    *,
    first_step: int,
    num_steps: int,
    global_batch_size: int,
    rank: int,
    world_size: int,
    num_decode_cpus: float,
    num_parts: int = 1,
    decode_labels: Mapping[str, str] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield what the reader's assembler makes of this rank's rows of steps first_step .. num_steps - 1, in order.

    Every rank's arrays have `local_batch_size` rows; those that the global batch has no clips for are padding. Without
    num_decode_cpus one task at a time decodes, on whatever CPU has time for it. `decode_labels` are those of its nodes.
    """
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources(cpu=num_decode_cpus or None)
    context.enable_progress_bars = False
    local_size = local_batch_size(global_batch_size, world_size, num_parts=num_parts)

    def read_and_decode(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (step,) = batch["item"]
        slice_of_rank = (int(step), global_batch_size, rank, world_size)
        rows, epochs = reader.epoch_plan().local_batch(*slice_of_rank, num_parts=num_parts)
        return pad_batch(reader.assembler().assemble(rows, epochs), local_size)

    for start in range(first_step, num_steps, _STEPS_PER_PIPELINE):
        stop = min(start + _STEPS_PER_PIPELINE, num_steps)

        # Blocks that are there already: a read operator would run as a task of its own before every decode task.
        steps = ray.data.from_items(list(range(start, stop)), override_num_blocks=stop - start)
        dataset = steps.map_batches(
            read_and_decode,
            batch_size=1,
            num_cpus=1 if num_decode_cpus else 0,
            compute=TaskPoolStrategy(size=None if num_decode_cpus else 1),
            label_selector=dict(decode_labels or {}) or None,
        )
        dataset.set_name("train_clips")
        yield from dataset.iter_batches(batch_size=local_size, batch_format="numpy", prefetch_batches=2)


def decode_cpus(
    cpus_per_worker: float,
    world_size: int,
    *,
    num_runs: int = 1,
    worker_labels: Mapping[str, str] | None = None,
    worker_resources: Mapping[str, float] | None = None,
    decode_labels: Mapping[str, str] | None = None,
    nodes: Sequence[Mapping[str, Any]] | None = None,
) -> float:
    """Return a worker's share of the CPUs that the workers of all runs leave over on the nodes that decode.

    0 where they leave less than one: a task that reserved a CPU would wait for ever, as on what a lost node has left. 1
    where there is no such node: a task that reserves a CPU makes an autoscaler start one.
    Ray Data (2.60) was seen to run half as many tasks at a time as a limit of two CPUs or more allows
    (benchmarks/data_loading.py), so the limit is twice the share.

    Args:
        worker_resources: what a worker reserves beside its CPUs: it is on no node that has less of it in all.
        nodes: as `ray.nodes()` tells of them, which is asked where they are not given.
    """
    num_workers = world_size * num_runs
    nodes = [
        node
        for node in (ray.nodes() if nodes is None else nodes)
        if node["Alive"] and matches(node["Labels"] or {}, decode_labels or {})
    ]
    if not nodes:
        return 1.0
    spare = sum(node["Resources"].get("CPU", 0.0) for node in nodes)
    if any(_may_hold_workers(node, worker_labels or {}, worker_resources or {}) for node in nodes):
        spare -= num_workers * cpus_per_worker
    if spare < 1.0:
        return 0.0
    share = max(1.0, spare // num_workers)
    return share if share == 1.0 else 2 * share


def _may_hold_workers(node: Mapping[str, Any], labels: Mapping[str, str], resources: Mapping[str, float]) -> bool:
    has_all = all(node["Resources"].get(name, 0.0) >= amount for name, amount in resources.items())
    return has_all and matches(node["Labels"] or {}, labels)
