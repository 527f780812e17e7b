"""A small real corpus and a tiny model with a head: every question is answered, and the score is that of a loop."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from ray.data import DataContext
from safetensors.torch import load_file, save_file

from mama_ray.data.assemble import ClipAssembler
from mama_ray.data.index import INDEX_SCHEMA, index_row, read_index, write_index
from mama_ray.data.questions.answers import ANSWERS_NAME, build_answer_list
from mama_ray.data.questions.assemble import pairs_table
from mama_ray.data.questions.question import Question
from mama_ray.data.questions.table import QuestionSet, write_questions
from mama_ray.data.shard import write_shard
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.data.synthetic.quiz import quiz_of_index
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.evaluation.protocol import BenchmarkConfig
from mama_ray.evaluation.question_protocol import QuestionResult, measure
from mama_ray.models.clip_vip.model import ClipVip
from mama_ray.models.clip_vip.presets import PRESETS
from mama_ray.models.heads.folder import capture_head, write_head
from mama_ray.models.heads.head import build_head
from mama_ray.models.heads.headed import HeadedEncoder, feature_dim, load_answering
from mama_ray.models.heads.settings import HeadConfig
from mama_ray.models.pretrained import save_pretrained
from mama_ray.models.weight_files import HEAD_WEIGHTS
from mama_ray.orchestration.evaluation.answer import Answerer, AnswerPlan, cut_at_clips, decode_pairs
from mama_ray.orchestration.evaluation.asked import load_asked
from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.model import find_model
from mama_ray.orchestration.evaluation.questions import make_plan, predictions_of, read_answerer
from mama_ray.orchestration.evaluation.run import load_benchmark, run
from mama_ray.storage.places import Place
from tests.data.shard_factory import FACTS

CORPUS = CorpusConfig(num_train=4, num_test=5, num_val=0, num_meta=0, image_size=32)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Clips of the embedded corpus; the last test clip is broken."""
    folder = tmp_path_factory.mktemp("shards")
    made = [
        generate_clip(CORPUS, split, number) for split, count in (("train", 4), ("test", 5)) for number in range(count)
    ]
    samples = [(one.clip, one.video if place < 8 else b"no video", "mp4") for place, one in enumerate(made)]
    places = write_shard(folder / "clips.tar", samples)
    rows = [index_row(clip, place, "clips.tar", FACTS) for (clip, _, _), place in zip(samples, places, strict=True)]
    sizes = {"clips.tar": {"num_bytes": (folder / "clips.tar").stat().st_size, "num_clips": len(rows)}}
    write_index(Place.of(folder), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return folder


def index_of(shards: Path) -> pa.Table:
    return read_index(Place.of(shards))


def write_answering(folder: Path, shards: Path, kind: str) -> Path:
    """A model with random weights and a head with random weights, whose tokenizer knows the questions' words."""
    torch.manual_seed(3)
    task = "multiple_choice" if kind == "options" else "open_ended"
    train = quiz_of_index(index_of(shards), task).of_split("train")
    words = [" ".join((question.question, *question.options)) for question in train.questions]
    tokenizer = Tokenizer.train(words * 3, vocab_size=800, context_length=24)
    sizes = {"vocab_size": tokenizer.vocab_size, "context_length": tokenizer.context_length}
    model = ClipVip(PRESETS["tiny"].model_copy(update=sizes))
    save_pretrained(model, folder, tokenizer=tokenizer)
    answers = build_answer_list(train.questions) if kind != "options" else None
    head = build_head(HeadConfig(kind=kind, hidden_dim=16), feature_dim(model), len(answers or ()))
    write_head(capture_head(head, answers.answers if answers else ()), folder)
    if answers:
        (folder / ANSWERS_NAME).write_text(answers.to_json())
    return folder


def in_one_process(shards: Path, folder: Path, questions: QuestionSet) -> dict[str, int]:
    """What the model chooses, question by question and without Ray; nothing for a clip that cannot be read."""
    index, tokenizer = index_of(shards), Tokenizer.from_directory(folder)
    model = load_answering(folder, tokenizer)
    assert isinstance(model, HeadedEncoder)
    model.eval()
    transform = TransformConfig(image_size=model.config.image_size)
    clips = ClipAssembler(Place.of(shards), index, tokenizer, model.config.num_frames, transform)
    rows = {clip_id: row for row, clip_id in enumerate(index["clip_id"].to_pylist())}
    chosen = {}
    for question in questions.questions:
        batch = clips.assemble([rows[question.clip_id]])
        if not batch["valid"][0]:
            continue
        texts = [f"{question.question} {option}" for option in question.options] or [question.question]
        token_ids = torch.from_numpy(tokenizer(texts))
        asked = {"option_token_ids": token_ids[None]} if question.options else {"token_ids": token_ids}
        with torch.inference_mode():
            chosen[question.question_id] = int(model.answer(torch.from_numpy(batch["frames"]), asked).argmax())
    return chosen


def answered(shards: Path, folder: Path, name: str, batch_size: int, source: str | None = None):
    """Do what tasks and actors do, in this process; the references are the values here."""
    benchmark = load_benchmark(name)
    sizes = BenchmarkConfig(dataset=name)
    model = find_model(str(folder), sizes)
    answering = read_answerer(model)
    table, asked = load_asked(str(shards), source, benchmark)
    answers = answering.answers if benchmark.task == "open_ended" else None
    plan = AnswerPlan(
        table=None, pairs=None, batches=cut_at_clips(asked.rows, batch_size), tokenizer_files=None,
        num_choices=len(answers) if answers else 5, model_type=answering.model_type,
        has_own_head=answering.has_own_head, shards=str(shards), model=model.uri, question_length=model.text_length,
        num_frames=model.num_frames, transform=model.transform, decode=DecodeConfig(), batch_size=batch_size,
    )  # fmt: skip
    actor, pairs = Answerer(plan), pairs_table(asked, answers)
    found = pa.concat_tables(
        actor(decode_pairs(plan, table, pairs, answering.tokenizer_files, number=number))
        for number in range(len(plan.batches))
    )
    assert found["pair"].to_pylist() == list(range(len(asked)))
    valid = found["valid"].to_numpy()
    return asked, predictions_of(asked, found["choice"].to_numpy(), valid, answers), answers


@pytest.mark.parametrize(
    ("name", "kind", "task"),
    [("embedded_qa", "classification", "open_ended"), ("embedded_mc", "options", "multiple_choice")],
)
def test_every_question_is_answered_as_a_loop_does(shards, tmp_path, name, kind, task):
    folder = write_answering(tmp_path / "model", shards, kind)
    _, predictions, answers = answered(shards, folder, name, 7)
    questions = quiz_of_index(index_of(shards), task).of_split("test")
    chosen = in_one_process(shards, folder, questions)
    assert 0 < len(chosen) < len(questions)  # one clip is broken
    for question in questions.questions:
        number, found = chosen.get(question.question_id), dict(predictions)[question.question_id]
        assert found == (number if answers is None or number is None else answers.answers[number])
    assert len(predictions) == len(questions)


def test_questions_of_clips_that_are_not_there_stay_in_the_denominator(shards, tmp_path):
    folder = write_answering(tmp_path / "model", shards, "classification")
    present = quiz_of_index(index_of(shards)).of_split("test").questions
    lost = tuple(Question(f"lost{n}", "nowhere", "what?", ("red",), type="colour", split="test") for n in range(3))
    table = tmp_path / "questions.parquet"
    write_questions(Place.of(table), QuestionSet("embedded_qa", "open_ended", (*present, *lost)))
    asked, predictions, answers = answered(shards, folder, "embedded_qa", 16, str(table))
    questions = QuestionSet("embedded_qa", "open_ended", (*asked.questions, *asked.missing))
    result = measure(load_benchmark("embedded_qa"), questions, predictions, source="x", answers=answers)
    assert result.protocol.num_questions == len(present) + 3
    assert result.counts["colour"].num_questions == 5 + 3


def test_a_list_of_another_run_beside_the_head_is_refused(shards, tmp_path):
    folder = write_answering(tmp_path / "model", shards, "classification")
    answers = json.loads((folder / ANSWERS_NAME).read_text())
    (folder / ANSWERS_NAME).write_text(json.dumps(answers | {"answers": answers["answers"][::-1]}))
    model = find_model(str(folder), BenchmarkConfig(dataset="embedded_qa"))
    with pytest.raises(UserError, match=r"answers.json is not the list that the head learned"):
        read_answerer(model)


@pytest.mark.parametrize(("kind", "name"), [("classification", "embedded_mc"), ("options", "embedded_qa")])
def test_a_head_of_another_kind_of_questions_is_refused(shards, tmp_path, kind, name):
    folder = write_answering(tmp_path / "model", shards, kind)
    model = find_model(str(folder), BenchmarkConfig(dataset=name))
    _, asked = load_asked(str(shards), None, load_benchmark(name))
    job = EvaluateJob(checkpoint=str(folder), benchmark=name)
    with pytest.raises(UserError, match=f"a head of kind {kind} does not fit the benchmark"):
        make_plan(job, model, read_answerer(model), str(shards), table=None, asked=asked)


def test_scores_that_are_no_numbers_end_the_evaluation(shards, tmp_path):
    """The first of the answers would be chosen, which is right now and then."""
    folder = write_answering(tmp_path / "model", shards, "classification")
    head = load_file(folder / HEAD_WEIGHTS)
    save_file({name: torch.full_like(value, 3e38) for name, value in head.items()}, folder / HEAD_WEIGHTS)
    with pytest.raises(UserError, match="scores that are no numbers: got . of . questions of a batch"):
        answered(shards, folder, "embedded_qa", 7)


def test_questions_of_another_set_are_told(shards, tmp_path):
    with pytest.raises(UserError, match="no questions of msvd_qa: wanted their table"):
        load_asked(str(shards), None, load_benchmark("msvd_qa"))
    write_questions(Place.of(tmp_path / "q.parquet"), quiz_of_index(index_of(shards)))
    with pytest.raises(UserError, match="the questions are not of msvd_qa: got questions of embedded_qa"):
        load_asked(str(shards), str(tmp_path / "q.parquet"), load_benchmark("msvd_qa"))


@pytest.mark.ray
def test_the_job_writes_result_and_predictions(ray_cluster, shards, tmp_path, capsys, monkeypatch):
    # Far below a batch's bytes, as Ray Data's own limit of 128 MiB is below those of large pictures.
    monkeypatch.setattr(DataContext.get_current(), "target_max_block_size", 4096)
    folder = write_answering(tmp_path / "model", shards, "classification")
    line = run(EvaluateJob(checkpoint=str(folder), shards=str(shards), benchmark="embedded_qa", batch_size=7))
    result = QuestionResult.from_json((folder / "evaluation" / "embedded_qa.json").read_text())
    written = json.loads((folder / "evaluation" / "embedded_qa_predictions.json").read_text())
    _, predictions, answers = answered(shards, folder, "embedded_qa", 7)
    numbers = {name: answers.numbers.get(chosen, -1) for name, chosen in predictions}
    assert {name: record["prediction"] for name, record in written.items()} == numbers
    questions = quiz_of_index(index_of(shards)).of_split("test")
    alone = measure(load_benchmark("embedded_qa"), questions, predictions, source="x", answers=answers)
    assert result.metrics == alone.metrics
    assert result.protocol.num_missing == 5  # the questions of the broken clip
    assert (result.checkpoint is not None, len(result.examples)) == (True, 6)
    assert "embedded_qa test: 25 open_ended questions" in capsys.readouterr().out
    assert line.endswith("embedded_qa.json")


def test_pairs_are_cut_between_clips_where_that_is_possible():
    rows = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2, 3])
    assert cut_at_clips(rows, 5) == ((0, 5), (5, 10), (10, 12))
    assert cut_at_clips(rows, 3) == ((0, 3), (3, 5), (5, 8), (8, 11), (11, 12))
    assert cut_at_clips(rows, 100) == ((0, 12),)
