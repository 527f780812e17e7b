"""A plugin of vLLM that notes every request an engine answered, and when: one line of time, process and request.

Both sides write it at the same place, where vLLM hands answers out, so what either of them wrote twice is counted
alike. It also registers LLaVA as our engine does, without which vLLM 0.29 loads none beside these packages: the engine
of Ray's processor is a process of its own, which only a plugin reaches.
"""

import os
import time
from pathlib import Path

from mama_ray.captioning.engines.vllm_llava import register_llava

ANSWERS = "PEER_CAPTIONING_ANSWERS"  # names the file
_ENTRY_POINTS = "[vllm.general_plugins]\npeer_captioning = peer_captioning_cases.record:install\n"
_METADATA = "Metadata-Version: 2.1\nName: peer-captioning\nVersion: 0\n"
_WARM_UP = "warm-up"  # our engine's first request


def write_plugin(folder: Path) -> None:
    """Make a folder which, on the import path of a process, has its vLLM load this plugin."""
    (folder / "peer_captioning_cases").symlink_to(Path(__file__).parent)
    facts = folder / "peer_captioning-0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(_METADATA)
    (facts / "entry_points.txt").write_text(_ENTRY_POINTS)


def install() -> None:
    """What vLLM calls in each of its processes."""
    from vllm import ModelRegistry
    from vllm.v1.engine.output_processor import OutputProcessor

    register_llava(lambda: ModelRegistry)
    process = OutputProcessor.process_outputs

    def noting(self, engine_core_outputs, *args, **options):
        done = [one.request_id for one in engine_core_outputs if one.finish_reason is not None]
        lines = "".join(f"{time.time()} {os.getpid()} {name}\n" for name in done if not name.startswith(_WARM_UP))
        if lines:
            with Path(os.environ[ANSWERS]).open("a") as file:
                file.write(lines)
        return process(self, engine_core_outputs, *args, **options)

    OutputProcessor.process_outputs = noting


def read_answers(path: Path) -> list[tuple[float, int]]:
    """Return (time of day, process) of all answers so far."""
    if not path.exists():
        return []
    words = [line.split() for line in path.read_text().splitlines()]
    return [(float(when), int(process)) for when, process, _ in words]
