"""The engine that is vLLM, in this very process: fed from any number of threads, one picture per request.

The one design fact: a single thread owns vLLM and steps it; callers hand in pictures and get futures, so the requests
of several batches run together and no batch waits for the slowest caption of another. vLLM's answers are matched to
requests by id.
"""

import atexit
import contextlib
import logging
import math
import os
import queue
import threading
import time
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.engines.protocol import GRID, EngineDied, GeneratedText, RequestRefused, Shown
from mama_ray.captioning.engines.vllm_llava import register_llava

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Request:
    number: int
    shown: Shown
    seed: int
    future: Future[list[GeneratedText]]


class VllmEngine:
    """A `CaptionEngine` (protocol.py) of a vision-language model that is shown grids.

    Args:
        model: local folder in Hugging Face's layout.
        prompt: rendered, with the model's image token in it (prompts.render_prompt).

    Raises whatever vLLM raises when it cannot load the model.
    """

    def __init__(self, model: Path, prompt: str, sampling: SamplingConfig, config: EngineConfig) -> None:
        self._prompt, self._sampling = prompt, sampling
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._waiting: dict[str, _Request] = {}
        self._failure: BaseException | None = None
        self._num_requests = 0
        self._count_lock = threading.Lock()
        self.busy_s = self.idle_s = 0.0
        self.num_tokens = 0
        self.last_step_s = time.monotonic()
        started: Future = Future()
        self._thread = threading.Thread(
            target=self._run, args=(model, config, started), name="caption-engine", daemon=True
        )
        self._thread.start()
        started.result()

    def submit(self, shown: Shown, seed: int) -> Future[list[GeneratedText]]:
        """Queue a grid; the future gives its texts, or raises RequestRefused or EngineDied."""
        with self._count_lock:
            self._num_requests += 1
            request = _Request(self._num_requests, shown, seed, Future())
        if shown.kind != GRID:
            request.future.set_exception(RequestRefused(f"vLLM is shown a {GRID}, not {shown.kind}"))
            return request.future
        self._requests.put(request)
        if self._failure is not None:  # the thread may have emptied the queue just before
            _fail(request.future, self._failure)
        return request.future

    def close(self) -> None:
        """End the engine's thread once all requests are answered."""
        self._requests.put(None)
        self._thread.join()

    def _run(self, model: Path, config: EngineConfig, started: Future) -> None:
        """The engine's thread: it builds the engine, too, because devices and thread counts belong to threads."""
        try:
            self._engine = _build_engine(model, config)
            self._params, self._refusals = _sampling_params(self._sampling), _refusals()
            self._warm_up()
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(None)
        try:
            while self._take_requests():
                if self._engine.has_unfinished_requests():
                    self._step()
            self._failure = RuntimeError("it was closed")
        except BaseException as error:
            logger.exception("the captioning engine failed")
            self._failure = error
        for request in [*self._waiting.values(), *self._drain()]:
            _fail(request.future, self._failure)

    def _warm_up(self) -> None:
        """Write two tokens about nothing: the first call of every kernel takes seconds, which belong to the start."""
        params = self._params.clone()
        params.n, params.min_tokens, params.max_tokens = 1, 0, 2
        blank = _to_pil(np.zeros((64, 64, 3), np.uint8))
        # A processor of tiles may make more tokens of this picture than of those to come.
        with contextlib.suppress(*self._refusals):
            self._engine.add_request("warm-up", {"prompt": self._prompt, "multi_modal_data": {"image": blank}}, params)
        while self._engine.has_unfinished_requests():
            self._engine.step()

    def _take_requests(self) -> bool:
        """Move queued requests into the engine, waiting for one if it has none; False when it is to end."""
        if not self._engine.has_unfinished_requests():
            began = time.perf_counter()
            first = self._requests.get()
            self.idle_s += time.perf_counter() - began
            if first is None:
                return False
            self.last_step_s = time.monotonic()
            self._add(first)
        while not self._requests.empty():
            request = self._requests.get()
            if request is None:
                self._requests.put(None)  # seen again when the work is done
                return True
            self._add(request)
        return True

    def _add(self, request: _Request) -> None:
        began = time.perf_counter()
        identity = str(request.number)
        params = self._params.clone()
        params.seed = request.seed
        picture = {"prompt": self._prompt, "multi_modal_data": {"image": _to_pil(request.shown.content)}}
        # A picture comes once: naming it saves vLLM from hashing its pixels.
        picture["multi_modal_uuids"] = {"image": [identity]}
        try:
            self._engine.add_request(identity, picture, params)
        except self._refusals as error:
            request.future.set_exception(RequestRefused(" ".join(str(error).split())))
        else:
            self._waiting[identity] = request
        self.busy_s += time.perf_counter() - began

    def _step(self) -> None:
        began = time.perf_counter()
        outputs = self._engine.step()
        self.busy_s += time.perf_counter() - began
        self.last_step_s = time.monotonic()
        for output in outputs:
            if output.finished:
                request = self._waiting.pop(output.request_id)
                texts = [_generated(completion) for completion in output.outputs]
                self.num_tokens += sum(text.num_tokens for text in texts)
                request.future.set_result(texts)

    def _drain(self) -> list[_Request]:
        requests = []
        while not self._requests.empty():
            request = self._requests.get()
            if request is not None:
                requests.append(request)
        return requests


