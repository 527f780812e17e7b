"""The official files read with their documented counts, and each of their traps."""

import csv
import json
from collections import Counter
from dataclasses import replace

import pytest

from mama_ray.data.questions.__main__ import READERS, main
from mama_ray.data.questions.official.activitynet_qa import read_activitynet_qa
from mama_ray.data.questions.official.causal_vidqa import read_causal_vidqa
from mama_ray.data.questions.official.msrvtt_qa import read_msrvtt_qa
from mama_ray.data.questions.official.msvd_qa import read_msvd_qa
from mama_ray.data.questions.official.next_qa import read_nextqa, read_nextqa_oe
from mama_ray.data.questions.official.tgif_qa import read_action, read_frame, read_r_action, read_transition
from mama_ray.data.questions.table import QuestionSet, read_questions
from mama_ray.data.questions.videos import hold_out_videos, video_rows
from mama_ray.errors import UserError
from mama_ray.evaluation.benchmarks import load_benchmark_file
from mama_ray.storage.places import Place
from tests.data.questions.official_sets import msrvtt_qa, msvd_qa, nextqa_val, official, tgif_count
from tests.data.questions.small_sets import open_question
from tests.test_layout import ROOT

MC_COLUMNS = ("question", "answer", "qid", "type", "a0", "a1", "a2", "a3", "a4")


def types(questions) -> Counter:
    return Counter(question.type for question in questions.questions)


def is_whole(questions, name: str) -> bool:
    benchmark = load_benchmark_file(ROOT / "configs" / "benchmark" / f"{name}.yaml")
    num_videos = len({question.video_id for question in questions.questions})
    return benchmark.deviation(questions) == "" and num_videos == benchmark.num_videos


