"""VIOLET under a benchmark without a list of answers, as a released fine-tuning comes."""

from pathlib import Path

import pytest
import torch

from mama_ray.data.assemble import ClipAssembler
from mama_ray.data.index import read_index
from mama_ray.data.questions.assemble import pairs_table
from mama_ray.data.synthetic.quiz import quiz_of_index
from mama_ray.data.tokenizer import WordPieceTokenizer
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.evaluation.protocol import BenchmarkConfig
from mama_ray.models.pretrained import from_preset, save_pretrained
from mama_ray.models.violet.model import Violet
from mama_ray.models.violet.prompts import open_prompts
from mama_ray.orchestration.evaluation.answer import Answerer, AnswerPlan, cut_at_clips, decode_pairs
from mama_ray.orchestration.evaluation.asked import load_asked
from mama_ray.orchestration.evaluation.model import find_model
from mama_ray.orchestration.evaluation.questions import read_answerer
from mama_ray.orchestration.evaluation.run import load_benchmark
from mama_ray.storage.places import Place
from tests.orchestration.training.question_clips import write_clips


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "shards"
    return Path(write_clips(folder, captioned=True, is_embedded=True, num_train=6, measured="test"))


def test_without_a_list_any_word_piece_is_an_answer(shards, tmp_path):
    questions = quiz_of_index(read_index(Place.of(shards))).questions
    texts = ["answer:", *(" ".join((one.question, *one.answers)) for one in questions)]
    tokenizer = WordPieceTokenizer.train(texts, vocab_size=600, context_length=32)
    torch.manual_seed(0)
    violet = from_preset("violet_tiny", {"vocab_size": tokenizer.vocab_size}).eval()
    assert isinstance(violet, Violet)
    save_pretrained(violet, tmp_path, tokenizer)

    model = find_model(str(tmp_path), BenchmarkConfig(dataset="embedded_qa"))
    answerer = read_answerer(model, is_open=True)
    table, asked = load_asked(str(shards), None, load_benchmark("embedded_qa"))
    answers = answerer.answers
    assert answers is not None and len(answers) == tokenizer.vocab_size
    assert [answers.answers[number] for (number,) in tokenizer.pieces(["answer", "yes"])] == ["answer", "yes"]
    assert read_answerer(model).answers is None  # of a multiple choice
    plan = AnswerPlan(
        table=None, pairs=None, batches=cut_at_clips(asked.rows, 16), num_choices=len(answers), tokenizer_files=None,
        model_type="violet", has_own_head=True, shards=str(shards), model=model.uri, question_length=model.text_length,
        num_frames=model.num_frames, transform=model.transform, decode=DecodeConfig(), batch_size=16,
    )  # fmt: skip
    decoded = decode_pairs(plan, table, pairs_table(asked, answers), answerer.tokenizer_files, number=0)
    found = Answerer(plan)(decoded).to_pydict()
    clips = ClipAssembler(Place.of(shards), table, tokenizer, model.num_frames, model.transform)
    for pair, choice in zip(found["pair"], found["choice"], strict=True):
        frames = torch.from_numpy(clips.assemble(asked.rows[[pair]])["frames"])
        prompts = open_prompts(tokenizer, [asked.questions[pair].question]).arrays()
        with torch.inference_mode():
            logits = violet.answer(frames, {name: torch.from_numpy(values) for name, values in prompts.items()})
        assert int(logits.argmax()) == choice
        assert tokenizer.words()[choice] == answers.answers[choice]
    assert len(set(found["choice"])) > 1
