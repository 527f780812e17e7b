"""The heads that answer on a dual encoder: what they compute, and that a folder with one loads as it was saved."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mama_ray.data.tokenizer import WordPieceTokenizer
from mama_ray.errors import UserError
from mama_ray.models.asking import asks_like
from mama_ray.models.heads.folder import HEAD_CONFIG, HEAD_WEIGHTS, capture_head, load_head, set_answers, write_head
from mama_ray.models.heads.head import AnswerHead, SimilarityHead, build_head
from mama_ray.models.heads.headed import HeadedEncoder, feature_dim, load_answering
from mama_ray.models.heads.settings import HeadConfig
from mama_ray.models.pretrained import from_preset, from_pretrained, save_pretrained

ANSWERS = ("red", "blue", "two")
SIZES = {"vocab_size": 40, "context_length": 6, "num_frames": 2}
KINDS = ("classification", "similarity", "options")


def tokenize(texts) -> np.ndarray:
    """Token ids by a rule of its own: enough for heads, which see ids alone."""
    return np.array([[1 + sum(map(ord, text)) % 30, len(text), 39] for text in texts], np.int64)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return from_preset("tiny", SIZES).to(torch.float64).eval()


def head_of(kind: str, dim: int = 64) -> AnswerHead:
    torch.manual_seed(1)
    head = build_head(HeadConfig(kind=kind, hidden_dim=8), dim, 0 if kind == "options" else len(ANSWERS))
    if isinstance(head, SimilarityHead):
        set_answers(head, ANSWERS, tokenize)
    return head.double().eval()


def asked(kind: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    frames = torch.randint(0, 256, (4, 2, 48, 48, 3), generator=generator, dtype=torch.uint8)
    if kind == "options":
        return frames, {"option_token_ids": torch.randint(1, 39, (4, 5, 3), generator=generator)}
    return frames, {"token_ids": torch.randint(1, 39, (4, 3), generator=generator)}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_logits_are_those_of_the_formula_row_by_row(encoder, kind):
    head, (frames, question) = head_of(kind), asked(kind)
    logits = HeadedEncoder(encoder, head).answer(frames, question)
    for row in range(len(frames)):
        video = encoder.encode_video(frames[row : row + 1])
        if kind == "options":
            texts = [encoder.encode_text(option[None]) for option in question["option_token_ids"][row]]
            wanted = torch.stack([head.mlp(torch.cat([video, text, video * text], 1))[0, 0] for text in texts])
        else:
            text = encoder.encode_text(question["token_ids"][row : row + 1])
            wanted = head.mlp(torch.cat([video, text, video * text], 1))[0]
        if kind == "similarity":
            answers = encoder.encode_text(torch.from_numpy(tokenize(ANSWERS)))
            fused = F.normalize(wanted, dim=0)
            wanted = torch.stack([head.log_scale.exp() * (fused @ a) * (text[0] @ a) for a in answers])
        torch.testing.assert_close(logits[row], wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_folder_with_a_head_answers_as_before_and_is_a_dual_encoder_as_before(encoder, kind, tmp_path):
    head, (frames, question) = head_of(kind), asked(kind)
    answers = () if kind == "options" else ANSWERS
    save_pretrained(encoder.float(), tmp_path)
    write_head(capture_head(head.float(), answers), tmp_path)
    loaded = load_answering(tmp_path, tokenize)
    assert isinstance(loaded, HeadedEncoder) and loaded.answers == answers
    assert json.loads((tmp_path / HEAD_CONFIG).read_text())["answers"] == list(answers)
    wanted = HeadedEncoder(encoder, head).eval().answer(frames, question)
    loaded.eval()
    assert torch.equal(loaded.answer(frames, question), wanted)
    assert torch.equal(from_pretrained(tmp_path).eval().encode_video(frames), encoder.encode_video(frames))
    encoder.double()


def test_a_dual_encoder_without_a_head_is_refused(encoder, tmp_path):
    save_pretrained(encoder, tmp_path)
    with pytest.raises(UserError, match=r"head\.json"):
        load_answering(tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"hidden_dim": 9}, "do not fit the head"),
        ({"answers": ["red"]}, "do not fit the head"),
        ({"dim": 32}, "features of 32"),
        ({"kind": "magic"}, "kind"),
        ({"answers": []}, "no answer list"),
    ],
)
def test_a_head_that_does_not_fit_is_named(damage, words, tmp_path):
    write_head(capture_head(head_of("classification"), ANSWERS), tmp_path)
    content = json.loads((tmp_path / HEAD_CONFIG).read_text())
    (tmp_path / HEAD_CONFIG).write_text(json.dumps(content | damage))
    with pytest.raises(UserError, match=words):
        load_head(tmp_path, dim=64)
    (tmp_path / HEAD_WEIGHTS).unlink()


def test_a_list_of_another_length_is_refused():
    with pytest.raises(UserError, match="answers of a head"):
        capture_head(head_of("classification"), ANSWERS[:2])
    with pytest.raises(UserError, match="answers of a head"):
        set_answers(head_of("similarity"), ANSWERS[:2], tokenize)


@torch.no_grad()
def test_a_scalar_per_option_is_a_head_of_violet_too():
    """Beside its own digits: asked by plain texts of its word-pieces, the same logit wherever an option stands."""
    tokenizer = WordPieceTokenizer.train(["what does the red one do ? jump run sit fly sleep"], 600, 12)
    torch.manual_seed(0)
    violet = from_preset(
        "violet_tiny", {"vocab_size": tokenizer.vocab_size, "context_length": 12, "num_frames": 2}
    ).eval()
    head = head_of("options", feature_dim(violet)).float()
    frames = torch.randint(0, 256, (1, 2, 48, 48, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    options = ["jump", "run", "sit", "fly", "sleep"]

    def logits(order: list[str], frames: torch.Tensor) -> torch.Tensor:
        ask = asks_like("violet", tokenizer, has_own_head=False)
        asked = {name: torch.from_numpy(values) for name, values in ask(["what does the red one do?"], [order]).items()}
        return HeadedEncoder(violet, head).answer(frames, asked)[0]

    found = logits(options, frames)
    assert found.shape == (5,) and len(found.unique()) == 5
    torch.testing.assert_close(logits(options[::-1], frames), found.flip(0), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(logits(options, 255 - frames), found, atol=1e-4)
