"""VGT under a benchmark: it answers from a table of features, and what does not fit is one line."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mama_ray.data.index import read_index
from mama_ray.data.questions.answers import ANSWERS_NAME, build_answer_list
from mama_ray.data.questions.assemble import pairs_table
from mama_ray.data.region_features.table import FeatureTable
from mama_ray.data.synthetic.quiz import quiz_of_index
from mama_ray.data.tokenizer import WordPieceTokenizer
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.errors import UserError
from mama_ray.evaluation.protocol import BenchmarkConfig
from mama_ray.models.clip_vip.model import ClipVip
from mama_ray.models.clip_vip.presets import PRESETS
from mama_ray.models.heads.headed import load_answering
from mama_ray.models.pretrained import from_preset, save_pretrained
from mama_ray.models.vgt.model import Vgt
from mama_ray.orchestration.evaluation.answer import Answerer, AnswerPlan, cut_at_clips, decode_pairs
from mama_ray.orchestration.evaluation.asked import load_asked
from mama_ray.orchestration.evaluation.model import find_model
from mama_ray.orchestration.evaluation.questions import predictions_of, read_answerer
from mama_ray.orchestration.evaluation.run import load_benchmark
from mama_ray.storage.places import Place
from tests.data.region_features.random_table import write_random_features
from tests.orchestration.training.question_clips import write_clips

SIZES = BenchmarkConfig(dataset="embedded_qa")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "shards"
    return Path(write_clips(folder, captioned=True, is_embedded=True, num_train=6, measured="test"))


@pytest.fixture(scope="module")
def features(shards, tmp_path_factory) -> Path:
    return write_random_features(tmp_path_factory.mktemp("features"), shards)


@pytest.fixture(scope="module")
def vgt(shards, tmp_path_factory) -> Path:
    """A model with random weights and the list of its answers."""
    folder = tmp_path_factory.mktemp("model")
    train = quiz_of_index(read_index(Place.of(shards))).of_split("train").questions
    answers = build_answer_list(train)
    texts = [" ".join((one.question, *one.answers)) for one in train]
    tokenizer = WordPieceTokenizer.train(texts, vocab_size=600, context_length=32)
    torch.manual_seed(0)
    save_pretrained(from_preset("vgt_tiny", {"vocab_size": tokenizer.vocab_size}), folder, tokenizer)
    (folder / ANSWERS_NAME).write_text(answers.to_json())
    return folder


def test_questions_are_answered_from_features_as_a_loop_does(shards, features, vgt):
    model = find_model(str(vgt), SIZES, features=str(features))
    answerer, benchmark = read_answerer(model), load_benchmark("embedded_qa")
    table, asked = load_asked(str(shards), None, benchmark)
    answers = answerer.answers
    plan = AnswerPlan(
        table=None, pairs=None, batches=cut_at_clips(asked.rows, 16), num_choices=len(answers), tokenizer_files=None,
        model_type="vgt", has_own_head=True, shards="nowhere", model=model.uri, question_length=model.text_length,
        num_frames=model.num_frames, transform=model.transform, decode=DecodeConfig(), batch_size=16,
        features=model.features, num_regions=model.num_regions,
    )  # fmt: skip
    actor, pairs = Answerer(plan), pairs_table(asked, answers)
    found = actor(decode_pairs(plan, table, pairs, answerer.tokenizer_files, number=0)).to_pydict()
    predicted = dict(predictions_of(asked, np.array(found["choice"]), np.array(found["valid"]), answers))

    tokenizer = WordPieceTokenizer.from_directory(vgt)
    alone = load_answering(vgt, tokenizer, trained_only=True)
    assert isinstance(alone, Vgt)
    alone.eval().set_answers(torch.from_numpy(tokenizer(answers.answers)))
    records = {row["clip_id"]: row for row in table.select(["clip_id", "sha256"]).to_pylist()}
    for question in asked.questions:
        read = FeatureTable(Place.of(features)).read(
            question.clip_id, records[question.clip_id]["sha256"], num_regions=5
        )
        frames = {name: torch.from_numpy(values.copy())[None] for name, values in read.items()}
        with torch.inference_mode():
            logits = alone.answer(frames, {"token_ids": torch.from_numpy(tokenizer([question.question]))})
        assert predicted[question.question_id] == answers.answers[int(logits.argmax())]
    assert model.sampling.startswith("features of the table ")


def test_features_and_model_must_be_of_each_other(features, vgt, tmp_path):
    with pytest.raises(UserError, match="VGT reads features: got no features"):
        find_model(str(vgt), SIZES)
    tokenizer = WordPieceTokenizer.from_directory(vgt)
    config = PRESETS["tiny"].model_copy(update={"vocab_size": tokenizer.vocab_size, "context_length": 32})
    save_pretrained(ClipVip(config), tmp_path, tokenizer)
    with pytest.raises(UserError, match="features is for a model that reads features: got a model that reads pixels"):
        find_model(str(tmp_path), SIZES, features=str(features))
