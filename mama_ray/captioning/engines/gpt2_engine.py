"""The engine that is LaViLa's gated GPT-2, in this very process: shown frames, fed from any number of threads.

A single thread owns the decoder, as in vllm_engine.py; the captions of all requests run together, and each is a
function of its clip and its seed alone. A clip's visual tokens are computed for it alone: in a batch their last bits
would depend on the others.
"""

import contextlib
import logging
import math
import queue
import threading
import time
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.engines.protocol import FRAMES, EngineDied, GeneratedText, RequestRefused, Shown
from mama_ray.captioning.gpt2.choice import Drawing
from mama_ray.captioning.gpt2.decoding import Decoder, Written
from mama_ray.errors import UserError
from mama_ray.models.narrator.config import GatedNarratorConfig
from mama_ray.models.narrator.load import load_gated_narrator, load_narrator_tokenizer
from mama_ray.models.narrator.model import GatedNarrator

logger = logging.getLogger(__name__)

_NO_NUMBERS = "the narrator computes no numbers"  # weights are finite, but half precision overflows


@dataclass(frozen=True, eq=False)
class _Request:
    shown: Shown
    seed: int
    future: Future[list[GeneratedText]]
    written: dict[int, Written] = field(default_factory=dict)
    """By sample."""


class Gpt2Engine:
    """A `CaptionEngine` (protocol.py) of a gated narrator that is shown frames; it asks nothing, so has no prompt.

    Args:
        model: folder that `save_gated_narrator` wrote.
        prompt: empty.

    Raises UserError for a folder that is no such model or whose tokenizer is another's, and for settings that this
    engine has no use for.
    """

    def __init__(self, model: Path, prompt: str, sampling: SamplingConfig, config: EngineConfig) -> None:
        if config.options:
            raise UserError("engine.options are vLLM's", got=sorted(config.options), wanted="none with this engine")
        self._sampling = sampling
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._running: dict[int, _Request] = {}
        self._failure: BaseException | None = None
        self._is_closing = False
        self.busy_s = self.idle_s = 0.0
        self.num_tokens = 0
        self.last_step_s = time.monotonic()
        started: Future = Future()
        self._thread = threading.Thread(
            target=self._run, args=(model, config, started), name="caption-engine", daemon=True
        )
        self._thread.start()
        self._shape: tuple[int, int, int] = started.result()

    def submit(self, shown: Shown, seed: int) -> Future[list[GeneratedText]]:
        """Queue frames; the future gives a clip's texts, or raises RequestRefused or EngineDied."""
        request = _Request(shown, seed, Future())
        if refusal := self._refusal(shown):
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

    def _refusal(self, shown: Shown) -> str:
        if shown.kind != FRAMES:
            return f"a gated narrator is shown {FRAMES}, not a {shown.kind}"
        content = shown.content
        if content.dtype != np.uint8 or content.shape[1:] != self._shape or not len(content):
            return f"frames of {content.dtype} {content.shape}, wanted uint8 (frames, {self._shape[0]}, ..., 3)"
        return ""

    def _run(self, model: Path, config: EngineConfig, started: Future) -> None:
        """The engine's thread: it builds the model, too, because devices and thread counts belong to threads."""
        try:
            self._model, self._tokenizer = _load(model, config)
            self._decoder = build_decoder(self._model, self._sampling, config)
            self._warm_up()
        except BaseException as error:
            started.set_exception(error)
            return
        size = self._model.config.image_size
        started.set_result((size, size, 3))
        try:
            while self._take_requests():
                self._step()
            self._failure = RuntimeError("it was closed")
        except BaseException as error:
            logger.exception("the captioning engine failed")
            self._failure = error
        for request in [*self._running.values(), *self._drain()]:
            _fail(request.future, self._failure)

    def _warm_up(self) -> None:
        """Write two tokens about nothing: the first call of every kernel belongs to the start."""
        decoder = Decoder(self._model, Drawing(), max_tokens=2, num_rows=1)
        size = self._model.config.image_size
        decoder.add(self._encode(np.zeros((self._model.config.num_frames, size, size, 3), np.uint8)), [0])
        while decoder.has_work:
            if any(math.isnan(written.logprob) for written in decoder.step()):
                raise UserError(
                    _NO_NUMBERS,
                    got=str(self._model.img_queries.dtype),
                    remedy="take --engine.dtype bfloat16 or float32",
                )

    def _take_requests(self) -> bool:
        """Move requests into the decoder while it has room, waiting for one if it has none; False when it is to end.

        Those that wait are frames, smaller than what is made of them.
        """
        while not self._is_closing and self._decoder.num_free > 0:
            began = time.perf_counter()
            try:
                request = self._requests.get(block=not self._running)
            except queue.Empty:
                break
            finally:
                self.idle_s += 0.0 if self._running else time.perf_counter() - began
            if request is None:
                self._is_closing = True
            else:
                self.last_step_s = time.monotonic()
                self._add(request)
        return bool(self._running)

    def _add(self, request: _Request) -> None:
        began = time.perf_counter()
        seeds = range(request.seed, request.seed + self._sampling.num_captions)
        self._running[self._decoder.add(self._encode(request.shown.content), seeds)] = request
        self.busy_s += time.perf_counter() - began

    @torch.inference_mode()
    def _encode(self, frames: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(frames))[None]  # a copy: what is shown may lie in memory that is read-only
        return self._model.encode_visual(pixels.to(self._model.img_queries.device))[0]

    def _step(self) -> None:
        began = time.perf_counter()
        for written in self._decoder.step():
            request = self._running[written.clip]
            request.written[written.sample] = written
            if len(request.written) == self._sampling.num_captions:
                del self._running[written.clip]
                self._answer(request)
        self.busy_s += time.perf_counter() - began
        self.last_step_s = time.monotonic()

    def _answer(self, request: _Request) -> None:
        if any(math.isnan(written.logprob) for written in request.written.values()):
            request.future.set_exception(RequestRefused(_NO_NUMBERS))
        else:
            request.future.set_result([self._text(request.written[k]) for k in sorted(request.written)])

    def _text(self, written: Written) -> GeneratedText:
        num_tokens = len(written.token_ids)
        self.num_tokens += num_tokens
        kept = written.token_ids[:-1] if written.has_ended else written.token_ids
        text = self._tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        mean = written.logprob / num_tokens if num_tokens else math.nan
        return GeneratedText(text, num_tokens, "stop" if written.has_ended else "length", mean)

    def _drain(self) -> list[_Request]:
        requests = []
        while not self._requests.empty():
            request = self._requests.get()
            if request is not None:
                requests.append(request)
        return requests


