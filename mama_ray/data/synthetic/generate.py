"""One clip of the corpus: facts, frames, captions, questions and the truth about all of them."""

from dataclasses import dataclass

from mama_ray.data.clip import Clip
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.encode import encode_mp4
from mama_ray.data.synthetic.facts import facts_of, stream_rng, topic_ranks
from mama_ray.data.synthetic.grammar import Statement
from mama_ray.data.synthetic.label import label_of, stamp_label
from mama_ray.data.synthetic.questions import ask
from mama_ray.data.synthetic.render import render_frames
from mama_ray.data.synthetic.scene import draw_scene
from mama_ray.data.synthetic.tell import caption, human_captions, narrate
from mama_ray.data.synthetic.vocabulary import facts_to_dict
from mama_ray.errors import UserError, unknown_name


@dataclass(frozen=True)
class GeneratedClip:
    """A clip and its video, an MP4 file."""

    clip: Clip
    video: bytes


def generate_clip(config: CorpusConfig, split: str, number: int) -> GeneratedClip:
    """Make clip `number` of a split: a pure function, so clips can be made anywhere in any order.

    UserError for a split or a number that the corpus does not have.
    """
    clip = describe_clip(config, split, number)
    facts = facts_of(config, split, number)
    rng = stream_rng(config.seed, "scene", split, number)
    scene = draw_scene(facts, config.level, config.num_frames, rng, domain=config.domain_of(split))
    frames = render_frames(facts, scene, config.level, config.image_size, rng)
    label = label_of(config, split, number)
    if label is not None:
        stamp_label(frames, label)
    return GeneratedClip(clip, encode_mp4(frames, config.fps))


def describe_clip(config: CorpusConfig, split: str, number: int) -> Clip:
    """Return the clip without drawing it."""
    if split not in config.num_clips:
        raise unknown_name("split", split, config.num_clips)
    if not 0 <= number < config.num_clips[split]:
        raise UserError(f"clip number of split {split}", got=number, wanted=f"0 to {config.num_clips[split] - 1}")
    facts = facts_of(config, split, number)
    told = (narrate if config.texts == "first_person" else caption)(config, split, number, facts)
    spoiling = told.spoiling
    topic, label = facts[0].shape, label_of(config, split, number)
    name = clip_id_of(config, split, number)
    return Clip(
        clip_id=name,
        video_id=name,
        start_s=0.0,
        end_s=config.duration_s,
        captions=told.captions,
        topic=topic,
        split=split,
        questions=ask(facts, stream_rng(config.seed, "questions", split, number)),
        truth={
            "kind": spoiling.kind,
            "facts": facts_to_dict(facts),
            "stated": _stated(spoiling.statement),
            "clean_caption": human_captions(config, split, Statement(facts), number)[0].text,
            "topic_rank": topic_ranks(config.seed)[topic],
            **({"kinds": list(told.kinds)} if told.kinds else {}),
            **({"label": label} if label else {}),
            **_name_clips(config, spoiling.change),
        },
    )


def clip_id_of(config: CorpusConfig, split: str, number: int) -> str:
    """Return the name of a clip; corpora of another level, seed, domain or kind of texts have other names, and
    so have those with labels, with facts of each topic's own or with splits of several domains.
    """
    level = config.level if config.domain == "all" else f"{config.level}-{config.domain}"
    level = level if config.texts == "plain" else f"{level}-narrated"
    added = {"labelled": config.has_labels, "own": config.topic_facts == "own"}
    added |= {f"meta_{config.meta_domain}": config.meta_domain, f"test_{config.test_domain}": config.test_domain}
    level = "-".join([level, *(name for name, is_so in added.items() if is_so)])
    return f"{level}-{config.seed}-{split}-{number:06d}"


def _stated(statement: Statement) -> dict:
    record = facts_to_dict(statement.things)
    return record if statement.tells_order else {**record, "tells_order": False}


def _name_clips(config: CorpusConfig, change: dict) -> dict:
    if "swapped_with" not in change:
        return change
    return {"swapped_with": clip_id_of(config, "train", change["swapped_with"])}
