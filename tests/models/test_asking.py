"""What questions become for a backbone: what is cut is counted as it is cut, and a list keeps its numbers."""

import json

import pytest

from mama_ray.data.tokenizer import WordPieceTokenizer
from mama_ray.errors import UserError
from mama_ray.models.asking import asked_length, asks_like, count_cut_questions, give_answers, question_form_of
from mama_ray.models.pretrained import describe_model, from_preset, from_pretrained, save_pretrained
from mama_ray.models.vgt.model import Vgt
from mama_ray.models.violet.model import Violet
from tests.data.questions.small_sets import choice_question, open_question

WORDS = ("red", "man", "runs")


@pytest.fixture(scope="module")
def tokenizer() -> WordPieceTokenizer:
    learned = ["answer: option 0: 1: 2: 3: 4:", *WORDS] * 20
    return WordPieceTokenizer.train(learned, vocab_size=300, context_length=26)


@pytest.mark.parametrize(("num_words", "num_cut"), [(24, 0), (25, 1)])
def test_violets_open_questions_are_cut_at_24_pieces_whatever_the_context(tokenizer, num_words, num_cut):
    question = open_question(0, question=" ".join(["red"] * num_words))
    (ids,) = asks_like("violet", tokenizer)([question.question], None)["token_ids"]
    assert sum(ids == tokenizer.pieces(["red"])[0][0]) == 24
    assert count_cut_questions([question], tokenizer, model_type="violet") == num_cut
    assert asked_length(tokenizer, model_type="violet", has_options=False) == len(ids)


@pytest.mark.parametrize(("num_words", "num_cut"), [(20, 0), (21, 1)])
def test_vgts_candidates_are_cut_where_three_special_tokens_leave_no_room(tokenizer, num_words, num_cut):
    options = ["red man runs"] * 2
    question = choice_question(0, num_options=2, question=" ".join(["red"] * num_words))
    (red,), (runs,) = tokenizer.pieces(["red", "runs"])
    for form, num_red, num_runs in (("release", num_words + 1, 1 - num_cut), ("fitted", 21, 1)):
        ids = asks_like("vgt", tokenizer, form=form)([question.question], [options])["option_token_ids"]
        assert (ids == red).sum(axis=-1).tolist() == [[num_red] * 2], form
        assert (ids == runs).sum(axis=-1).tolist() == [[num_runs] * 2], form
    asked = choice_question(0, num_options=2, question=question.question)
    asked = type(asked)(**vars(asked) | {"options": tuple(options), "answers": (options[0],)})
    assert count_cut_questions([asked], tokenizer, model_type="vgt") == num_cut


def test_vgts_answers_are_as_wide_as_the_longest_of_at_most_five_tokens(tokenizer):
    model = from_preset("vgt_tiny", {"vocab_size": tokenizer.vocab_size, "answer_length": 5})
    assert isinstance(model, Vgt)
    (red,), (man,) = tokenizer.pieces(["red", "man"])
    give_answers(model, ("red", "red man"), tokenizer)
    start, end, pad = tokenizer.start_id, tokenizer.eot_id, tokenizer.pad_id
    assert model.answers.token_ids.tolist() == [[start, red, end, pad], [start, red, man, end]]
    give_answers(model, ("red", "red man red man"), tokenizer)
    assert model.answers.token_ids.tolist() == [[start, red, end, pad, pad], [start, red, man, red, end]]


@pytest.mark.parametrize(("preset", "now"), [("violet_tiny", {}), ("vgt_tiny", {"answer_length": 5})])
def test_a_folder_of_before_is_asked_as_its_model_learned(preset, now, tokenizer, tmp_path):
    model = from_preset(preset, {"vocab_size": tokenizer.vocab_size} | now)
    save_pretrained(model, tmp_path)
    assert question_form_of(from_pretrained(tmp_path).config) == "release"
    content = json.loads((tmp_path / "config.json").read_text())
    for name in ("question_form", "answer_length"):
        content.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(content))
    for config in (from_pretrained(tmp_path).config, describe_model(tmp_path)):
        assert question_form_of(config) == "fitted" and getattr(config, "answer_length", None) is None


def test_a_list_with_answers_of_several_pieces_is_refused_where_its_numbers_would_shift(tokenizer):
    sizes = {"vocab_size": tokenizer.vocab_size}
    model = from_preset("violet_tiny", sizes)
    give_answers(model, WORDS, tokenizer)
    assert isinstance(model, Violet) and model.answer_token_ids is not None
    assert len(model.answer_token_ids) == 3
    with pytest.raises(UserError, match="answers that VIOLET cannot give: got 1, such as 'red man'"):
        give_answers(model, ("man", "red man", "runs"), tokenizer)
