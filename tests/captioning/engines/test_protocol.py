"""What every caption engine is shown and asked, and which engines there are."""

import dataclasses
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from mama_ray.captioning.engines.build import ENGINES, build_engine
from mama_ray.captioning.engines.captioner import Captioner
from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.engines.protocol import FRAMES, GRID, VIDEO, CaptionEngine, GeneratedText, Shown, caption_all
from mama_ray.captioning.pictures.grid import hash_pixels
from mama_ray.errors import UserError


class LateEngine:
    """Answers nothing before the last request is in, and then from the last one to the first."""

    def __init__(self, num_requests: int) -> None:
        self.busy_s = self.idle_s = 0.0
        self.last_step_s = time.monotonic()
        self.num_tokens = 0
        self._num_requests, self._waiting = num_requests, []

    def submit(self, shown: Shown, seed: int) -> Future[list[GeneratedText]]:
        self._waiting.append((shown, seed, Future()))
        if len(self._waiting) == self._num_requests:
            for one, its_seed, future in reversed(self._waiting):
                future.set_result([GeneratedText(f"{one.content.max()} {its_seed}", 2, "stop", -1.0)])
        return self._waiting[-1][2]

    def close(self) -> None:
        self._waiting.clear()


def grid_of(level: int) -> Shown:
    pixels = np.full((4, 4, 3), level, np.uint8)
    return Shown(GRID, pixels, hash_pixels(pixels))


def test_answers_come_in_the_order_of_the_questions_whatever_came_first():
    engine: CaptionEngine = LateEngine(3)
    found = caption_all(engine, [grid_of(level) for level in (7, 5, 6)], [1, 2, 3])
    assert [text.text for (text,) in found] == ["7 1", "5 2", "6 3"]


@pytest.mark.parametrize(
    "change", [lambda pixels: pixels + np.uint8(1), lambda pixels: pixels.reshape(2, 8, 3), lambda pixels: pixels[:3]]
)
def test_what_is_shown_knows_whether_it_was_changed(change):
    shown = grid_of(7)
    assert shown.is_intact()
    assert not dataclasses.replace(shown, content=change(shown.content)).is_intact()


@pytest.mark.parametrize("kind", [FRAMES, VIDEO])
def test_frames_know_whether_one_of_them_was_changed_or_left_its_place(kind):
    frames = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
    shown = Shown(kind, frames, hash_pixels(frames))
    assert shown.is_intact()
    other = frames.copy()
    other[3, 5, 7, 2] ^= 1
    for content in (frames[::-1], frames[:3], frames.reshape(8, 3, 8, 3), other):
        assert not dataclasses.replace(shown, content=content).is_intact()


def test_an_engine_is_built_by_its_name_and_an_unknown_one_lists_the_known(monkeypatch):
    captioner = Captioner("Late", 64, "what is it?", 80, None, "w", "late")
    with pytest.raises(UserError, match="unknown engine of a captioner: got late, wanted one of vllm, gpt2"):
        build_engine(captioner, Path("folder"), SamplingConfig(), EngineConfig())
    asked = []
    monkeypatch.setitem(ENGINES, "late", lambda *given: asked.append(given) or LateEngine(1))
    assert isinstance(build_engine(captioner, Path("folder"), SamplingConfig(seed=3), EngineConfig()), LateEngine)
    assert asked == [(Path("folder"), "what is it?", SamplingConfig(seed=3), EngineConfig())]
