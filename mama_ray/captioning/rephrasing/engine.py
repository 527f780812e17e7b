"""What a rephrasing engine owes, and which there are: candidates of captions, the best first."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from mama_ray.captioning.engines.generation import EngineConfig
from mama_ray.captioning.engines.protocol import GeneratedText
from mama_ray.captioning.engines.vllm_text import VllmTextEngine
from mama_ray.captioning.rephrasing.model_folder import T5, VLLM, Rephraser
from mama_ray.captioning.rephrasing.settings import DecodingConfig
from mama_ray.captioning.rephrasing.t5_engine import T5Engine


class RephrasingEngine(Protocol):
    """A model that is ready to rephrase; it may be called from several threads.

    Attributes:
        busy_s: seconds at work.
        idle_s: seconds without.
        last_step_s: when it last did something, by `time.monotonic()`: an engine that hangs is told by it.
        num_tokens: written so far.
    """

    busy_s: float
    idle_s: float
    num_tokens: int

    @property
    def last_step_s(self) -> float: ...

    def rephrase(self, texts: Sequence[str], seeds: Sequence[int]) -> list[list[GeneratedText] | str]:
        """Return the candidates of each text, the best first, or the reason why it cannot be rephrased.

        Sample k of a text is drawn with its seed plus k; what a text becomes does not depend on those beside it.
        """
        ...


def build_rephraser(
    rephraser: Rephraser, folder: Path, decoding: DecodingConfig, config: EngineConfig, *, use_gpu: bool
) -> RephrasingEngine:
    """Load a rephraser from its folder into the engine that runs it; raises whatever that raises when it cannot."""
    engines: dict[str, Callable[..., Any]] = {T5: T5Engine, VLLM: VllmTextEngine}
    return engines[rephraser.engine](folder, rephraser.prompt, decoding, config, use_gpu=use_gpu)
