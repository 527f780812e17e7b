"""Starting vLLM in this process, in the form that captioning needs."""

import atexit
import logging
import os
from pathlib import Path
from typing import Any

from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.engines.vllm_llava import register_llava, require_plugin
from mama_ray.captioning.engines.vllm_prompt import LargestPicture, LargestVideo
from mama_ray.captioning.engines.vllm_qwen3 import accept_names_of_videos, overrides_of


def start_vllm(model: Path, config: EngineConfig, largest: LargestPicture | LargestVideo) -> Any:
    """Return vLLM's engine of a model that is shown one picture per prompt, or one video, of at most this size."""
    prepare_vllm(config)
    register_llava(_model_registry)
    if config.num_gpus > 1:
        require_plugin(model)
    if isinstance(largest, LargestVideo):
        accept_names_of_videos(model)
    return load_vllm(model, config, shown_options(largest) | overrides_of(model)).llm_engine


def shown_options(largest: LargestPicture | LargestVideo) -> dict[str, Any]:
    """Return what vLLM must be told of what it is shown."""
    # Its cache would hold 4 GiB of pictures, none of which comes again.
    return {"limit_mm_per_prompt": largest.limits(), "mm_processor_cache_gb": 0}


def prepare_vllm(config: EngineConfig) -> None:
    """Say in the environment how vLLM is to run, before it is imported for the first time."""
    # In this process: an engine's death is then this process's, which whoever started it can see and repair.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_BATCH_INVARIANT"] = str(int(config.batch_invariant))
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
    # "auto" pins every engine of a machine to the same cores (vllm#27953).
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    atexit.register(_mute_stderr)


def load_vllm(model: Path, config: EngineConfig, own: dict[str, Any]) -> Any:
    """Return vLLM's LLM of a model, with options of the caller's own; `prepare_vllm` comes first."""
    from vllm import LLM
    from vllm.platforms import current_platform

    logging.getLogger("vllm").setLevel(logging.ERROR)
    return LLM(model=str(model), **engine_options(config, own, on_cpu=current_platform.is_cpu()))


def engine_options(config: EngineConfig, own: dict[str, Any], *, on_cpu: bool) -> dict[str, Any]:
    """Return vLLM's arguments beside the model, with options of the caller's own."""
    options: dict[str, Any] = {
        "dtype": "float32" if on_cpu and config.dtype == "auto" else config.dtype,
        "max_num_seqs": config.max_num_seqs,
        "max_model_len": config.max_model_len,
        "gpu_memory_utilization": config.gpu_memory_utilization,
        "use_tqdm_on_load": False,
        "seed": 0,
        **own,
    }
    if on_cpu:
        options |= {
            "enforce_eager": True,  # compiling a model takes longer on a CPU than it saves
            "kv_cache_memory_bytes": (config.kv_cache_mib or 256) << 20,
            # A seeded request whose prompt is read in two steps kills the engine: vLLM rewinds its generator by an
            # offset, which generators of a CPU do not have.
            "enable_chunked_prefill": False,
            # vLLM's 128 is more than the whole prompt of a small model, and captions of one picture share whole blocks.
            "block_size": 32,
        }
    elif config.kv_cache_mib is not None:
        options["kv_cache_memory_bytes"] = config.kv_cache_mib << 20
    return options | config.options


def _model_registry() -> Any:
    from vllm import ModelRegistry

    return ModelRegistry


def _mute_stderr() -> None:
    """Keep still at the exit, when a compiler that vLLM imports tells of hundreds of leaked types, which do no harm."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def sampling_params(sampling: SamplingConfig) -> Any:
    """Return vLLM's own form of how captions are drawn; each request adds its seed."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=sampling.num_captions,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_tokens=sampling.min_tokens,
        max_tokens=sampling.max_tokens,
        logprobs=0,  # that of the written token alone
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def refusals() -> tuple[type[Exception], ...]:
    """Return what vLLM raises for a request that it does not take."""
    from vllm.exceptions import VLLMClientError

    return VLLMClientError, ValueError, TypeError
