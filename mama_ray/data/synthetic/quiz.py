"""One-word questions about a clip of the embedded corpus, open ended or of five options, made from its truth alone.

They are a pure function of the clip's name and its facts, so any index of the corpus has them. Their texts do not tell
the answers: what a question names is independent of what it asks for, yes and no are asked equally often of the same
words, two, one and zero equally often, and the right option stands anywhere among values of its own kind.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from mama_ray.data.questions.question import Question, choice
from mama_ray.data.questions.table import QuestionSet
from mama_ray.data.synthetic.facts import draw
from mama_ray.data.synthetic.vocabulary import COLOURS, MOTIONS, SHAPES, Facts, Thing
from mama_ray.errors import UserError

NUM_OPTIONS = 5
QuizTask = Literal["open_ended", "multiple_choice"]
QUIZZES: dict[str, QuizTask] = {"embedded_qa": "open_ended", "embedded_mc": "multiple_choice"}
"""Names of the two sets of questions."""
_DATASETS = {task: name for name, task in QUIZZES.items()}
_VALUES: dict[str, tuple[str, ...]] = {"shape": SHAPES, "colour": COLOURS, "motion": MOTIONS, "order": SHAPES}
_COUNTS = ("zero", "one", "two")
_COLUMNS = ("clip_id", "video_id", "split", "truth")


def quiz_of_index(index: pa.Table, task: QuizTask = "open_ended") -> QuestionSet:
    """Return the questions about all clips of an index of the embedded corpus, in its order, with the clips' splits.

    UserError for an index of anything else, which has no truth about its clips.
    """
    questions: list[Question] = []
    for row in index.select(_COLUMNS).to_pylist():
        if not row["truth"]:
            remedy = "prepare the embedded corpus: jobs/prepare.py without --videos"
            raise UserError(
                "no truth to ask about", got=f"clip {row['clip_id']}", wanted="a generated clip", remedy=remedy
            )
        known = {name: row[name] for name in ("clip_id", "video_id", "split")}
        questions += ask_all(_facts(json.loads(row["truth"])), task, **known)
    return QuestionSet(_DATASETS[task], task, tuple(questions))


def ask_all(facts: Facts, task: QuizTask, *, clip_id: str, video_id: str, split: str | None) -> list[Question]:
    """Return a clip's questions: open ended of the types shape, colour, size, motion and yes_no, with two objects also
    order and mostly count; of multiple choice shape, colour, motion and order, the types with five values and more.
    """
    digest = hashlib.sha256(f"{clip_id}\0{task}".encode()).digest()
    rng = np.random.Generator(np.random.Philox(int.from_bytes(digest[:16])))
    questions = []
    for kind, text, answer in _ask(facts, rng):
        fields = {"question_id": f"{clip_id}_{kind}", "question": text, "type": kind}
        fields |= {"clip_id": clip_id, "video_id": video_id, "split": split}
        if task == "open_ended":
            questions.append(Question(answers=(answer,), **fields))
        elif kind in _VALUES:
            options = _options(facts, kind, answer, rng)
            questions.append(choice(options, options.index(answer), **fields))
    return questions


def _ask(facts: Facts, rng: np.random.Generator) -> Iterator[tuple[str, str, str]]:
    """Yield type, text and answer. An object is named by its shape or its colour, which differ between two objects."""
    place = int(rng.integers(len(facts)))
    thing = facts[place]
    assert thing.shape and thing.colour and thing.size and thing.motion  # a clip's own facts leave nothing out
    yield "shape", f"what shape is the {thing.colour} object?", thing.shape
    yield "colour", f"what colour is the {thing.shape}?", thing.colour
    yield "size", f"is the {thing.shape} small or large?", thing.size
    yield "motion", f"what does the {draw(rng, (thing.shape, f'{thing.colour} object'))} do?", thing.motion
    is_so = bool(rng.random() < 0.5)
    named = thing.colour if is_so else _other_colour(facts, thing, rng)
    yield "yes_no", f"is the {thing.shape} {named}?", "yes" if is_so else "no"
    if len(facts) == 2:
        which, other = draw(rng, (("first", facts[0]), ("last", facts[1])))
        yield "order", f"which shape acts {which}?", str(other.shape)
        size = draw(rng, ("small", "large"))
        count = sum(one.size == size for one in facts)
        # One is twice as frequent as zero and as two: half of these are not asked.
        if count != 1 or rng.random() < 0.5:
            yield "count", f"how many {size} objects are there?", _COUNTS[count]


def _other_colour(facts: Facts, thing: Thing, rng: np.random.Generator) -> str:
    """Return a colour that the object has not: where there is another object, half of the time that one's."""
    others = [one.colour for one in facts if one is not thing and one.colour]
    if others and rng.random() < 0.5:
        return others[0]
    return draw(rng, [colour for colour in COLOURS if colour != thing.colour])


def _options(facts: Facts, kind: str, answer: str, rng: np.random.Generator) -> list[str]:
    """Return the answer among values of its kind; what the other object has is always one of them."""
    name = "shape" if kind == "order" else kind
    seen = {str(getattr(thing, name)) for thing in facts} - {answer}
    rest = [value for value in _VALUES[kind] if value != answer and value not in seen]
    num_drawn = NUM_OPTIONS - 1 - len(seen)
    chosen = [answer, *sorted(seen), *(rest[int(place)] for place in rng.permutation(len(rest))[:num_drawn])]
    return [chosen[int(place)] for place in rng.permutation(len(chosen))]


def _facts(truth: Mapping[str, Any]) -> Facts:
    objects: Sequence[Mapping[str, str]] = truth["facts"]["objects"]
    return tuple(Thing(one["shape"], one["colour"], one["size"], one["motion"]) for one in objects)