def write_csv(path, columns, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def test_msrvtt_qa_has_the_documented_questions_and_types():
    assert is_whole(msrvtt_qa(), "msrvtt_qa")
    assert types(msrvtt_qa()) == {"what": 49_869, "who": 20_385, "how": 1_640, "when": 677, "where": 250}
    assert msrvtt_qa().questions[0].video_id == "video7010"
    assert all(len(question.answers[0].split()) == 1 for question in msrvtt_qa().questions)
    assert len(read_msrvtt_qa(official("msrvtt_qa/val.csv"), None, "val")) == 12_278


def test_hqgas_column_type_is_a_category_and_is_not_used(tmp_path, caplog):
    path = write_csv(
        tmp_path / "test.csv", ("video", "question", "answer", "qid", "type"), (7010, "who?", "man", 1, 10)
    )
    assert read_msrvtt_qa(path).questions[0].type == "who"
    assert "column type of test.csv is the video's category" in caplog.text


def test_the_three_layouts_of_msrvtt_qa_say_the_same(tmp_path):
    published = [{"id": 5, "video_id": 7010, "question": "who sings", "answer": "man", "category_id": 3}]
    lines = {"answer": "man", "question": "who sings", "video_id": "video7010", "answer_type": "who"}
    (tmp_path / "test_qa.json").write_text(json.dumps(published))
    (tmp_path / "test.jsonl").write_text(json.dumps(lines) + "\n" + json.dumps(lines) + "\n")
    columns = write_csv(tmp_path / "t.csv", ("video", "question", "answer", "qid"), (7010, "who sings", "man", 5))
    assert read_msrvtt_qa(tmp_path / "test_qa.json") == read_msrvtt_qa(columns)
    ids = [question.question_id for question in read_msrvtt_qa(tmp_path / "test.jsonl").questions]
    assert ids == ["video7010_0", "video7010_1"]


def test_msvd_qa_has_the_documented_questions_in_both_layouts():
    assert is_whole(msvd_qa(), "msvd_qa")
    table = read_msvd_qa(official("msvd_qa/hqga_test.csv"))
    assert table.ids_sha256 == msvd_qa().ids_sha256
    assert [one.answers for one in table.questions] == [one.answers for one in msvd_qa().questions]
    val = read_msvd_qa(official("msvd_qa/val_qa.json"), None, "val")
    assert (len(val), len({question.video_id for question in val.questions})) == (6_415, 245)


def test_msvd_qa_names_the_files_by_the_mapping(tmp_path):
    named = read_msvd_qa(official("msvd_qa/test_qa.json"), official("msvd_qa/youtube_mapping.txt"))
    assert named.questions[0].video_id == "jfrrO5K_vKM_55_65"
    assert video_rows(named)[0]["video"] == "jfrrO5K_vKM_55_65.avi"
    (tmp_path / "mapping.txt").write_text("a vid1\n")
    with pytest.raises(UserError, match="504 videos are not in mapping.txt"):
        read_msvd_qa(official("msvd_qa/test_qa.json"), tmp_path / "mapping.txt")


@pytest.mark.parametrize("reader", [read_msrvtt_qa, read_msvd_qa])
def test_a_file_of_another_split_is_refused(reader, tmp_path):
    path = write_csv(tmp_path / "x.csv", ("video", "question", "answer", "qid"), (1200, "who?", "man", 1))
    assert reader(path, None, "train").questions[0].split == "train"
    with pytest.raises(UserError, match="x.csv is not split test: got 1 questions of train"):
        reader(path, None, "test")


@pytest.mark.parametrize(
    ("reader", "name", "file"),
    [
        (read_action, "tgif_action", "action"),
        (read_transition, "tgif_transition", "transition"),
        (read_frame, "tgif_frame", "frameqa"),
    ],
)
def test_tgif_qa_has_the_documented_questions(reader, name, file):
    questions = reader(official(f"tgif_qa/Test_{file}_question.csv"))
    assert is_whole(questions, name)
    assert questions.num_options == (0 if name == "tgif_frame" else 5)


def test_tgif_frame_has_the_documented_types():
    questions = read_frame(official("tgif_qa/Test_frameqa_question.csv"))
    assert types(questions) == {"object": 5_586, "number": 3_148, "color": 3_904, "location": 1_053}


def test_tgif_count_has_answers_from_2_to_10_and_a_quarter_of_0():
    assert is_whole(tgif_count(), "tgif_count")
    counts = Counter(int(question.answers[0]) for question in tgif_count().questions)
    assert set(counts) == {0, *range(2, 11)}
    assert counts[0] == 918


def test_tgif_counts_answers_from_0_though_options_are_named_from_a1():
    first = read_action(official("tgif_qa/Test_action_question.csv")).questions[0]
    assert (first.right_option, first.answers) == (4, ("flap wings",))


def test_tgifs_quoted_fields_neither_swallow_rows_nor_keep_their_quotes(tmp_path):
    options = 'say ""no""\t"a ""b"""\tc\td\te'
    rows = [f'g{number}\t"what?\t{options}\t1\tACTION{number}' for number in range(3)]
    header = "gif_name\tquestion\ta1\ta2\ta3\ta4\ta5\tanswer\tvid_id"
    (tmp_path / "action.csv").write_text("\n".join([header, *rows]) + "\n")
    questions = read_action(tmp_path / "action.csv").questions
    assert len(questions) == 3
    assert (questions[0].question, questions[0].answers) == ('"what?', ('a "b"',))


def test_tgif_r_has_vgts_columns_and_its_own_ids(tmp_path):
    columns = ("video_id", "question", "answer", "qid", "width", "height", "a0", "a1", "a2", "a3", "a4")
    path = write_csv(tmp_path / "test.csv", columns, ("gif", "what?", 2, 7, 1, 1, *"vwxyz"))
    (question,) = read_r_action(path).questions
    assert (question.question_id, question.video_id, question.answers) == ("gif_7", "gif", ("x",))


def test_nextqa_has_the_documented_types():
    assert is_whole(nextqa_val(), "nextqa_val")
    wanted = {"CW": 1924, "CH": 683, "TN": 895, "TP": 54, "TC": 663, "DC": 177, "DL": 295, "DO": 305}
    assert types(nextqa_val()) == wanted
    folders = json.loads(official("nextqa_mc/map_vid_vidorID.json").read_text())
    assert video_rows(nextqa_val(), folders)[0]["video"] == "1106/4010069381.mp4"


def test_nextqas_copies_with_video_id_and_answers_as_text_say_the_same(tmp_path):
    official_one = write_csv(tmp_path / "a.csv", ("video", *MC_COLUMNS), ("1", "why?", 3, 0, "CW", *"vwxyz"))
    copy = write_csv(tmp_path / "b.csv", ("video_id", *MC_COLUMNS), ("1", "why?", "y", 0, "CW", *"vwxyz"))
    assert read_nextqa(official_one) == read_nextqa(copy)


@pytest.mark.parametrize(
    ("answer", "options", "told"),
    [
        (5, "vwxyz", "question 1 of a.csv: got answer: got option '5', wanted a number from 0 to 4"),
        ("q", "vwxyz", "'q', which is 0 of the options"),
        ("v", "vvxyz", "'v', which is 2 of the options"),
        (1, ["v", "w", "x", "y", ""], "options: got ''"),
    ],
)
def test_a_broken_choice_is_told_by_its_row(tmp_path, answer, options, told):
    path = write_csv(tmp_path / "a.csv", ("video", *MC_COLUMNS), ("1", "why?", answer, 0, "CW", *options))
    with pytest.raises(UserError, match=told):
        read_nextqa(path)


def test_next_oe_takes_second_answers_and_refuses_those_of_another_split(tmp_path):
    rows = [("1", "why?", "run", 0, "CW"), ("1", "is it?", "yes", 1, "DB")]
    path = write_csv(tmp_path / "test.csv", ("video", "question", "answer", "qid", "type"), *rows)
    (tmp_path / "ref.json").write_text('{"1": {"0": "walk ", "1": "yes"}}')
    assert [one.answers for one in read_nextqa_oe(path, tmp_path / "ref.json").questions] == [("run", "walk"), ("yes",)]
    (tmp_path / "ref.json").write_text('{"1": {"2": "walk"}}')
    with pytest.raises(UserError, match="answers other questions than test.csv: got 1, among them 1_2"):
        read_nextqa_oe(path, tmp_path / "ref.json")


def causal_folder(tmp_path, **changes):
    text = {kind: {"question": "why?", "answer": list("abcde")} for kind in ("descriptive", "explanatory")}
    text |= {kind: {"question": "what if?", "answer": list("abcde"), "reason": list("vwxyz")}
             for kind in ("predictive", "counterfactual")}  # fmt: skip
    answer = {kind: {"answer": 1, "reason": 2} for kind in text}
    for video in ("a_1", "b"):
        (tmp_path / "QA" / video).mkdir(parents=True)
        (tmp_path / "QA" / video / "text.json").write_text(json.dumps(text | changes))
        (tmp_path / "QA" / video / "answer.json").write_text(json.dumps(answer))
    (tmp_path / "ids.txt").write_text("a_1\nb\n")
    return tmp_path / "QA"


def test_causal_vidqa_is_six_questions_of_each_video_of_the_split(tmp_path):
    questions = read_causal_vidqa(causal_folder(tmp_path), tmp_path / "ids.txt")
    ids = [question.question_id for question in questions.questions]
    assert ids[:6] == ["a_1_d", "a_1_e", "a_1_p", "a_1_pr", "a_1_c", "a_1_cr"]
    assert len(ids) == 12
    assert [one.answers[0] for one in questions.questions[:6]] == ["b", "b", "b", "x", "b", "x"]


def test_causal_vidqas_pickle_is_never_opened_and_a_lack_is_told(tmp_path):
    folder = causal_folder(tmp_path, predictive={"question": "what if?", "answer": list("abcde")})
    with pytest.raises(UserError, match="a pickle is never opened"):
        read_causal_vidqa(folder, tmp_path / "test.pkl")
    with pytest.raises(UserError, match="questions of a_1 lack a part: got 'reason'"):
        read_causal_vidqa(folder, tmp_path / "ids.txt")
    (tmp_path / "ids.txt").write_text("c\n")
    with pytest.raises(UserError, match="has no questions: got .*QA/c"):
        read_causal_vidqa(folder, tmp_path / "ids.txt")


def test_activitynet_qa_joins_questions_and_answers_by_id(tmp_path):
    asked = [{"video_name": "a_b", "question": "is it day", "question_id": "v_a_b_3"}]
    answers = [{"answer": "yes", "type": 3, "question_id": "v_a_b_3"}]
    (tmp_path / "val_q.json").write_text(json.dumps(asked))
    (tmp_path / "val_a.json").write_text(json.dumps(answers))
    (question,) = read_activitynet_qa(tmp_path / "val_q.json", None, "val").questions
    assert (question.video_id, question.type, question.answers) == ("v_a_b", "yes_no", ("yes",))
    (tmp_path / "val_a.json").write_text(json.dumps([answers[0] | {"question_id": "v_c_1"}]))
    with pytest.raises(UserError, match="about other questions: got 2 are in one alone"):
        read_activitynet_qa(tmp_path / "val_q.json", None, "val")


def test_validation_is_held_out_by_video():
    train = QuestionSet("msvd_qa", "open_ended", tuple(replace(one, split="train") for one in msvd_qa().questions))
    held = hold_out_videos(train, 10)
    splits = {(question.video_id, question.split) for question in held.questions}
    assert Counter(split for _, split in splits) == {"val": 10, "train": 494}
    assert hold_out_videos(train, 10) == held


def test_videos_are_held_out_of_training_alone():
    both = tuple(open_question(number, split="train" if number < 4 else "test") for number in range(9))
    held = hold_out_videos(QuestionSet("small", "open_ended", both), 3)
    assert Counter(one.split for one in held.questions) == {"train": 1, "val": 3, "test": 5}
    with pytest.raises(UserError, match="no training questions to hold videos out of: got split test"):
        hold_out_videos(msvd_qa(), 10)


def test_the_command_writes_a_table_and_the_videos_rows(tmp_path):
    lines = [{"question_id": name, "video_id": "clip", "question": "who?", "answer": "man"} for name in "ab"]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = str(tmp_path / "train.parquet")
    main("own", tmp_path / "own.jsonl", output, split="train", rows=tmp_path / "rows.jsonl")
    assert [question.split for question in read_questions(Place.of(output)).questions] == ["train", "train"]
    assert json.loads((tmp_path / "rows.jsonl").read_text())["video"] == "clip.mp4"
    (tmp_path / "own.jsonl").write_text(json.dumps(lines[0] | {"question_id": "c"}))
    main("own", tmp_path / "own.jsonl", str(tmp_path / "all.parquet"), split="val", join=output)
    splits = [question.split for question in read_questions(Place.of(tmp_path / "all.parquet")).questions]
    assert splits == ["train", "train", "val"]


@pytest.mark.parametrize("name", sorted(READERS))
@pytest.mark.parametrize("content", ["", "[1, 2]", '{"a": 1}', "video,question\n1,2\n", '[{"id": 1}]', "\xff"])
def test_any_other_file_is_refused_in_one_line(tmp_path, name, content):
    path = tmp_path / "test.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError) as raised:
        main(name, path, str(tmp_path / "out.parquet"), beside=path)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out.parquet").exists()
