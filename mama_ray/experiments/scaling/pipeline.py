"""A discrete-event simulation of a captioning job's pipeline: decode tasks, queue, driver, engines, commits, losses.

It makes its source, starts engines, and drains. What moves are chunks, each of them a block of the source and the work
of one decode task.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from mama_ray.experiments.scaling.scenario import CaptionScenario


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
class _Chunk:
    """So many clips; `node` is where they were decoded and their pixels lie."""

    clips: int
    node: int = -1
    has_place: bool = False  # of the queue


@dataclass
class _Engine:
    node: int
    life: int = 0
    is_up: bool = False
    free_at: float = 0.0
    inside: dict[int, tuple[_Chunk, float]] = field(default_factory=dict)  # with the start of its service


@dataclass
class _Slot:
    """Of a decode task: the chunk that it works on, and since when."""

    node: int
    life: int = 0
    chunk: _Chunk | None = None
    since: float = 0.0


@dataclass
class Nodes:
    """What outlives a pipeline: from when on each node is there, and when the next one is lost."""

    back_at: list[float]
    random: Random
    next_loss_at: float = float("inf")


class Pipeline:
    """One pipeline over so many clips, from `began` to its last commit."""

    def __init__(self, scenario: CaptionScenario, nodes: Nodes, num_clips: int, began: float) -> None:
        s = self.s = scenario
        self.events: list = []
        self.order, self.chunk_ids = itertools.count(), itertools.count()
        self.nodes, self.num_clips, self.began, self.now = nodes, num_clips, began, began
        self.gets, self.bytes, self.puts = Server(), Server(), Server()
        self.driver, self.ledger = Server(), Server()
        self.engines = [_Engine(number // s.engines_per_node) for number in range(s.num_engines)]
        self.slots = [_Slot(number % len(nodes.back_at)) for number in range(s.decode_tasks)]
        num_whole, rest = divmod(num_clips, s.chunk_clips)
        self.source = deque(map(_Chunk, [s.chunk_clips] * num_whole + [rest] * bool(rest)))
        self.read_s = s.read_s_per_chunk
        self.queue_room = s.queue_chunks
        self.ready: deque[_Chunk] = deque()
        self.blocked: deque[tuple[_Slot, int, _Chunk]] = deque()
        self.free: deque[tuple[_Engine, int]] = deque()
        self.commits: list[tuple[float, int]] = []
        self.num_committed = self.clips_redone = self.num_losses = 0
        self.engine_s = self.decode_s = self.decode_s_redone = 0.0

    def run(self) -> float:
        """Return when the last chunk is committed."""
        s, back_at = self.s, self.nodes.back_at
        starts_at = self.driver.take(self.began, len(self.source) * s.source_s_per_chunk)
        for number, engine in enumerate(self.engines):
            up_at = max(starts_at, back_at[engine.node]) + s.engine_start_s + number * s.growth_s
            self.at(up_at, self.engine_up, engine, engine.life)
        for slot in self.slots:
            self.at(max(starts_at, back_at[slot.node]), self.decode_next, slot, slot.life)
        self.plan_loss()
        while self.num_committed < self.num_clips:
            self.now, _, action, arguments = heapq.heappop(self.events)
            action(*arguments)
        return self.now

    def totals(self) -> dict[str, float]:
        """Return what adds up over pipelines: counts, seconds of the clock, and of every resource's work."""
        return {
            "wall_s": self.now - self.began,
            "num_committed": self.num_committed,
            "clips_redone": self.clips_redone,
            "decode_s_redone": self.decode_s_redone,
            "num_losses": self.num_losses,
            "engines": self.engine_s / len(self.engines),
            "decode CPUs": self.decode_s / len(self.slots),
            "storage requests": max(self.gets.busy_s, self.puts.busy_s),
            "storage bandwidth": self.bytes.busy_s,
            "driver": self.driver.busy_s,
            "ledger": self.ledger.busy_s,
        }

    def at(self, time_s: float, action: Callable, *arguments: object) -> None:
        heapq.heappush(self.events, (time_s, next(self.order), action, arguments))

    # Decode tasks

    def decode_next(self, slot: _Slot, life: int) -> None:
        if life != slot.life or slot.chunk is not None or not self.source:
            return
        slot.chunk, slot.since = self.source.popleft(), self.now
        s, clips = self.s, slot.chunk.clips
        share = clips / s.chunk_clips  # of the last chunk
        read_at = max(
            self.now + share * self.read_s,
            self.gets.take(self.now, share * (s.gets_per_chunk + s.opens_per_chunk) / s.gets_per_s),
            self.bytes.take(self.now, clips * s.clip_bytes / s.read_bytes_per_s),
        )
        self.at(read_at + clips * s.decode_s, self.decoded, slot, life)

    def decoded(self, slot: _Slot, life: int) -> None:
        if life != slot.life or slot.chunk is None:
            return
        chunk = slot.chunk
        self.decode_s += chunk.clips * self.s.decode_s + chunk.clips / self.s.chunk_clips * self.read_s
        chunk.node, chunk.has_place = slot.node, True
        if self.queue_room:
            self.queue_room -= 1
            slot.chunk = None
            self.send(chunk)
            self.decode_next(slot, life)
        else:
            self.blocked.append((slot, life, chunk))

    def send(self, chunk: _Chunk) -> None:
        """Let the driver hand a chunk on; its place in the queue is free again when an engine has taken it."""
        self.at(self.driver.take(self.now, self.s.driver_s_per_chunk), self.arrived, chunk)

    def arrived(self, chunk: _Chunk) -> None:
        self.ready.append(chunk)
        self.feed()

    # Engines

    def engine_up(self, engine: _Engine, life: int) -> None:
        if life == engine.life:
            engine.is_up, engine.free_at = True, self.now
            self.free.extend([(engine, life)] * 2 * self.s.concurrent_batches)
            self.feed()

    def feed(self) -> None:
        while self.ready and self.free:
            engine, life = self.free.popleft()
            if life != engine.life:
                continue
            chunk, number = self.ready.popleft(), next(self.chunk_ids)
            known_at = self.ledger.take(self.now, self.s.ledger_s_per_chunk)
            begin = max(known_at, engine.free_at)
            service_s = chunk.clips / self.s.engine_clips_per_s
            engine.free_at = begin + service_s
            engine.inside[number] = (chunk, begin)
            self.at(engine.free_at, self.captioned, engine, life, number)
            if chunk.has_place:
                chunk.has_place = False
                self.unblock()

    def unblock(self) -> None:
        """Give a free place of the queue to the task that has waited longest."""
        while self.blocked:
            slot, life, chunk = self.blocked.popleft()
            if life == slot.life:  # else its node is gone, with the chunk
                slot.chunk = None
                self.send(chunk)
                self.decode_next(slot, life)
                return
        self.queue_room += 1

    def captioned(self, engine: _Engine, life: int, number: int) -> None:
        if life != engine.life:
            return
        self.engine_s += engine.inside[number][0].clips / self.s.engine_clips_per_s
        done_at = self.puts.take(self.now, self.s.puts_per_chunk / self.s.puts_per_s)
        self.at(max(done_at, self.now + self.s.commit_s), self.committed, engine, life, number)

    def committed(self, engine: _Engine, life: int, number: int) -> None:
        if life != engine.life:
            return
        chunk, _ = engine.inside.pop(number)
        self.num_committed += chunk.clips
        self.commits.append((self.now, chunk.clips))
        self.free.append((engine, life))
        self.feed()

    # Losses

    def plan_loss(self) -> None:
        rate = self.s.losses_per_node_hour * len(self.nodes.back_at) / 3600
        if rate:
            if self.nodes.next_loss_at <= self.now or self.nodes.next_loss_at == float("inf"):
                self.nodes.next_loss_at = self.now + self.nodes.random.expovariate(rate)
            self.at(self.nodes.next_loss_at, self.lose_node)

    def lose_node(self) -> None:
        self.plan_loss()
        node = self.nodes.random.randrange(len(self.nodes.back_at))
        if self.now < self.nodes.back_at[node]:
            return
        self.num_losses += 1
        back_at = self.nodes.back_at[node] = self.now + self.s.replacement_s
        for slot in self.slots:
            if slot.node == node:
                self.lose_task(slot)
                self.at(back_at, self.decode_next, slot, slot.life)
        for engine in self.engines:
            if engine.node == node:
                self.lose_engine(engine)
                self.at(back_at + self.s.engine_start_s, self.engine_up, engine, engine.life)
        self.lose_decoded(node)
        self.wake()

    def lose_decoded(self, node: int) -> None:
        """Chunks that wait for an engine are lost with the node that decoded them."""
        for chunk in [chunk for chunk in self.ready if chunk.node == node]:
            self.decode_again(chunk)
        self.ready = deque(chunk for chunk in self.ready if chunk.node != node)

    def lose_engine(self, engine: _Engine) -> None:
        """What was committed stays; the chunks inside are captioned again."""
        engine.life += 1
        engine.is_up = False
        inside, engine.inside = engine.inside, {}
        for chunk, begin in inside.values():
            progress = min(chunk.clips, max(0, int((self.now - begin) * self.s.engine_clips_per_s)))
            self.clips_redone += progress
            self.engine_s += progress / self.s.engine_clips_per_s if progress < chunk.clips else 0.0
            if chunk.node == engine.node:
                self.decode_again(chunk)
            else:
                self.send(chunk)

    def lose_task(self, slot: _Slot) -> None:
        """A decode task begins its chunk anew, on another node."""
        slot.life += 1
        chunk, slot.chunk = slot.chunk, None
        if chunk is None:
            return
        most_s = chunk.clips * self.s.decode_s + chunk.clips / self.s.chunk_clips * self.read_s
        if not chunk.has_place:  # a chunk that waits for the queue was counted when it was decoded
            self.decode_s += min(self.now - slot.since, most_s)
        self.decode_s_redone += min(self.now - slot.since, most_s)
        chunk.has_place = False
        self.source.appendleft(chunk)

    def decode_again(self, chunk: _Chunk) -> None:
        """A chunk whose pixels are lost goes back to the source; its place in the queue is free."""
        self.decode_s_redone += chunk.clips * self.s.decode_s + chunk.clips / self.s.chunk_clips * self.read_s
        if chunk.has_place:
            chunk.has_place = False
            self.unblock()
        self.source.appendleft(chunk)

    def wake(self) -> None:
        """Let idle tasks take what came back to the source."""
        for slot in self.slots:
            if self.source and slot.chunk is None and self.now >= self.nodes.back_at[slot.node]:
                self.decode_next(slot, slot.life)
