"""The engine that is vLLM, in this very process: fed from any number of threads, one picture or video per request.

The one design fact: a single thread owns vLLM and steps it; callers hand in requests and get futures, so the requests
of several batches run together and no batch waits for the slowest caption of another. vLLM's answers are matched to
requests by id.
"""

import contextlib
import logging
import math
import queue
import threading
import time
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.engines.protocol import EngineDied, GeneratedText, RequestRefused, Shown
from mama_ray.captioning.engines.vllm_prompt import LargestPicture, LargestVideo, blank_shown, refusal_of, vllm_prompt
from mama_ray.captioning.engines.vllm_setup import refusals, sampling_params, start_vllm

logger = logging.getLogger(__name__)

_ANY_PICTURE = LargestPicture()


@dataclass(frozen=True)
class _Request:
    number: int
    shown: Shown
    seed: int
    future: Future[list[GeneratedText]]


class VllmEngine:
    """A `CaptionEngine` (protocol.py) of a vision-language model that is shown grids, or videos.

    Args:
        model: local folder in Hugging Face's layout.
        prompt: rendered, with the model's image or video token in it (prompts.render_prompt).
        largest: what it is shown: pictures or videos, and of what size.

    Raises whatever vLLM raises when it cannot load the model.
    """

    def __init__(
        self, model: Path, prompt: str, sampling: SamplingConfig, config: EngineConfig,
        largest: LargestPicture | LargestVideo = _ANY_PICTURE,
    ) -> None:  # fmt: skip
        self._prompt, self._sampling, self._largest = prompt, sampling, largest
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
        """Queue a request; the future gives its texts, or raises RequestRefused or EngineDied."""
        with self._count_lock:
            self._num_requests += 1
            request = _Request(self._num_requests, shown, seed, Future())
        if refusal := refusal_of(shown, self._largest):
            request.future.set_exception(RequestRefused(refusal))
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
            self._engine = start_vllm(model, config, self._largest)
            self._model_type = self._engine.model_config.hf_config.model_type
            self._params, self._refusals = sampling_params(self._sampling), refusals()
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
        blank = vllm_prompt(self._prompt, blank_shown(self._largest), self._model_type)
        # A processor of tiles may make more tokens of this picture than of those to come.
        with contextlib.suppress(*self._refusals):
            self._engine.add_request("warm-up", blank, params)
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
        prompt = vllm_prompt(self._prompt, request.shown, self._model_type, identity)
        try:
            self._engine.add_request(identity, prompt, params)
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


def _generated(completion: Any) -> GeneratedText:
    num_tokens = len(completion.token_ids)
    logprob = completion.cumulative_logprob if num_tokens else None
    mean = math.nan if logprob is None else logprob / num_tokens
    return GeneratedText(completion.text, num_tokens, str(completion.finish_reason), mean)
