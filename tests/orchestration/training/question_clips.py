"""A small corpus of real, tiny clips with or without captions, and a table of 20 questions of each."""

from pathlib import Path

import pyarrow as pa

from mama_ray.data.clip import Clip
from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.questions.question import Question
from mama_ray.data.questions.table import QuestionSet, write_questions
from mama_ray.data.shard import write_shard
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.storage.places import Place
from tests.data.shard_factory import FACTS

NUM_CLIPS = 50
QUESTIONS_PER_CLIP = 20


def write_clips(
    folder: Path, *, captioned: bool, is_embedded: bool, num_train: int = NUM_CLIPS, measured: str = "val"
) -> str:
    """Write real clips of 32 pixels, the last of which is of the split that is measured; returns their folder."""
    corpus = CorpusConfig(num_train=num_train, num_val=1, num_test=1, num_meta=0, image_size=32)
    folder.mkdir()
    samples = []
    for split, count in (("train", num_train), (measured, 1)):
        for number in range(count):
            made = generate_clip(corpus, split, number)
            captions = made.clip.captions if captioned else ()
            kept = {name: getattr(made.clip, name) for name in ("questions", "truth")} if is_embedded else {}
            clip = Clip(f"{split}{number}", f"{split}{number}", 0.0, 1.0, captions, made.clip.topic, split, **kept)
            samples.append((clip, made.video, "mp4"))
    places = write_shard(folder / "clips.tar", samples)
    rows = [index_row(clip, place, "clips.tar", FACTS) for (clip, *_), place in zip(samples, places, strict=True)]
    sizes = {"clips.tar": {"num_bytes": (folder / "clips.tar").stat().st_size, "num_clips": len(rows)}}
    write_index(Place.of(folder), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return str(folder)


def write_table(path: Path) -> str:
    """Write 20 questions of each clip and one of the clip of val; one word stands in answers of the table alone."""
    questions = [
        Question(f"{number}_{one}", f"train{number}", f"what is {one}?", (("zyzzyva", "red")[one % 2],), split="train")
        for number in range(NUM_CLIPS)
        for one in range(QUESTIONS_PER_CLIP)
    ]
    questions.append(Question("v", "val0", "what is it?", ("red",), split="val"))
    write_questions(Place.of(path), QuestionSet("own", "open_ended", tuple(questions)))
    return str(path)
