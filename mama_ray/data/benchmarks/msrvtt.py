"""MSR-VTT's official files; the 1k-A test file repeats five sentences."""

import csv
import json
from pathlib import Path

from mama_ray.data.benchmarks.rows import Row, Split, as_list, make_row, need_columns, need_one_sentence
from mama_ray.errors import UserError


def read_msrvtt(annotations: Path, captions: Path | None = None, split: Split = "test") -> list[Row]:
    """Return the rows of MSRVTT_JSFUSION_test.csv, MSRVTT_train.9k.csv with MSRVTT_data.json, or CLIP-ViP's jsonl.

    The test file repeats five sentences, so a positive is known by its video alone. A test row has one sentence.
    """
    if annotations.suffix == ".jsonl":
        if captions is not None:
            raise UserError("--captions has no meaning for JSON lines, which have their texts", got=captions.name)
        records = [json.loads(line) for line in annotations.read_text().splitlines() if line.strip()]
        sentences = {one["clip_id"]: as_list(one["text"]) for one in records}
    elif captions is None:
        with annotations.open(newline="") as file:
            records = list(csv.DictReader(file))
        need_columns(
            annotations, records, ("video_id", "sentence"), "give --captions MSRVTT_data.json for a list of ids"
        )
        sentences = {one["video_id"]: [one["sentence"]] for one in records}
    else:
        with annotations.open(newline="") as file:
            records = list(csv.DictReader(file))
        need_columns(annotations, records, ("video_id",), "give MSRVTT_train.9k.csv")
        sentences = {one["video_id"]: [] for one in records}
        for one in json.loads(captions.read_text())["sentences"]:
            if one["video_id"] in sentences:
                sentences[one["video_id"]].append(one["caption"])
    if len(sentences) != len(records):
        raise UserError(f"{annotations.name} names a video twice", got=len(records), wanted=f"{len(sentences)} rows")
    if split == "test":
        need_one_sentence(annotations, sentences)
    return [make_row(f"{name}.mp4", name, texts, split) for name, texts in sentences.items()]
