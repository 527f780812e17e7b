"""The cases in their order: first what must hold, then the figures. A case is one function and one preset."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from benchmarks.gpu.checkpoints import checkpoint
from benchmarks.gpu.chip import ceilings
from benchmarks.gpu.correctness import autocast, ddp, hypergradient
from benchmarks.gpu.decode import decode
from benchmarks.gpu.gpu_tests import gpu_tests
from benchmarks.gpu.meta import compiled, fused_attention, meta_step
from benchmarks.gpu.plain import clip_tower, plain_step
from benchmarks.gpu.rows import Row
from benchmarks.gpu.setting import Setting

Measure = Callable[[Setting, str], Iterator[Row]]

# Run for: the first preset, every preset, or once whatever the presets are.
CHECKS: dict[str, tuple[Measure, str]] = {
    "hypergradient": (hypergradient, "first"),
    "ddp": (ddp, "first"),
    "checkpoint": (checkpoint, "first"),
    "autocast": (autocast, "every"),
    "tests": (gpu_tests, "once"),
}
FIGURES: dict[str, tuple[Measure, str]] = {
    "chip": (ceilings, "once"),
    "plain_step": (plain_step, "every"),
    "clip_tower": (clip_tower, "every"),
    "meta_step": (meta_step, "first"),
    "fused_attention": (fused_attention, "first"),
    "compile": (compiled, "first"),
    "decode": (decode, "once"),
}
KINDS = [*CHECKS, *FIGURES]


class Case(NamedTuple):
    """What is run at one go."""

    kind: str
    preset: str

    @property
    def name(self) -> str:
        return f"{self.kind} {self.preset}".strip()

    @property
    def is_check(self) -> bool:
        """Whether the machine fails where it does not pass."""
        return self.kind in CHECKS

    def run(self, setting: Setting) -> Iterator[Row]:
        """Yield the rows as they are found."""
        measure, _ = (CHECKS | FIGURES)[self.kind]
        return measure(setting, self.preset)


def choose_cases(presets: Sequence[str], kinds: Sequence[str], skipped: Sequence[str] = ()) -> list[Case]:
    """Return the cases of the kinds asked for, in order."""
    chosen = []
    for kind, (_, span) in (CHECKS | FIGURES).items():
        if kind in kinds and kind not in skipped:
            names = {"first": presets[:1], "every": presets, "once": [""]}[span]
            chosen += [Case(kind, name) for name in names]
    return chosen
