"""One clip of the corpus: `generate_clip` is a pure function of the config, the split and the number."""

from dataclasses import dataclass
from typing import Any

from mama_ray.data.clip import SPLITS, Caption, Clip
from mama_ray.data.synthetic.config import CorpusConfig, Split
from mama_ray.data.synthetic.encode import encode_h264
from mama_ray.data.synthetic.facts import clip_rng, draw_facts
from mama_ray.data.synthetic.grammar import write_caption
from mama_ray.data.synthetic.questions import ask_questions
from mama_ray.data.synthetic.render import render_frames
from mama_ray.data.synthetic.spoil import (
    choose_donor,
    draw_kind,
    misstate_facts,
    omit_facts,
)


@dataclass(frozen=True)
class GeneratedClip:
    """A clip and its video."""

    clip: Clip
    video_bytes: bytes


def generate_clip(config: CorpusConfig, split: Split, number: int) -> GeneratedClip:
    """Return clip `number` of a split, its video encoded; the same arguments give the same bytes."""
    frames = render_frames(
        draw_facts(config, split, number),
        image_size=config.image_size,
        num_frames=config.num_frames,
        rng=clip_rng(config, split, number, "draw"),
    )
    return GeneratedClip(
        describe_clip(config, split, number), encode_h264(frames, config.fps)
    )


def describe_clip(config: CorpusConfig, split: Split, number: int) -> Clip:
    """Return everything of a clip but its video.

    `truth` holds `kind` (clean, incomplete, wrong or swapped), `facts`, the clean `caption` and, for a spoiled caption,
    `spoiled`: what was omitted or misstated, or whose caption it is.
    """
    objects = draw_facts(config, split, number)
    clean = clean_caption(config, split, number)
    text, truth = (
        clean,
        {"kind": "clean", "facts": {"objects": objects}, "caption": clean},
    )
    if split == "train":
        text, truth = _spoil(config, number, clean, truth)
    clip_id = clip_name(split, number)
    return Clip(
        clip_id=clip_id,
        video_id=clip_id,
        start_s=0.0,
        end_s=config.num_frames / config.fps,
        captions=(Caption(text),),
        topic=objects[0]["shape"],
        split=split,
        questions=ask_questions(objects, clip_rng(config, split, number, "questions")),
        truth=truth,
    )


def clean_caption(config: CorpusConfig, split: Split, number: int) -> str:
    """Return the caption that states every fact of a clip."""
    return write_caption(
        draw_facts(config, split, number), clip_rng(config, split, number, "caption")
    )


def clip_name(split: Split, number: int) -> str:
    """Return the clip_id, also the video's file name without its extension."""
    return f"{split}-{number:06d}"


def enumerate_clips(config: CorpusConfig) -> list[tuple[Split, int]]:
    """Return (split, number) of every clip of the corpus, in order."""
    return [
        (split, number) for split in SPLITS for number in range(config.num_clips(split))
    ]


def _spoil(
    config: CorpusConfig, number: int, clean: str, truth: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    rng = clip_rng(config, "train", number, "spoil")
    kind = draw_kind(config, rng)
    if kind == "clean":
        return clean, truth
    if kind == "swapped":
        donor = choose_donor(config, number, rng)
        text, record = (
            clean_caption(config, "train", donor),
            {"caption_of": clip_name("train", donor)},
        )
    else:
        objects = truth["facts"]["objects"]
        stated, record = (omit_facts if kind == "incomplete" else misstate_facts)(
            objects, rng
        )
        text = write_caption(stated, rng)
    return text, truth | {"kind": kind, "spoiled": record}
