"""From facts to frames: objects that act, before a background and a camera that are nobody's business.

Background colour and texture, brightness, a slow drift, tilt, place and noise are drawn at random and never told, so that
a model must learn to look past them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from mama_ray.data.synthetic.facts import ObjectFacts
from mama_ray.data.synthetic.shapes import draw_mask

# Far apart in hue and bright, since H.264 keeps colour at half the resolution.
RGB = {
    "red": (225, 25, 35),
    "orange": (255, 140, 10),
    "yellow": (250, 235, 50),
    "green": (25, 165, 45),
    "cyan": (60, 220, 230),
    "blue": (35, 70, 240),
    "purple": (170, 40, 210),
    "white": (250, 250, 250),
}
# Radii as shares of the image's side; two objects must leave each other room.
RADII = {
    1: {"small": 0.13, "medium": 0.20, "large": 0.29},
    2: {"small": 0.10, "medium": 0.15, "large": 0.21},
}
_TRAVEL = {1: 0.22, 2: 0.15}
_MAX_DRIFT = 2


@dataclass(frozen=True)
class _Actor:
    """One object with all that was drawn for it; places are shares of the image's side."""

    facts: ObjectFacts
    home: tuple[float, float]
    radius: float
    angle: float
    travel: float
    start: float
    """When it acts: [start, stop] as shares of the clip."""
    stop: float


def render_frames(
    objects: Sequence[ObjectFacts],
    *,
    image_size: int,
    num_frames: int,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "frames size size 3"]:
    """Draw the clip, RGB. One object acts during the whole clip; of two, the first in the first half."""
    actors = _cast(objects, rng)
    background = _draw_background(image_size + 2 * _MAX_DRIFT, rng)
    brightness = rng.uniform(0.85, 1.1)
    noise = rng.uniform(0.0, 5.0)
    drift = rng.uniform(-_MAX_DRIFT, _MAX_DRIFT, size=2)
    frames = np.empty((num_frames, image_size, image_size, 3), dtype=np.float32)
    for number, time in enumerate(np.linspace(0.0, 1.0, num_frames)):
        shift_x, shift_y = np.round(_MAX_DRIFT + drift * (2 * time - 1)).astype(int)
        frame = frames[number]
        frame[:] = background[
            shift_y : shift_y + image_size, shift_x : shift_x + image_size
        ]
        for actor in actors:
            _draw_actor(frame, actor, float(time))
    frames *= brightness
    frames += noise * rng.standard_normal(frames.shape[:3], dtype=np.float32)[..., None]
    return np.clip(frames + 0.5, 0, 255).astype(np.uint8)


def _cast(objects: Sequence[ObjectFacts], rng: np.random.Generator) -> list[_Actor]:
    count = len(objects)
    if count == 1:
        homes, times = [rng.uniform(0.42, 0.58, size=2)], [(0.0, 1.0)]
    else:
        # Side by side or one above the other, in either order, with little room to collide.
        sides = np.array([0.27, 0.73])[rng.permutation(2)]
        across = rng.uniform(0.4, 0.6, size=2)
        homes = [np.array(pair) for pair in zip(sides, across, strict=True)]
        if rng.random() < 0.5:
            homes = [home[::-1] for home in homes]
        times = [(0.0, 0.5), (0.5, 1.0)]
    return [
        _Actor(
            facts=facts,
            home=(float(home[0]), float(home[1])),
            radius=RADII[count][facts["size"]] * rng.uniform(0.95, 1.05),
            angle=rng.uniform(-0.25, 0.25),
            travel=_TRAVEL[count] * rng.uniform(0.9, 1.1),
            start=start,
            stop=stop,
        )
        for facts, home, (start, stop) in zip(objects, homes, times, strict=True)
    ]


def _draw_actor(
    frame: Float[np.ndarray, "size size 3"], actor: _Actor, time: float
) -> None:
    progress = min(max((time - actor.start) / (actor.stop - actor.start), 0.0), 1.0)
    (x, y), opacity = _pose(actor.facts["motion"], progress)
    size = frame.shape[0]
    centre = (
        (actor.home[0] + actor.travel * x) * size,
        (actor.home[1] + actor.travel * y) * size,
    )
    rows, columns, mask = draw_mask(
        actor.facts["shape"], centre, actor.radius * size, actor.angle, size
    )
    covered = (opacity * mask)[..., None]
    colour = np.array(RGB[actor.facts["colour"]], dtype=np.float32)
    frame[rows, columns] += covered * (colour - frame[rows, columns])


def _pose(motion: str, progress: float) -> tuple[tuple[float, float], float]:
    """Return the place, in travels from home (x right, y down), and the opacity."""
    sweep = 2 * progress - 1
    if motion == "left":
        return (-sweep, 0.0), 1.0
    if motion == "right":
        return (sweep, 0.0), 1.0
    if motion == "up":
        return (0.0, -sweep), 1.0
    if motion == "down":
        return (0.0, sweep), 1.0
    if motion == "circling":
        return (
            float(np.sin(2 * np.pi * progress)),
            -float(np.cos(2 * np.pi * progress)),
        ), 1.0
    if motion == "bouncing":
        return (0.0, 1.0 - 2.0 * abs(float(np.sin(2 * np.pi * progress)))), 1.0
    if motion == "appearing":
        return (0.0, 0.0), min(max(2 * progress - 0.5, 0.0), 1.0)
    if motion == "vanishing":
        return (0.0, 0.0), min(max(1.5 - 2 * progress, 0.0), 1.0)
    raise AssertionError(f"no path for motion {motion}")


def _draw_background(
    size: int, rng: np.random.Generator
) -> Float[np.ndarray, "size size 3"]:
    """Dim and nearly grey, so that every object colour stands out: plain, a gradient, stripes, checks or clouds."""
    base = rng.uniform(35, 95) + rng.uniform(-12, 12, size=3)
    strength = rng.uniform(5, 16)
    across, down = np.meshgrid(np.arange(size) / size, np.arange(size) / size)
    angle = rng.uniform(0, 2 * np.pi)
    along = across * np.cos(angle) + down * np.sin(angle)
    kind = int(rng.integers(5))
    if kind == 0:
        texture = np.zeros((size, size))
    elif kind == 1:
        texture = 2 * along
    elif kind == 2:
        texture = np.sin(2 * np.pi * rng.uniform(3, 7) * along)
    elif kind == 3:
        cells = rng.uniform(3, 7)
        texture = np.sign(
            np.sin(2 * np.pi * cells * across) * np.sin(2 * np.pi * cells * down)
        )
    else:
        waves = rng.uniform(-3, 3, size=(4, 2))
        phases = rng.uniform(0, 2 * np.pi, size=4)
        texture = (
            sum(
                np.sin(2 * np.pi * (fx * across + fy * down) + phase)
                for (fx, fy), phase in zip(waves, phases, strict=True)
            )
            / 2
        )
    return (base + strength * texture[..., None]).astype(np.float32)
