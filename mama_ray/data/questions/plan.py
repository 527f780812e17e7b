"""The order of (clip, question) pairs: questions of one clip stand in one batch, so that it is decoded once for them.

A clip's questions, or every `questions_per_clip` of them, are a visit. Visits are packed into steps once, whole, the
largest first; an epoch deals the visits of each size anew to the places of that size, shuffles the steps, and deals a
clip's questions to its visits. So every pair comes once in an epoch, every visit costs one decode, and an epoch has
always as many steps: a step is again a pure function of seed, epoch and questions. What a step has left over is
padding, at its end.
"""

import numpy as np
from pydantic import Field

from mama_ray.config import Config
from mama_ray.data.plan import PADDING_ROW, local_places, shuffled

# What the generator is asked for, after the seed and the epoch.
_STEPS, _VISITS, _QUESTIONS = 0, 1, 2
_KEPT_EPOCHS = 2  # steps of two epochs are asked for in turn where one ends


class QuestionPlanConfig(Config):
    """How (clip, question) pairs are put in order."""

    seed: int = Field(default=0, ge=0)
    """Seed of the order; a new epoch gets a new order from the same seed."""
    questions_per_clip: int | None = Field(default=None, ge=1)
    """Most questions of one clip in a batch; null is all of them, each clip decoded once an epoch. Fewer put more
    clips into a batch, which the contrastive loss likes, and decode a clip more often; 1 mixes single pairs."""


class QuestionPlan:
    """The endless order of pairs that are sorted by clip.

    Args:
        clip_rows: the clip's row of each pair, ascending; a pair's own row is its place here.
        batch_size: pairs of a step, of all workers.
        config: seed and size of the visits.

    Attributes:
        num_pairs: pairs of an epoch.
        num_visits: decodes of an epoch by one worker; the boundary between two workers may cut one in two.
        num_steps: steps of an epoch.
        num_clips: places of an epoch, padding among them.
    """

    def __init__(self, clip_rows: np.ndarray, batch_size: int, config: QuestionPlanConfig) -> None:
        rows = np.asarray(clip_rows, np.int64)
        if not len(rows) or (np.diff(rows) < 0).any():
            raise ValueError("a plan of questions needs at least one pair, and pairs sorted by clip")
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}, wanted 1 or more")
        self.config, self.batch_size, self.num_pairs = config, batch_size, len(rows)
        _, self._clip_starts, self._clip_sizes = np.unique(rows, return_index=True, return_counts=True)
        limit = min(config.questions_per_clip or batch_size, batch_size)
        # A visit's clip, and which of the clip's shuffled questions it takes.
        self._visit_clips, self._visit_starts, self._visit_sizes = _cut(self._clip_sizes, limit)
        self._slot_sizes, self._step_ends = _pack(self._visit_sizes, batch_size)
        self.num_visits, self.num_steps = len(self._visit_sizes), len(self._step_ends)
        self.num_clips = self.num_steps * batch_size
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def global_batch(self, step: int, global_batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return pairs and epochs of training step `step`, each (global_batch_size,); padding is PADDING_ROW."""
        if global_batch_size != self.batch_size:
            raise ValueError(f"global_batch_size: got {global_batch_size}, wanted {self.batch_size}, as planned")
        epoch, place = divmod(step, self.num_steps)
        order, visits = self._epoch(epoch)
        number = int(order[place])
        start = int(self._step_ends[number - 1]) if number else 0
        own = visits[start : self._step_ends[number]]
        # Two visits of one clip may meet in a step, and stand side by side then.
        own = own[np.argsort(self._visit_clips[own], kind="stable")]
        pairs = [self._pairs(epoch, int(visit)) for visit in own]
        padding = np.full(global_batch_size - sum(map(len, pairs)), PADDING_ROW, np.int64)
        return np.concatenate([*pairs, padding]), np.full(global_batch_size, epoch, np.int64)

    def local_batch(
        self, step: int, global_batch_size: int, rank: int, world_size: int, *, num_parts: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return pairs and epochs of what worker `rank` takes of a step: a contiguous slice of the global batch."""
        pairs, epochs = self.global_batch(step, global_batch_size)
        places = local_places(global_batch_size, rank, world_size, num_parts=num_parts)
        return pairs[places], epochs[places]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the order of the steps, and which visit takes each slot."""
        if epoch not in self._epochs:
            visits = np.empty(self.num_visits, np.int64)
            for size in np.unique(self._visit_sizes):
                members = np.flatnonzero(self._visit_sizes == size)
                dealt = members[shuffled(len(members), self.config.seed, epoch, _VISITS, int(size))]
                visits[self._slot_sizes == size] = dealt
            order = shuffled(self.num_steps, self.config.seed, epoch, _STEPS)
            kept = list(self._epochs.items())[-(_KEPT_EPOCHS - 1) :]
            self._epochs = dict([*kept, (epoch, (order, visits))])
        return self._epochs[epoch]

    def _pairs(self, epoch: int, visit: int) -> np.ndarray:
        clip, start = int(self._visit_clips[visit]), int(self._visit_starts[visit])
        dealt = shuffled(int(self._clip_sizes[clip]), self.config.seed, epoch, _QUESTIONS, clip)
        return self._clip_starts[clip] + dealt[start : start + int(self._visit_sizes[visit])]


def group_pairs(clip_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the clips of a batch of pairs, each once and in the order in which they come, and each pair's clip among
    them: `clips[places]` are the rows again. So a clip is read, decoded and encoded once for all its questions.
    """
    clips, firsts, places = np.unique(clip_rows, return_index=True, return_inverse=True)
    order = np.argsort(firsts, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return clips[order], rank[places.reshape(-1)]


def _cut(sizes: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut clips of `sizes` questions into as few visits of at most `limit` as there can be, as equal as they can be.

    Returns the clip, the first place within the clip and the size of each visit.
    """
    counts = -(-sizes // limit)
    clips = np.repeat(np.arange(len(sizes)), counts)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = number * sizes[clips] // counts[clips]
    return clips, starts, (number + 1) * sizes[clips] // counts[clips] - starts


def _pack(sizes: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Pack visits into steps of `capacity` places, none cut in two: best fit, the largest first.

    Returns the sizes of the slots, step by step, and where each step ends among them.
    """
    steps: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # steps by the places they have left
    for size in sorted(sizes.tolist(), reverse=True):
        room = next((room for room in range(size, capacity + 1) if with_room[room]), None)
        if room is None:
            steps.append([])
            number, room = len(steps) - 1, capacity
        else:
            number = with_room[room].pop()
        steps[number].append(size)
        with_room[room - size].append(number)
    return np.array([size for step in steps for size in step], np.int64), np.cumsum([len(step) for step in steps])
