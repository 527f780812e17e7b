"""VGT whole: against loops over videos, clips, frames and regions; derivatives under dropout and batch statistics."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call

from mama_ray.config import with_overrides
from mama_ray.data.region_features.packing import pack_features
from mama_ray.errors import UserError
from mama_ray.models.answering import AnsweringEncoder, JointEncoder
from mama_ray.models.pretrained import from_preset, from_pretrained, save_pretrained
from mama_ray.models.vgt.model import Vgt
from mama_ray.models.vgt.presets import PRESETS
from tests.models.vgt.small import (
    NO_DROPOUT,
    features,
    frames_by_loops,
    fused_by_loops,
    padded_texts,
    small_config,
    small_model,
)

STEP = 1e-5


@pytest.mark.parametrize(("num_regions", "count"), [(5, 133_701_985), (10, 133_893_760)])
def test_published_sizes_have_the_published_number_of_parameters(num_regions, count):
    with torch.device("meta"):
        model = Vgt(with_overrides(PRESETS["vgt"], {"num_regions": num_regions}))
    assert sum(p.numel() for name, p in model.named_parameters() if name != "logit_scale") == count
    assert sum(p.numel() for p in model.amodel.bert.parameters()) == 109_482_240


def test_frames_equal_a_loop_over_clips_frames_and_regions():
    model = small_model().eval()
    video = features(model.config)
    ours = model.encode_frames(video)
    for row in range(2):
        torch.testing.assert_close(ours[row], frames_by_loops(model, video["frames"][row], video["regions"][row]))
    mean = ours.mean(dim=(1, 2))
    torch.testing.assert_close(model.encode_video(video), mean / mean.norm(dim=1, keepdim=True))


def test_features_side_by_side_in_one_tensor_are_the_same():
    model = small_model().eval()
    video = features(model.config)
    packed = torch.stack(
        [torch.from_numpy(pack_features({name: part[row].numpy() for name, part in video.items()})) for row in range(2)]
    )
    torch.testing.assert_close(model.encode_video(packed), model.encode_video(video), rtol=1e-5, atol=1e-6)
    encoded = model.encode_frames(video)
    assert isinstance(model, JointEncoder) and torch.equal(model.pool_frames(encoded), model.encode_video(video))
    with pytest.raises(UserError, match="are not of the model's shape"):
        model.encode_video(packed[..., :-1])


def test_text_feature_is_the_mean_of_the_words_without_padding():
    model = small_model().eval()
    ids = padded_texts(3, 7)
    words = [model.amodel(ids[:1, :3])[0], model.amodel(ids[1:])[0]]
    wanted = torch.stack([text.mean(dim=0) / text.mean(dim=0).norm() for text in words])
    torch.testing.assert_close(model.encode_text(ids), wanted)
    torch.testing.assert_close(model.encode_text(torch.cat([ids, torch.zeros_like(ids)[:, :3]], dim=1)), wanted)


def test_rows_filled_with_end_of_text_are_words_up_to_the_first():
    model = small_model(**{"text.pad_token_id": None}).eval()
    ids = torch.tensor([[5, 6, 39, 39, 39]])
    assert model.amodel.is_word(ids).tolist() == [[True, True, True, False, False]]
    torch.testing.assert_close(model.encode_text(ids), model.encode_text(ids[:, :3]))


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_words_are_those_of_transformers_own_model(kind):
    roberta = {"text.kind": "roberta", "text.pad_token_id": 1, "text.num_token_types": 1}
    model = small_model(**(roberta if kind == "roberta" else {})).eval()
    ids = padded_texts(3, 7)
    ids[0, 3:] = model.config.text.pad_token_id
    hidden = model.amodel.bert.bert(ids, attention_mask=model.amodel.is_word(ids).long()).last_hidden_state
    torch.testing.assert_close(model.amodel(ids), model.amodel.linear_text(hidden))


@pytest.mark.parametrize("in_frames", [False, True])
def test_scores_of_options_equal_a_loop(in_frames):
    model = small_model(sees_words_in_frames=in_frames).eval()
    video, options = features(model.config), torch.stack([padded_texts(3, 4, 2), padded_texts(6, 2, 5)])
    logits = model.answer(video, {"option_token_ids": options})
    frames = model.encode_frames(video)
    for row, length in enumerate((4, 6)):  # padding of the shorter candidates is seen, as in the release
        words = list(model.amodel(options[row]))
        fused = fused_by_loops(model, frames[row], words, length)
        torch.testing.assert_close(logits[row], torch.stack([fused @ text.mean(dim=0) for text in words]))
    other = model.answer_encoded(frames.flip(0), {"option_token_ids": options.flip(0)}).flip(0)
    torch.testing.assert_close(other, logits)


@pytest.mark.parametrize("in_frames", [False, True])
def test_scores_of_the_answer_list_are_the_product_of_video_and_question(in_frames):
    model = small_model(sees_words_in_frames=in_frames).eval()
    answers, question, video = padded_texts(2, 3, 2, width=4), padded_texts(5, 3), features(model.config)
    model.set_answers(answers)
    logits = model.answer(video, {"token_ids": question})
    encoded = model.amodel(answers).mean(dim=1)
    frames = model.encode_frames(video)
    for row, length in enumerate((5, 3)):
        words = model.amodel(question)[row]
        fused = fused_by_loops(model, frames[row], [words], length)
        wanted = [(fused @ answer) * (words.mean(dim=0) @ answer) for answer in encoded]
        torch.testing.assert_close(logits[row], torch.stack(wanted))


def test_answers_are_encoded_once_per_state_of_the_weights_and_always_in_training():
    model = small_model(**NO_DROPOUT).eval()
    video, question = features(model.config), {"token_ids": padded_texts(5, 3)}
    with pytest.raises(UserError, match="answer list"):
        model.answer(video, question)
    model.set_answers(padded_texts(2, 3, width=4))
    calls = []
    model.amodel.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    with torch.no_grad():
        first = model.answer(video, question)
        assert torch.equal(model.answer(video, question), first)
        assert calls == [2, 2, 2]  # question, answers, question
        model.amodel.linear_text.weight.add_(0.1)
        assert not torch.allclose(model.answer(video, question), first)
        other = {n: p + 0.1 for n, p in model.named_parameters()}
        before = model.answer(video, question)
        fn_video, fn_answer = functional_call(
            Called(model), {f"model.{n}": p for n, p in other.items()}, (video, question)
        )
        assert not torch.allclose(fn_answer, before) and fn_video.shape == (2, 16)
        model.set_answers(padded_texts(2, 3, 1, width=4))
        assert model.answer(video, question).shape == (2, 3)
    answered = model.answer(video, question)
    gradient = torch.autograd.grad(answered.sum(), model.amodel.linear_text.weight)[0]
    assert gradient.abs().max() > 0


class Called(torch.nn.Module):
    """Both ways through a model in one forward call."""

    def __init__(self, model: Vgt) -> None:
        super().__init__()
        self.model = model

    def forward(self, video, question):
        return self.model.encode_video(video), self.model.answer(video, question)


@pytest.mark.parametrize("task", ["options", "list"])
def test_forward_mode_equals_central_differences_under_dropout_and_batch_statistics(task):
    """One generator state for all passes, buffers by value: masks repeat, running statistics stay."""
    model = small_model(sees_words_in_frames=True)
    model.set_answers(padded_texts(2, 3, 2, width=4))
    called, video = Called(model).train(), features(model.config, batch=4)
    options = torch.stack([padded_texts(3, 4), padded_texts(6, 2), padded_texts(2, 2), padded_texts(7, 1)])
    question = {"option_token_ids": options} if task == "options" else {"token_ids": padded_texts(5, 3, 2, 7)}
    parameters = dict(called.named_parameters())
    direction = {name: torch.randn_like(p) / p.numel() ** 0.5 for name, p in parameters.items()}
    before = {name: buffer.clone() for name, buffer in called.named_buffers()}

    def run(values):
        torch.manual_seed(5)
        buffers = {name: buffer.clone() for name, buffer in called.named_buffers()}
        return functional_call(called, (values, buffers), (video, question))

    with torch.no_grad():
        ahead, behind = (
            run({name: p + sign * STEP * direction[name] for name, p in parameters.items()}) for sign in (1, -1)
        )
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(p.detach(), direction[name]) for name, p in parameters.items()}
        tangents = [forward_ad.unpack_dual(out).tangent for out in run(duals)]
    for tangent, forth, back in zip(tangents, ahead, behind, strict=True):
        assert tangent.abs().max() > 0
        torch.testing.assert_close(tangent, (forth - back) / (2 * STEP), rtol=1e-6, atol=1e-8)
    assert all(torch.equal(buffer, before[name]) for name, buffer in called.named_buffers())


def test_every_trained_weight_has_a_gradient_from_answers_and_contrast_together():
    model = small_model()
    assert isinstance(model, AnsweringEncoder)
    video, options = features(model.config), torch.stack([padded_texts(3, 4), padded_texts(6, 2)])
    loss = model.answer(video, {"option_token_ids": options}).logsumexp(dim=1).sum()
    loss = loss + (model.logit_scale.exp() * model.encode_video(video) @ model.encode_text(options[:, 0]).T).sum()
    loss.backward()
    dead = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    # Softmax does not see what all nodes share, nor a query's share in what all keys get.
    assert dead <= {n for n in dead if n.endswith(("k_lin.bias", "key.bias", "satt_pool.2.bias"))}


def test_features_of_another_number_of_regions_are_refused():
    model = small_model()
    video = features(small_config(num_regions=10))
    with pytest.raises(UserError, match=r"'regions'.*got \(3, 2, 10, 13\), wanted \(3, 2, 5, 13\)"):
        model.encode_video(video)


def test_saved_model_answers_as_before(tmp_path):
    model = small_model(sees_words_in_frames=True).float().eval()
    save_pretrained(model, tmp_path)
    loaded = from_pretrained(tmp_path)
    assert isinstance(loaded, Vgt)
    loaded.eval()
    video, options = features(model.config), padded_texts(3, 4)[None].repeat(2, 1, 1)
    assert torch.equal(
        loaded.answer(video, {"option_token_ids": options}), model.answer(video, {"option_token_ids": options})
    )
    assert loaded.config == model.config


@pytest.mark.parametrize(
    ("field", "value"), [("num_frames", 31), ("num_regions", 6), ("num_heads", 5), ("text.num_heads", 3)]
)
def test_sizes_that_do_not_divide_are_refused(field, value):
    with pytest.raises((UserError, ValueError), match="wanted a multiple"):
        from_preset("vgt_tiny", {field: value})
