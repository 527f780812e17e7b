"""Official files that look like themselves and are not: each ends in one line, or is read for what it is."""

import json
import re
from pathlib import Path

import pytest

from mama_ray.data.questions.__main__ import main
from mama_ray.data.questions.official.causal_vidqa import read_causal_vidqa
from mama_ray.data.questions.official.msvd_qa import read_msvd_qa
from mama_ray.data.questions.table import read_questions
from mama_ray.errors import UserError
from mama_ray.storage.places import Place


@pytest.mark.parametrize(
    ("name", "files", "told"),
    [
        ("nextqa", {"q.csv": "video,question,answer,qid,type,a0,a1,a2,a3,a4,answer\n1,q,0,0,CW,a,b,c,d,e,3\n"},
         "q.csv has a column twice: got answer"),
        ("tgif_frame", {"q.csv": "gif_name\tquestion\tanswer\ttype\tvid_id\ng\tq\ta\t-1\t1\n"},
         "type: got -1, wanted 0 to 3"),
        ("tgif_count", {"q.csv": f"gif_name\tquestion\tanswer\tvid_id\ng\tq\t{'9' * 5000}\t1\n"},
         "wanted a whole number of at most 9 digits"),
        ("activitynet_qa", {"x_q.json": '[{"question_id": "v_1_1", "question": "q"}]',
                            "x_a.json": '[{"question_id": "v_1_1", "answer": "x", "type": -1}]'},
         "type: got -1, wanted 0 to 8"),
        ("activitynet_qa", {"x_q.json": '[{"question_id": "v_1_1", "question": "q"}]',
                            "x_a.json": '[{"question_id": "v_1_1", "answer": null, "type": 3}]'},
         "answer: got ''"),
    ],
)  # fmt: skip
def test_numbers_and_columns_that_would_pass_for_others_are_refused(tmp_path, name, files, told):
    for path, content in files.items():
        (tmp_path / path).write_text(content)
    with pytest.raises(UserError, match=re.escape(told)):
        main(name, tmp_path / next(iter(files)), str(tmp_path / "table.parquet"))


def test_a_byte_order_mark_and_unicodes_ends_of_lines_are_read(tmp_path):
    record = {"question_id": 0, "video_id": 0, "question": "one\u2028line?", "answer": "man"}
    (tmp_path / "own.jsonl").write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8-sig")
    main("own", tmp_path / "own.jsonl", str(tmp_path / "table.parquet"))
    (question,) = read_questions(Place.of(tmp_path / "table.parquet")).questions
    assert (question.question_id, question.video_id, question.question) == ("0", "0", "one\u2028line?")


def test_a_name_that_comes_twice_is_refused_where_the_last_would_be_taken(tmp_path):
    (tmp_path / "own.json").write_text(
        '[{"question_id": 1, "video_id": 1, "question": "q", "answer": "a", "answer": "b"}]'
    )
    with pytest.raises(UserError, match="got 'answer' twice in one object"):
        main("own", tmp_path / "own.json", str(tmp_path / "table.parquet"))
    (tmp_path / "qa.json").write_text('[{"id": 1, "video_id": 1451, "question": "what is it?", "answer": "a"}]')
    (tmp_path / "map.txt").write_text("one vid1451\nother vid1451\n")
    with pytest.raises(UserError, match=r"videos of map.txt have doubled ids: got 1, among them vid1451"):
        read_msvd_qa(tmp_path / "qa.json", tmp_path / "map.txt")


def test_causal_vidqa_has_five_options(tmp_path):
    parts = {"question": "q", "answer": list("abcd"), "reason": list("abcd")}
    kinds = ("descriptive", "explanatory", "predictive", "counterfactual")
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "text.json").write_text(json.dumps(dict.fromkeys(kinds, parts)))
    right = {kind: {"answer": 0, "reason": 0} for kind in kinds}
    (tmp_path / "v" / "answer.json").write_text(json.dumps(right))
    (tmp_path / "ids.txt").write_text("v")
    with pytest.raises(UserError, match="options of v_d: got 4, wanted 5"):
        read_causal_vidqa(tmp_path, tmp_path / "ids.txt")


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("nextqa", {"task": "open_ended"}, "--task has no meaning for nextqa, whose task is known"),
        ("embedded_qa", {"task": "open_ended"}, "--task has no meaning for embedded_qa"),
        ("own", {"beside": Path("b.json")}, "--beside has no meaning for a benchmark of one file: got own"),
        ("nextqa", {"beside": Path("b.json")}, "--beside has no meaning"),
        ("nextqa", {"folders": Path("map.json")}, "--folders has no meaning without --rows"),
        ("own", {"videos": Path("videos")}, "--videos has no meaning without --rows"),
    ],
)
def test_what_would_not_be_looked_at_is_refused(tmp_path, name, given, told):
    with pytest.raises(UserError, match=told):
        main(name, tmp_path / "own.jsonl", str(tmp_path / "table.parquet"), **given)
