"""A discrete-event simulation of a captioning job: decode tasks, a bounded queue, the driver, engines, commits, losses.

Time is counted in seconds from the moment at which the pipeline starts. What moves are units of whole chunks, one chunk
each in small jobs; in large ones so many chunks share a unit that there are some ten thousands of them.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from mama_ray.experiments.scaling.scenario import CHUNK_CLIPS, CaptionRun, CaptionScenario

_READ_THREADS = 8  # mama_ray/data/assemble.py


class Server:
    """Serves one request after another, in the order of asking."""

    def __init__(self) -> None:
        self.free_at = self.busy_s = 0.0

    def take(self, now: float, work_s: float) -> float:
        """Queue work; returns when it is done."""
        self.free_at = max(now, self.free_at) + work_s
        self.busy_s += work_s
        return self.free_at


@dataclass
class _Engine:
    node: int
    life: int = 0
    is_up: bool = False
    free_at: float = 0.0
    busy_s: float = 0.0
    inside: dict[int, tuple[int, float]] = field(default_factory=dict)  # unit: clips and the start of their service


@dataclass
class _Slot:
    """Of a decode task: the units that its block still has, and how many clips of it are decoded."""

    node: int
    life: int = 0
    units: deque = field(default_factory=deque)
    num_decoded: int = 0


def simulate(scenario: CaptionScenario) -> CaptionRun:
    """Run the job to its last commit."""
    return _Simulation(scenario).run()


class _Simulation:
    def __init__(self, scenario: CaptionScenario) -> None:
        s = self.s = scenario
        self.events: list = []
        self.order, self.unit_ids = itertools.count(), itertools.count()
        self.now, self.last_commit = 0.0, 0.0
        self.random = random.Random(s.seed)
        self.num_nodes = -(-s.num_engines // s.engines_per_node)
        self.gets, self.bytes, self.puts = Server(), Server(), Server()
        self.driver, self.ledger = Server(), Server()
        self.engines = [_Engine(number // s.engines_per_node) for number in range(s.num_engines)]
        self.slots = [_Slot(number % self.num_nodes) for number in range(s.decode_tasks)]
        num_chunks = -(-s.num_clips // CHUNK_CLIPS)
        self.unit_chunks = -(-num_chunks // s.max_units)
        self.blocks = self._blocks(num_chunks)
        self.queue_room = max(1, s.queue_chunks // self.unit_chunks)
        self.places = max(2, -(-2 * s.concurrent_batches // self.unit_chunks))
        self.ready: deque[tuple[int, bool]] = deque()  # clips, and whether the unit has a place of the queue
        self.blocked: deque[tuple[_Slot, int, int]] = deque()
        self.free: deque[tuple[_Engine, int]] = deque()
        self.commits: list[tuple[float, int]] = []
        self.num_committed = self.clips_redone = self.num_losses = 0
        self.decode_busy_s = self.decode_s_redone = 0.0

    def run(self) -> CaptionRun:
        s = self.s
        for number, engine in enumerate(self.engines):
            self.at(s.engine_start_s + number * s.growth_s, self.engine_up, engine, engine.life)
        for slot in self.slots:
            self.decode_next(slot, slot.life)
        self.plan_loss()
        while self.num_committed < s.num_clips:
            self.now, _, action, arguments = heapq.heappop(self.events)
            action(*arguments)
        wall_s = max(self.last_commit, 1e-9)
        busy = {
            "engines": sum(engine.busy_s for engine in self.engines) / len(self.engines),
            "decode CPUs": self.decode_busy_s / len(self.slots),
            "storage requests": max(self.gets.busy_s, self.puts.busy_s),
            "storage bandwidth": self.bytes.busy_s,
            "driver": self.driver.busy_s,
            "ledger": self.ledger.busy_s,
        }
        shares = {name: seconds / wall_s for name, seconds in busy.items()}
        return CaptionRun(
            wall_s, self.num_committed, self.clips_redone, self.decode_s_redone, self.num_losses, shares, self.commits
        )

    def at(self, time_s: float, action: Callable, *arguments: object) -> None:
        heapq.heappush(self.events, (time_s, next(self.order), action, arguments))

    def _blocks(self, num_chunks: int) -> deque[deque[int]]:
        """Cut the clips into blocks of units, as Ray Data cuts a range: blocks differ by one chunk at most."""
        num_blocks = min(num_chunks, self.s.max_blocks)
        blocks: deque[deque[int]] = deque()
        left = self.s.num_clips
        for number in range(num_blocks):
            chunks = num_chunks * (number + 1) // num_blocks - num_chunks * number // num_blocks
            units: deque[int] = deque()
            while chunks:
                own = min(chunks, self.unit_chunks)
                units.append(min(own * CHUNK_CLIPS, left))
                left, chunks = left - units[-1], chunks - own
            blocks.append(units)
        return blocks

    # Decode tasks

    def decode_next(self, slot: _Slot, life: int) -> None:
        if life != slot.life:
            return
        if not slot.units:
            if not self.blocks:
                return
            slot.units, slot.num_decoded = self.blocks.popleft(), 0
        s, clips = self.s, slot.units[0]
        per_clip_s = s.gets_per_clip * s.read_latency_s + s.clip_bytes / s.connection_bytes_per_s
        read_at = max(
            self.now + clips * per_clip_s / _READ_THREADS,
            self.gets.take(self.now, clips * s.gets_per_clip / s.gets_per_s),
            self.bytes.take(self.now, clips * s.clip_bytes / s.read_bytes_per_s),
        )
        self.decode_busy_s += clips * (s.decode_s + per_clip_s / _READ_THREADS)
        self.at(read_at + clips * s.decode_s, self.decoded, slot, life)

    def decoded(self, slot: _Slot, life: int) -> None:
        if life != slot.life:
            return
        clips = slot.units.popleft()
        slot.num_decoded += clips
        if self.queue_room:
            self.queue_room -= 1
            self.send(clips)
            self.decode_next(slot, life)
        else:
            self.blocked.append((slot, life, clips))

    def send(self, clips: int, *, has_place: bool = True) -> None:
        """Let the driver hand a unit on; its place in the queue is free again when an engine has taken it."""
        chunks = -(-clips // CHUNK_CLIPS)
        self.at(self.driver.take(self.now, chunks * self.s.driver_s_per_chunk), self.arrived, clips, has_place)

    def arrived(self, clips: int, has_place: bool) -> None:
        self.ready.append((clips, has_place))
        self.feed()

    # Engines

    def engine_up(self, engine: _Engine, life: int) -> None:
        if life == engine.life:
            engine.is_up, engine.free_at = True, self.now
            self.free.extend([(engine, life)] * self.places)
            self.feed()

    def feed(self) -> None:
        while self.ready and self.free:
            engine, life = self.free.popleft()
            if life != engine.life:
                continue
            (clips, has_place), unit = self.ready.popleft(), next(self.unit_ids)
            chunks = -(-clips // CHUNK_CLIPS)
            known_at = self.ledger.take(self.now, chunks * self.s.ledger_s_per_chunk)
            begin = max(known_at, engine.free_at)
            service_s = clips / self.s.engine_clips_per_s
            engine.free_at = begin + service_s
            engine.busy_s += service_s
            engine.inside[unit] = (clips, begin)
            self.at(engine.free_at, self.captioned, engine, life, unit)
            if has_place:
                self.unblock()

    def unblock(self) -> None:
        if not self.blocked:
            self.queue_room += 1
            return
        slot, life, clips = self.blocked.popleft()
        self.send(clips)  # also where the node is gone: the task that runs again skips what it gave out
        self.decode_next(slot, life)

    def captioned(self, engine: _Engine, life: int, unit: int) -> None:
        if life != engine.life:
            return
        clips, _ = engine.inside[unit]
        chunks = -(-clips // CHUNK_CLIPS)
        done_at = self.puts.take(self.now, chunks * self.s.puts_per_chunk / self.s.puts_per_s)
        self.at(max(done_at, self.now + self.s.commit_s), self.committed, engine, life, unit)

    def committed(self, engine: _Engine, life: int, unit: int) -> None:
        if life != engine.life:
            return
        clips, _ = engine.inside.pop(unit)
        self.count(clips)
        self.free.append((engine, life))
        self.feed()

    def count(self, clips: int) -> None:
        self.num_committed += clips
        self.last_commit = self.now
        self.commits.append((self.now, clips))

    # Losses

    def plan_loss(self) -> None:
        rate = self.s.losses_per_node_hour * self.num_nodes / 3600
        if rate:
            self.at(self.now + self.random.expovariate(rate), self.lose_node)

    def lose_node(self) -> None:
        self.plan_loss()
        node = self.random.randrange(self.num_nodes)
        engines = [engine for engine in self.engines if engine.node == node]
        if not any(engine.is_up for engine in engines):
            return
        self.num_losses += 1
        for engine in engines:
            engine.life += 1
            engine.is_up = False
            inside, engine.inside = engine.inside, {}
            for clips, begin in inside.values():
                self.resend(engine, clips, begin)
            back_at = self.now + self.s.replacement_s + self.s.engine_start_s
            self.at(back_at, self.engine_up, engine, engine.life)
        for slot in self.slots:
            if slot.node == node:
                self.restart_block(slot)

    def resend(self, engine: _Engine, clips: int, begin: float) -> None:
        """Keep what was committed of a unit, caption the rest again: what was in the engine is lost."""
        rate = self.s.engine_clips_per_s
        progress = min(clips, max(0, int((self.now - begin) * rate)))
        lost = min(progress, self.s.concurrent_batches * CHUNK_CLIPS)
        kept = (progress - lost) // CHUNK_CLIPS * CHUNK_CLIPS
        self.clips_redone += progress - kept
        engine.busy_s -= (clips - progress) / rate
        if kept:
            self.count(kept)
        self.send(clips - kept, has_place=False)

    def restart_block(self, slot: _Slot) -> None:
        """A decode task runs again from the start of its block: what it had given out is decoded once more."""
        again_s = slot.num_decoded * self.s.decode_s
        self.decode_s_redone += again_s
        self.decode_busy_s += again_s
        slot.life += 1
        self.at(self.now + self.s.replacement_s + again_s, self.decode_next, slot, slot.life)
