"""What questions become for a backbone: what is cut is counted as it is cut, and a list keeps its numbers."""

import pytest

from mama_ray.data.tokenizer import WordPieceTokenizer
from mama_ray.errors import UserError
from mama_ray.models.asking import asked_length, asks_like, count_cut_questions, give_answers
from mama_ray.models.pretrained import from_preset
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
    ids = asks_like("vgt", tokenizer)([question.question], [options])["option_token_ids"]
    assert (ids == tokenizer.pieces(["red"])[0][0]).sum(axis=-1).tolist() == [[21, 21]]
    asked = choice_question(0, num_options=2, question=question.question)
    asked = type(asked)(**vars(asked) | {"options": tuple(options), "answers": (options[0],)})
    assert count_cut_questions([asked], tokenizer, model_type="vgt") == num_cut


def test_a_list_with_answers_of_several_pieces_is_refused_where_its_numbers_would_shift(tokenizer):
    sizes = {"vocab_size": tokenizer.vocab_size}
    model = from_preset("violet_tiny", sizes)
    give_answers(model, WORDS, tokenizer)
    assert isinstance(model, Violet) and model.answer_token_ids is not None
    assert len(model.answer_token_ids) == 3
    with pytest.raises(UserError, match="answers that VIOLET cannot give: got 1, such as 'red man'"):
        give_answers(model, ("man", "red man", "runs"), tokenizer)
