"""What each kind of case runs."""

from collections.abc import Callable, Iterator

from benchmarks.gpu.checkpoints import checkpoint
from benchmarks.gpu.chip import ceilings
from benchmarks.gpu.correctness import autocast, ddp, hypergradient
from benchmarks.gpu.decode import decode
from benchmarks.gpu.gpu_tests import gpu_tests
from benchmarks.gpu.meta import compiled, fused_attention, meta_step
from benchmarks.gpu.peer import peer_step
from benchmarks.gpu.plain import clip_tower, plain_step
from benchmarks.gpu.rows import Row
from benchmarks.gpu.setting import Setting

MEASURES: dict[str, Callable[[Setting, str], Iterator[Row]]] = {
    "hypergradient": hypergradient,
    "ddp": ddp,
    "checkpoint": checkpoint,
    "autocast": autocast,
    "tests": gpu_tests,
    "chip": ceilings,
    "plain_step": plain_step,
    "clip_tower": clip_tower,
    "peer_step": peer_step,
    "meta_step": meta_step,
    "fused_attention": fused_attention,
    "compile": compiled,
    "decode": decode,
}