def build_decoder(model: GatedNarrator, sampling: SamplingConfig, config: EngineConfig) -> Decoder:
    """Make the decoder of a model that is loaded; UserError where a caption would not fit it, or no caption the cache
    of keys and values."""
    limit = min(model.config.context_length, config.max_model_len or model.config.context_length) - 1
    if sampling.max_tokens > limit:
        raise UserError(
            "captions are too long for the narrator", got=f"sampling.max_tokens {sampling.max_tokens}",
            wanted=f"at most {limit}", remedy=f"--sampling.max_tokens {limit}",
        )  # fmt: skip
    drawing = Drawing(sampling.temperature, sampling.top_k, sampling.top_p)
    rows = config.max_num_seqs
    if config.kv_cache_mib is not None:
        row_bytes = cache_bytes(model.config, sampling.max_tokens, model.img_queries.element_size())
        rows = min(rows, (config.kv_cache_mib << 20) // row_bytes)
    if rows < 1:
        raise UserError(
            "engine.kv_cache_mib holds no caption", got=config.kv_cache_mib, wanted=f"at least {1 + (row_bytes >> 20)}"
        )
    return Decoder(model, drawing, max_tokens=sampling.max_tokens, min_tokens=sampling.min_tokens, num_rows=rows)


def cache_bytes(config: GatedNarratorConfig, max_tokens: int, bytes_per_number: int) -> int:
    """Return the memory of one caption's keys and values."""
    return 2 * config.language.num_layers * config.language.width * max_tokens * bytes_per_number


def _load(folder: Path, config: EngineConfig):
    tokenizer = load_narrator_tokenizer(folder)
    dtype = torch.float32 if config.dtype == "auto" else getattr(torch, config.dtype)
    model = load_gated_narrator(folder, dtype=dtype)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def _fail(future: Future, cause: BaseException) -> None:
    error = EngineDied(f"{type(cause).__name__}: {cause}")
    error.__cause__ = cause
    with contextlib.suppress(InvalidStateError):  # a caller and the engine's thread may tell it at the same time
        future.set_exception(error)
