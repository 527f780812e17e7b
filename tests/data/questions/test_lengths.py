"""Questions over the limit are counted, also those that only an option makes too long."""

from mama_ray.data.questions.lengths import count_cut, tell_cut
from mama_ray.data.tokenizer import Tokenizer
from tests.data.questions.small_sets import choice_question, open_question


def test_questions_over_the_limit_are_counted_and_told(caplog):
    tokenizer = Tokenizer.train(["which?"], vocab_size=600, context_length=20)
    assert count_cut([open_question(0), choice_question(1)], tokenizer) == 0
    tell_cut(0, 2, 20)
    assert not caplog.records
    long = [
        open_question(0, question="what is this " * 12),
        choice_question(1, question="which of these things is it?"),
    ]
    assert count_cut([open_question(2), *long], tokenizer) == 2
    tell_cut(2, 3, 20)
    assert "2 of 3 questions are longer than 20 tokens and lose their end" in caplog.text