def _fail(future: Future, cause: BaseException) -> None:
    error = EngineDied(f"{type(cause).__name__}: {cause}")
    error.__cause__ = cause
    with contextlib.suppress(InvalidStateError):  # a caller and the engine's thread may tell it at the same time
        future.set_exception(error)


def _build_engine(model: Path, config: EngineConfig) -> Any:
    # In this process: an engine's death is then this process's, which whoever started it can see and repair.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_BATCH_INVARIANT"] = str(int(config.batch_invariant))
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
    # "auto" pins every engine of a machine to the same cores (vllm#27953).
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    atexit.register(_mute_stderr)
    register_llava(_model_registry)
    from vllm import LLM
    from vllm.platforms import current_platform

    logging.getLogger("vllm").setLevel(logging.ERROR)
    on_cpu = current_platform.is_cpu()
    options: dict[str, Any] = {
        "dtype": "float32" if on_cpu and config.dtype == "auto" else config.dtype,
        "max_num_seqs": config.max_num_seqs,
        "max_model_len": config.max_model_len,
        "gpu_memory_utilization": config.gpu_memory_utilization,
        "limit_mm_per_prompt": {"image": 1},
        "mm_processor_cache_gb": 0,  # it would hold 4 GiB of pictures, none of which comes again
        "use_tqdm_on_load": False,
        "seed": 0,
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
    options.update(config.options)
    return LLM(model=str(model), **options).llm_engine


def _model_registry() -> Any:
    from vllm import ModelRegistry

    return ModelRegistry


def _mute_stderr() -> None:
    """Keep still at the exit, when a compiler that vLLM imports tells of hundreds of leaked types, which do no harm."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _sampling_params(sampling: SamplingConfig) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=sampling.num_captions,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        min_tokens=sampling.min_tokens,
        max_tokens=sampling.max_tokens,
        logprobs=0,  # that of the written token alone
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _refusals() -> tuple[type[Exception], ...]:
    """Return what vLLM raises for a request that it does not take."""
    from vllm.exceptions import VLLMClientError

    return VLLMClientError, ValueError, TypeError


def _to_pil(pixels: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


def _generated(completion: Any) -> GeneratedText:
    num_tokens = len(completion.token_ids)
    logprob = completion.cumulative_logprob if num_tokens else None
    mean = math.nan if logprob is None else logprob / num_tokens
    return GeneratedText(completion.text, num_tokens, str(completion.finish_reason), mean)
