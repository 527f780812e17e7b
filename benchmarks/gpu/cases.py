"""The cases in their order: first what must hold, then the figures. A case is one kind and one preset."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.gpu.rows import Row
from benchmarks.gpu.setting import Setting

# Run for: the first preset, every preset, or once whatever the presets are.
CHECKS = {"hypergradient": "first", "ddp": "first", "checkpoint": "first", "autocast": "every", "tests": "once"}
FIGURES = {
    "chip": "once", "plain_step": "every", "clip_tower": "every", "peer_step": "first", "meta_step": "first",
    "fused_attention": "first", "compile": "first", "decode": "once",
}  # fmt: skip
KINDS = [*CHECKS, *FIGURES]


class Case(NamedTuple):
    """What is run at one go."""

    kind: str
    preset: str

    @property
    def name(self) -> str:
        """Kind and preset."""
        return f"{self.kind} {self.preset}".strip()

    @property
    def is_check(self) -> bool:
        """Whether the machine fails where it does not pass."""
        return self.kind in CHECKS

    def run(self, setting: Setting) -> Iterator[Row]:
        """Yield the rows as they are found."""
        # Here: it imports torch, which the process that watches this one does not need.
        from benchmarks.gpu.measures import MEASURES

        return MEASURES[self.kind](setting, self.preset)


def choose_cases(presets: Sequence[str], kinds: Sequence[str], skipped: Sequence[str] = ()) -> list[Case]:
    """Return the cases of the kinds asked for, in order."""
    chosen = []
    for kind, span in (CHECKS | FIGURES).items():
        if kind in kinds and kind not in skipped:
            names = {"first": presets[:1], "every": presets, "once": [""]}[span]
            chosen += [Case(kind, name) for name in names]
    return chosen
