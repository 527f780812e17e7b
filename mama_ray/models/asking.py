"""What a question becomes for a backbone: the arrays that its `answer` reads, and the answers that it can give."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from mama_ray.data.questions.answers import AnswerList
from mama_ray.data.questions.assemble import Ask
from mama_ray.data.questions.lengths import count_cut
from mama_ray.data.questions.question import Question
from mama_ray.data.tokenizer import Tokenizer, WordPieceTokenizer
from mama_ray.errors import UserError
from mama_ray.models.answering import ChoosesFromList
from mama_ray.models.dual_encoder import DualEncoder, DualEncoderConfig
from mama_ray.models.settings import QuestionForm
from mama_ray.models.violet.prompts import CHOICE_LENGTH, OPEN_LENGTH, answer_list, choice_prompts, open_prompts

Options = Sequence[Sequence[str]] | None


def question_form_of(config: DualEncoderConfig) -> QuestionForm:
    """Return how a model of this config is put a multiple choice."""
    return getattr(config, "question_form", "release")


def asks_like(
    model_type: str, tokenizer: Tokenizer, *, has_own_head: bool = True, form: QuestionForm = "release"
) -> Ask:
    """Return how a backbone is asked; one whose answers a head of ours gives is asked by plain texts."""
    if has_own_head and model_type == "violet":
        if not isinstance(tokenizer, WordPieceTokenizer):
            raise UserError("VIOLET's prompts need word-pieces", got="CLIP's tokenizer", wanted="BERT's tokenizer")
        return partial(_ask_violet, tokenizer, form)
    if has_own_head and model_type == "vgt":
        return partial(_ask_vgt, tokenizer, form)
    return partial(_ask_plainly, tokenizer)


def count_cut_questions(
    questions: Sequence[Question],
    tokenizer: Tokenizer,
    *,
    model_type: str,
    has_own_head: bool = True,
    form: QuestionForm = "release",
) -> int:
    """Return how many questions, or their options, lose words on their way to a model that is asked by `asks_like`."""
    if has_own_head and model_type == "violet" and isinstance(tokenizer, WordPieceTokenizer):
        texts, options = [one.question for one in questions], [one.options for one in questions]
        if any(options):
            return choice_prompts(tokenizer, texts, options, form=form).num_cut
        return open_prompts(tokenizer, texts).num_cut
    return count_cut(questions, tokenizer, num_between=int(has_own_head and model_type == "vgt"))


def asked_length(tokenizer: Tokenizer, *, model_type: str, has_options: bool, has_own_head: bool = True) -> int:
    """Return the tokens of a question as a model is asked by `asks_like`, all that stands around it included."""
    if has_own_head and model_type == "violet":
        return CHOICE_LENGTH if has_options else OPEN_LENGTH
    return tokenizer.context_length


def answers_within_reach(answers: AnswerList, model_type: str, tokenizer: Tokenizer) -> AnswerList:
    """Return the answers that a backbone can give by itself: VIOLET's are one word-piece each. Others are wrong."""
    if model_type != "violet" or not isinstance(tokenizer, WordPieceTokenizer):
        return answers
    kept, _ = answer_list(tokenizer, answers.answers)
    counts = dict(zip(answers.answers, answers.counts, strict=True))
    return AnswerList(tuple(kept), tuple(counts[answer] for answer in kept), answers.num_questions)


def answers_without_list(model_type: str, tokenizer: Tokenizer) -> AnswerList | None:
    """Return what a backbone chooses from that was given no list: VIOLET any word-piece, as its release does."""
    if model_type != "violet" or not isinstance(tokenizer, WordPieceTokenizer):
        return None
    words = tokenizer.words()
    return AnswerList(words, (0,) * len(words))


def give_answers(model: DualEncoder, answers: Sequence[str], tokenizer: Tokenizer) -> None:
    """Tell a backbone that answers by itself the list that it chooses from."""
    if isinstance(model, ChoosesFromList):
        if model.model_type == "violet":
            assert isinstance(tokenizer, WordPieceTokenizer)
            kept, token_ids = answer_list(tokenizer, answers)
            if len(kept) < len(answers):  # whose numbers would be those of other answers
                lost = next(answer for answer in answers if answer not in kept)
                raise UserError(
                    "the list has answers that VIOLET cannot give", got=f"{len(answers) - len(kept)}, such as {lost!r}",
                    wanted="answers of one word-piece", remedy="leave them out of the list: they count as wrong",
                )  # fmt: skip
        else:
            token_ids = _vgts_answers(tokenizer, answers, model.config.answer_length)
        model.set_answers(torch.from_numpy(token_ids))


def _ask_plainly(tokenizer: Tokenizer, questions: Sequence[str], options: Options) -> dict[str, np.ndarray]:
    if options is None:
        return {"token_ids": tokenizer(questions)}
    texts = [f"{question} {option}" for question, own in zip(questions, options, strict=True) for option in own]
    return {"option_token_ids": _by_question(tokenizer(texts), options)}


def _ask_violet(
    tokenizer: WordPieceTokenizer, form: QuestionForm, questions: Sequence[str], options: Options
) -> dict[str, np.ndarray]:
    if options is None:
        return open_prompts(tokenizer, questions).arrays()
    return choice_prompts(tokenizer, questions, options, form=form).arrays()


def _ask_vgt(
    tokenizer: Tokenizer, form: QuestionForm, questions: Sequence[str], options: Options
) -> dict[str, np.ndarray]:
    """Candidates are "question [SEP] option"; one that is too long loses its end, in the form fitted the question's."""
    if options is None:
        return {"token_ids": tokenizer(questions)}
    asked = tokenizer.pieces(questions)
    candidates = np.full((sum(map(len, options)), tokenizer.context_length), tokenizer.pad_id, np.int64)
    places = iter(candidates)
    for question, own in zip(asked, map(tokenizer.pieces, options), strict=True):
        for option in own:
            room = len(question) if form == "release" else max(0, tokenizer.context_length - 3 - len(option))
            pieces = [*question[:room], tokenizer.eot_id, *option][: tokenizer.context_length - 2]
            next(places)[: len(pieces) + 2] = [tokenizer.start_id, *pieces, tokenizer.eot_id]
    return {"option_token_ids": _by_question(candidates, options)}


def _vgts_answers(tokenizer: Tokenizer, answers: Sequence[str], longest: int | None) -> np.ndarray:
    """Return the list's tokens as wide as its longest answer, since VGT's mean of an answer counts the padding; `None`
    is the context, whatever the answers."""
    if longest is None:
        return tokenizer(answers)
    lengths, _ = tokenizer.measure(answers)
    return tokenizer(answers, min(longest, tokenizer.context_length, int(lengths.max())))


def _by_question(token_ids: np.ndarray, options: Sequence[Sequence[str]]) -> np.ndarray:
    return token_ids.reshape(len(options), -1, token_ids.shape[-1])
