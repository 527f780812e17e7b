"""Whether the GPUs that a pool reserves for an engine are those that it will use."""

import logging

import ray

from mama_ray.captioning.engines.captioner import GPT2, VLLM
from mama_ray.captioning.engines.generation import EngineConfig
from mama_ray.errors import UserError

logger = logging.getLogger(__name__)

_TELL_GPUS = "--pool.gpus_per_engine {0} --engine.options tensor_parallel_size {0}"


def engine_on_gpus(name: str, engine: EngineConfig, gpus_per_engine: float) -> EngineConfig:
    """Return the settings of an engine, of this name, that has so many GPUs, or a fraction of one.

    Raises UserError where it would leave some of them idle, or want more. Ray hides no GPU from an engine that reserves
    none, so there a warning is given.
    """
    num_used = engine.num_gpus if name == VLLM else 1
    if gpus_per_engine and num_used != max(1.0, gpus_per_engine):
        told = _TELL_GPUS.format(int(max(2, gpus_per_engine, num_used)))
        raise UserError(
            "the GPUs that an engine reserves are not those that it uses",
            got=f"pool.gpus_per_engine {gpus_per_engine:g}, and {name} on {num_used}",
            wanted="tensor_parallel_size times pipeline_parallel_size GPUs" if name == VLLM else "one GPU",
            remedy=f"say {told}, or give each engine one GPU" if name == VLLM else None,
        )
    num_there = ray.cluster_resources().get("GPU", 0)
    if num_there and not gpus_per_engine and name in (VLLM, GPT2):  # a T5 runs on CPUs then
        logger.warning(
            "engines reserve none of the %g GPUs: all of a machine's would use its first, beside whatever else does; "
            "with --pool.gpus_per_engine 1 each has one of its own",
            num_there,
        )
    if not 0 < gpus_per_engine < 1:
        return engine
    # Of the whole GPU's memory, of which the engines beside this one want their shares.
    return engine.model_copy(update={"gpu_memory_utilization": engine.gpu_memory_utilization * gpus_per_engine})
