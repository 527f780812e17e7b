"""VIOLET's fusion, answers and derivatives, and the sizes of its release."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from mama_ray.errors import UserError
from mama_ray.models.answering import JointEncoder
from mama_ray.models.pretrained import preset
from mama_ray.models.violet.model import Violet, VioletConfig
from mama_ray.models.violet.presets import PRESETS
from mama_ray.weighting.directional import directional_pass
from mama_ray.weighting.tape import Tape
from tests.models.violet.small import SMALL, small_violet, some_frames, some_prompts

STEP = 1e-5


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_release_has_the_specified_numbers_of_parameters():
    with torch.device("meta"):
        model = Violet(preset("violet_v2"))
    parts = {"enc_img": 88_585_160, "enc_txt": 23_837_184, "trsfr": 85_054_464, "fc_mtm": 24_063_546}
    assert {name: num_parameters(getattr(model, name)) for name in parts} == parts
    assert num_parameters(model.enc_img.swin) == 87_638_984
    assert sum(parts.values()) + model.emb_task.numel() == 221_548_034
    assert num_parameters(model) == 221_548_034 + 14_634_497


def test_a_clip_of_5_frames_is_250_tokens():
    config = PRESETS["violet_v2"]
    side = config.image_size // config.video.stride
    assert config.num_frames * (1 + side**2) == 250
    model = small_violet()
    assert model.enc_img(some_frames(SMALL)).shape == (3, 3 * (1 + 4), 12)


@torch.no_grad()
def test_fusion_equals_transformers_encoder_under_the_same_padding_mask():
    from transformers import BertConfig, BertModel

    model, frames, prompts = small_violet().eval(), some_frames(SMALL), some_prompts()
    config = BertConfig(vocab_size=40, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48)
    bert = BertModel(config, add_pooling_layer=False).double().eval()
    bert.encoder.load_state_dict(model.trsfr.state_dict())
    ids = prompts["token_ids"]
    tokens = torch.cat([model.enc_img(frames), model.enc_txt.emb_txt(ids)], dim=1)
    seen = torch.cat([torch.ones(3, 15), (ids != 0).float()], dim=1)
    unseen = (1 - seen.double())[:, None, None] * torch.finfo(torch.float64).min
    wanted = bert.encoder(tokens, attention_mask=unseen).last_hidden_state[:, 15:]
    ours = model.fuse(model.encode_frames(frames), ids)
    torch.testing.assert_close(ours[ids != 0], wanted[ids != 0])


def test_frames_and_words_have_places_and_each_frame_its_own():
    model, frames = small_violet().eval(), some_frames(SMALL)
    tokens = model.enc_img(frames.flip(1)).unflatten(1, (3, 5)).flip(1).flatten(1, 2)
    assert not torch.allclose(model.enc_img(frames), tokens)
    assert not torch.allclose(model.enc_img(frames)[:, 0], model.enc_img(frames)[:, 5])


def test_padding_of_a_prompt_changes_no_answer():
    model, frames, prompts = small_violet().eval(), some_frames(SMALL), some_prompts()
    longer = prompts | {"token_ids": torch.nn.functional.pad(prompts["token_ids"], (0, 3))}
    torch.testing.assert_close(model.answer(frames, longer), model.answer(frames, prompts))


def test_answers_are_those_of_the_list_and_options_those_of_their_digits():
    model, frames, prompts = small_violet().eval(), some_frames(SMALL), some_prompts()
    assert isinstance(model, JointEncoder)
    words = model.answer(frames, prompts)
    assert words.shape == (3, 40)
    model.set_answers(torch.tensor([7, 3]))
    assert torch.equal(model.answer(frames, prompts), words[:, [7, 3]])
    assert "answer_token_ids" not in model.state_dict()
    digits = torch.tensor([[5, 6], [6, 5], [5, 6]])
    assert torch.equal(model.answer(frames, prompts | {"digit_token_ids": digits}), words.gather(1, digits))
    model.set_answers(None)
    assert torch.equal(model.answer(frames, prompts), words)


def test_questions_of_one_clip_share_its_encoding():
    model, frames = small_violet().eval(), some_frames(SMALL)
    prompts, clips = some_prompts(), torch.tensor([1, 1, 2])
    encoded = model.encode_frames(frames)
    torch.testing.assert_close(model.answer_encoded(encoded[clips], prompts), model.answer(frames[clips], prompts))
    torch.testing.assert_close(model.pool_frames(encoded), model.encode_video(frames))


def test_half_precision_weights_answer_in_float32():
    model = small_violet().eval().to(torch.bfloat16)
    assert model.answer(some_frames(SMALL), some_prompts()).dtype == torch.float32


def test_an_answer_sees_the_clip_and_the_question():
    model, frames, prompts = small_violet().eval(), some_frames(SMALL), some_prompts()
    answers = model.answer(frames, prompts)
    assert not torch.allclose(answers, model.answer(frames.flip(0), prompts))
    other = prompts | {"token_ids": torch.where(prompts["token_ids"] == 0, 0, 39)}
    assert not torch.allclose(answers, model.answer(frames, other))


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_forward_mode_of_answers_with_dropout_equals_a_finite_difference(rate):
    model = small_violet({"dropout": rate, "video.drop_path": rate}).train()
    frames, prompts = some_frames(SMALL, 4), some_prompts(4)
    direction = {name: torch.randn_like(p) / p.numel() ** 0.5 for name, p in model.named_parameters()}

    class Answers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            torch.manual_seed(3)  # the same masks in every pass of a step
            return self.model.answer(frames, prompts)

    def answers_at(parameters):
        return functional_call(Answers(), {f"model.{name}": p for name, p in parameters.items()}, ())

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        forth, back = (
            answers_at({name: p + sign * STEP * direction[name] for name, p in model.named_parameters()})
            for sign in (1, -1)
        )
        wanted = (forth - back) / (2 * STEP)
    duals = lambda: {  # noqa: E731 - dual numbers belong to the level in which they are made
        name: forward_ad.make_dual(p.detach(), direction[name]) for name, p in model.named_parameters()
    }
    with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(answers_at(duals())).tangent
    torch.testing.assert_close(tangent, wanted, rtol=1e-6, atol=1e-8)
    tape = Tape()
    with tape.record():
        answers_at(dict(model.named_parameters()))
    with directional_pass(tape):
        tangent = forward_ad.unpack_dual(answers_at(duals())).tangent
    torch.testing.assert_close(tangent, wanted, rtol=1e-6, atol=1e-8)


def test_every_part_that_is_used_has_a_gradient():
    model = small_violet().train()
    frames, prompts = some_frames(SMALL), some_prompts()
    video, text = model(frames, prompts["token_ids"])
    loss = (
        model.answer(frames, prompts).logsumexp(1).sum() + (model.logit_scale.exp() * video @ text.T).logsumexp(1).sum()
    )
    loss.backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert without == {"enc_img.emb_odr", "emb_task"}
    assert not any(parameter.requires_grad for parameter in (model.enc_img.emb_odr, model.emb_task))


def test_what_does_not_fit_is_refused():
    model, prompts = small_violet(), some_prompts()
    side = SMALL.image_size
    with pytest.raises(UserError, match="got 5, wanted at most 4"):
        model.answer(torch.zeros(3, 5, side, side, 3, dtype=torch.uint8), prompts)
    assert model.encode_video(torch.zeros(1, 5, side, side, 3, dtype=torch.uint8)).shape == (1, 6)
    with pytest.raises(UserError, match="no word-piece"):
        model.set_answers(torch.tensor([3, -1]))
    with pytest.raises(UserError, match="prompts"):
        model.answer(some_frames(SMALL), {"option_token_ids": torch.ones(3, 5, 9, dtype=torch.long)})
    with pytest.raises(UserError, match="mlm_head"):
        small_violet({"mlm_head": False}).answer(some_frames(SMALL), prompts)


@pytest.mark.parametrize(
    "wrong",
    [{"image_size": 200}, {"image_size": 480}, {"num_frames": 7}, {"context_length": 513}, {"pad_id": 30522}],
)
def test_config_that_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VioletConfig(**wrong)


def test_a_narrow_models_linear_layers_keep_the_size_of_what_they_read_and_a_wide_ones_start_as_bert_does():
    torch.manual_seed(0)
    narrow, wide = (
        Violet(PRESETS["violet_tiny"].model_copy(update={"linear_init": way})) for way in ("fan_in", "bert")
    )
    for name, module in narrow.named_modules():
        if isinstance(module, torch.nn.Linear) and name.startswith(("enc_img", "trsfr", "text_tower")):
            assert float(module.weight.detach().std()) == pytest.approx(module.in_features**-0.5, rel=0.1)
            assert float(wide.get_submodule(name).weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert float(narrow.fc_mtm.predictions.decoder.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert PRESETS["violet_v2"].linear_init == "bert"
