"""Which engines there are, by name. A new one is a module beside this, a line here, and what `inspect_captioner` says
of the models that it runs.
"""

from collections.abc import Callable
from pathlib import Path

from mama_ray.captioning.engines.captioner import VLLM, Captioner
from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.engines.protocol import VIDEO, CaptionEngine
from mama_ray.captioning.engines.vllm_engine import VllmEngine
from mama_ray.captioning.engines.vllm_prompt import LargestPicture, LargestVideo
from mama_ray.errors import unknown_name


def _build_gpt2(folder: Path, prompt: str, sampling: SamplingConfig, config: EngineConfig) -> CaptionEngine:
    from mama_ray.captioning.engines.gpt2_engine import Gpt2Engine  # torch, which whoever plans a job does without

    return Gpt2Engine(folder, prompt, sampling, config)


# From a model's folder, what it is asked, how captions are drawn and the engine's limits.
ENGINES: dict[str, Callable[[Path, str, SamplingConfig, EngineConfig], CaptionEngine]] = {
    "vllm": VllmEngine,
    "gpt2": _build_gpt2,
}


def build_engine(captioner: Captioner, folder: Path, sampling: SamplingConfig, config: EngineConfig) -> CaptionEngine:
    """Load a captioner from its folder into the engine that runs it; raises whatever that raises when it cannot."""
    if captioner.engine not in ENGINES:
        raise unknown_name("engine of a captioner", captioner.engine, ENGINES)
    if captioner.engine == VLLM:  # which reserves memory for the largest that it may be shown
        is_video = captioner.shows == VIDEO
        largest = LargestVideo(captioner.num_frames, captioner.side) if is_video else LargestPicture(captioner.side)
        return VllmEngine(folder, captioner.prompt, sampling, config, largest)
    return ENGINES[captioner.engine](folder, captioner.prompt, sampling, config)
