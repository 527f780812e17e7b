"""The gated narrator: GPT-2 where its gates are shut, and what it sees, learns and counts where they are open."""

import pytest
import torch
import torch.nn.functional as F

from mama_ray.config import with_overrides
from mama_ray.models.narrator.load import start_gated_narrator
from mama_ray.models.narrator.model import GatedNarrator
from mama_ray.models.narrator.pooler import AttentionPooler
from mama_ray.models.narrator.presets import PRESETS
from mama_ray.models.outline import without_memory
from tests.models.narrator.small import gpt2, gpt2_folder, small_narrator, some_frames, some_tokens
from tests.models.timesformer.small import small_timesformer

TOTALS = {
    "tsf_b_gpt2": (325_140_504, 85_054_488, 1_476_864),
    "tsf_l_gpt2": (614_998_808, 85_054_488, 1_509_888),
    "tsf_b_gpt2_xl": (2_415_191_664, 737_779_248, 5_631_872),
    "tsf_l_gpt2_xl": (2_705_049_968, 737_779_248, 5_664_896),
    "tsf_l_hr_gpt2_xl": (2_459_451_232, 491_852_832, 5_664_896),
}
# Each what another GPT-2 of the hub has.
KINDS = [
    {},
    {"activation_function": "relu", "n_inner": 48},
    {"scale_attn_by_inverse_layer_idx": True},
    {"scale_attn_weights": False},
    {"tie_word_embeddings": False},
]


def outlined(name: str) -> GatedNarrator:
    with without_memory():
        return GatedNarrator(PRESETS[name])


@pytest.mark.parametrize("name", sorted(TOTALS))
def test_a_preset_has_the_published_number_of_parameters(name):
    sizes = {key: parameter.numel() for key, parameter in outlined(name).named_parameters()}
    trained = set(outlined(name).trained_parameter_names())
    pooler = sum(size for key, size in sizes.items() if key.startswith("img_"))
    assert (sum(sizes.values()), sum(sizes[key] for key in trained) - pooler, pooler) == TOTALS[name]


def test_every_preset_can_be_built_without_memory():
    assert all(parameter.is_meta for name in PRESETS for parameter in outlined(name).parameters())


@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_with_its_gates_shut_it_is_transformers_gpt2(fields, tmp_path):
    model = start_gated_narrator(small_timesformer().float(), gpt2_folder(tmp_path, **fields), cross_every=2)
    tokens = some_tokens()
    with torch.no_grad():
        theirs = gpt2(**fields)(input_ids=tokens).logits
        ours = model(model.encode_visual(some_frames()), tokens)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("gate", ["alpha_cattn", "alpha_dense"])
def test_either_gate_changes_what_is_said(gate, tmp_path):
    model = start_gated_narrator(small_timesformer().float(), gpt2_folder(tmp_path))
    visual, tokens = model.encode_visual(some_frames()), some_tokens()
    before = model(visual, tokens)
    with torch.no_grad():
        getattr(model.text_decoder.layers[1], gate).fill_(0.5)
    assert (model(visual, tokens) - before).abs().max() > 1e-3


def test_the_order_of_the_queries_changes_nothing():
    model, tokens = small_narrator(), some_tokens()
    visual = model.encode_visual(some_frames())
    before = model(visual, tokens)
    with torch.no_grad():
        model.img_queries.copy_(model.img_queries[torch.tensor([3, 0, 4, 1, 2])])
    again = model.encode_visual(some_frames())
    assert not torch.allclose(again, visual)
    torch.testing.assert_close(model(again, tokens), before, rtol=0, atol=1e-12)


def test_each_frame_is_seen_and_no_caption_sees_another_clip():
    model, tokens, frames = small_narrator(), some_tokens(), some_frames()
    before = model(model.encode_visual(frames), tokens)
    for frame in range(4):
        changed = frames.clone()
        changed[1, frame] = 255 - changed[1, frame]
        difference = (model(model.encode_visual(changed), tokens) - before).abs().amax(dim=(1, 2))
        assert difference[1] > 1e-6 and difference[0] < 1e-12 and difference[2] < 1e-12


def test_a_token_sees_those_before_it_alone():
    model, tokens = small_narrator(), some_tokens()
    visual = model.encode_visual(some_frames())
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 60
    difference = (model(visual, changed) - model(visual, tokens)).abs().amax(dim=(0, 2))
    assert difference[:5].max() < 1e-12 and difference[5:].min() > 1e-6


@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_the_named_parameters_get_gradients(checkpointing):
    model = small_narrator({"gradient_checkpointing": checkpointing}).train()
    model.freeze_but_trained_()
    logits = model(model.encode_visual(some_frames()), some_tokens())
    F.cross_entropy(logits[:, :-1].flatten(0, 1), some_tokens()[:, 1:].flatten()).backward()
    with_gradient = {name for name, one in model.named_parameters() if one.grad is not None and one.grad.any()}
    assert with_gradient == set(model.trained_parameter_names())
    expected = {"img_queries", "img_attn_pool.to_kv.weight", "img_attn_pool_norm.gamma"}
    expected |= {"text_decoder.transformer.h.2.alpha_cattn", "text_decoder.transformer.h.0.ln_cross_attn.bias"}
    assert expected < with_gradient and not any("h.1." in name for name in with_gradient)


def test_dropout_stays_active_in_training_and_repeats_under_a_seed():
    model, tokens = small_narrator().train(), some_tokens()
    visual = model.encode_visual(some_frames())
    torch.manual_seed(3)
    first = model(visual, tokens)
    torch.manual_seed(3)
    assert torch.equal(model(visual, tokens), first) and not torch.allclose(model(visual, tokens), first)


def test_the_pooler_is_attention_with_one_set_of_keys_for_all_heads():
    torch.manual_seed(0)
    pooler = AttentionPooler(12, 7, 2).double()
    with torch.no_grad():
        for parameter in pooler.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    queries, context = torch.randn(3, 12).double(), torch.randn(2, 5, 7).double()
    normed = F.layer_norm(context, (7,), pooler.context_norm.gamma)
    asked = F.layer_norm(queries, (12,), pooler.norm.gamma) @ pooler.to_q.weight.T
    for clip in range(2):
        both = normed[clip] @ pooler.to_kv.weight.T
        keys, values = both[:, :64], both[:, 64:]
        for query in range(3):
            heads = [asked[query, 64 * head : 64 * head + 64] for head in range(2)]
            rows = [torch.softmax(keys @ head / 8, dim=0) @ values for head in heads]
            expected = pooler.to_out.weight @ torch.cat(rows)
            torch.testing.assert_close(pooler(queries, context)[clip, query], expected, rtol=0, atol=1e-12)


def test_new_weights_have_gpt2s_spread_and_shut_gates():
    sizes = {"language.width": 768, "language.num_heads": 12, "language.num_layers": 2, "language.init_std": 0.02}
    model = GatedNarrator(with_overrides(PRESETS["gated_tiny"], sizes))
    block = model.text_decoder.layers[1]
    assert block.crossattention.c_attn.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert block.crossattention.c_proj.weight.std().item() == pytest.approx(0.02 / 2, rel=0.02)
    assert block.mlp_crossattention.c_proj.weight.std().item() == pytest.approx(0.02 / 2, rel=0.02)
    assert model.img_queries.std().item() == pytest.approx(768**-0.5, rel=0.05)
    assert block.alpha_cattn == 0 and block.alpha_dense == 0 and not block.crossattention.c_proj.bias.any()
    assert (block.ln_cross_attn.weight == 1).all() and (model.img_attn_pool_norm.gamma == 1).all()
