"""Small folders of annotation files of the official form, with a few clips each."""

import json
from pathlib import Path

from tests.data.benchmarks.official import segment_row, write_csv

EGTEA_CLIPS = ("A-R1-Soup-1-2", "A-R1-Soup-3-4", "B-R2-Cake-1-2", "B-R2-Cake-5-6")


def write_ek100(folder: Path, num_clips: int = 6) -> Path:
    """Clips P01_11_1 ... of three verbs and four nouns; the last two of an unseen person; train has other actions."""
    rows = [segment_row(n, participant_id="P18" if n > num_clips - 2 else "P01") for n in range(1, num_clips + 1)]
    write_csv(folder / "EPIC_100_retrieval_test.csv", rows)
    captions = [{"narration_id": row["narration_id"], "narration": "shifted"} for row in rows]
    write_csv(folder / "EPIC_100_retrieval_test_sentence.csv", captions)
    train = [
        segment_row(40, verb_class="2", noun_class="0", narration="close tap"),
        segment_row(41, verb_class="10", noun_class="1", narration="cut onion"),
    ]
    write_csv(folder / "EPIC_100_train.csv", train)
    for kind, count in (("verb", 12), ("noun", 5)):
        classes = [{"id": str(number), "key": f"{kind} {number}"} for number in range(count)]
        write_csv(folder / f"EPIC_100_{kind}_classes.csv", classes)
        write_csv(folder / f"EPIC_100_tail_{kind}s.csv", [{kind: "2"}, {kind: "3"}])
    write_csv(folder / "EPIC_100_unseen_participant_ids_validation.csv", [{"participant_id": "P18"}])
    return folder


def write_egtea(folder: Path, lists: dict[str, list[int]]) -> Path:
    """Lists of test clips by number; the action of a clip is its number modulo 3."""
    (folder / "action_idx.txt").write_text("Open_fridge 1\nCut_tomato 2\nClose_fridge 3\n")
    for name, numbers in lists.items():
        lines = [f"{EGTEA_CLIPS[number]} {number % 3 + 1} 1 1" for number in numbers]
        (folder / f"test_{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_charades(folder: Path) -> Path:
    """Three videos and two classes; the last video has none."""
    (folder / "Charades_v1_classes.txt").write_text("c000 Holding some clothes\nc001 Opening a door\n")
    rows = [("AEGO", "c000 1 2;c001 2 3"), ("BEGO", "c001 1 2"), ("CEGO", "")]
    columns = [{"id": name, "actions": actions, "length": "9"} for name, actions in rows]
    write_csv(folder / "CharadesEgo_v1_test_only1st.csv", columns)
    return folder


def write_egomcq(folder: Path, clips: list[tuple[str, float, float]], answers: list[tuple[int, int]]) -> Path:
    """Questions with (answer, type), each about five of the clips, from its own number on."""
    questions = {}
    for number, (answer, kind) in enumerate(answers):
        chosen = [clips[(number + place) % len(clips)] for place in range(5)]
        choices = {
            str(place): {"video_uid": video, "clip_start": start, "clip_end": end}
            for place, (video, start, end) in enumerate(chosen)
        }
        query = {"clip_text": f"#C C moves thing {number}"}
        questions[str(number)] = {"answer": answer, "types": kind, "query": query, "choices": choices}
    (folder / "egomcq.json").write_text(json.dumps(questions))
    return folder
