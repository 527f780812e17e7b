"""VGT's released files: strict in, byte for byte out; and the folders of language models."""

import random

import pytest
import torch
from safetensors.torch import save_file

from mama_ray.errors import UserError
from mama_ray.models.pretrained import from_pretrained
from mama_ray.models.vgt.key_layouts import DROPPED_KEYS, release_keys, to_release_layout
from mama_ray.models.vgt.load import (
    build_on_language_model,
    export_vgt_release,
    import_vgt_release,
    load_language_model,
)
from mama_ray.models.vgt.model import Vgt, VgtConfig
from tests.models.vgt.small import small_config, small_model


def random_release(seed: int) -> tuple[VgtConfig, dict[str, torch.Tensor]]:
    """A file's content of random sizes and weights, in the release's layout."""
    draw = random.Random(seed)
    is_roberta = seed % 5 == 4
    config = small_config(
        **{"text.width": 64, "text.num_heads": 1, "text.num_layers": draw.randint(1, 2)},
        **{"text.num_positions": draw.randint(8, 20), "text.ff_width": draw.choice((24, 40))},
        **{"text.kind": "roberta" if is_roberta else "bert", "text.num_token_types": 1 if is_roberta else 2},
        **{"text.pad_token_id": 1 if is_roberta else 0, "text.layer_norm_eps": 1e-5 if is_roberta else 1e-12},
        **{"num_heads": 8, "width": 8 * draw.randint(1, 3)},
        **{"num_regions": draw.choice((5, 10)), "num_layers": draw.randint(1, 2), "vocab_size": draw.randint(5, 30)},
        **{"edge_transformer": draw.choice(("graph_trans", "graph_trans_n"))},
        **{"has_pretraining_heads": draw.random() < 0.5, "region_dim": draw.randint(3, 9)},
        **{"num_clips": 8, "num_frames": 32, "context_length": 38, "answer_length": 5, "logit_scale.init": 4.6},
        **{"box_width": 4},
    )
    torch.manual_seed(seed)
    state = to_release_layout(Vgt(config).state_dict())
    return config, {key: _like(tensor) for key, tensor in state.items()}


def _like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.randint(0, 99, tensor.shape) if tensor.dtype == torch.int64 else torch.randn(tensor.shape)


@pytest.mark.parametrize("first", range(0, 50, 10))
def test_random_releases_come_out_byte_for_byte(first, tmp_path):
    for seed in range(first, first + 10):
        config, content = random_release(seed)
        save_file(content, tmp_path / "in.safetensors", metadata={"format": "pt"})
        model, report = import_vgt_release(tmp_path / "in.safetensors")
        assert model.config == config
        assert (report.fresh, report.dropped) == (("logit_scale",), ())
        assert {f"module.{key}" for key in release_keys(config)} == set(content)
        export_vgt_release(model, tmp_path / "out.safetensors")
        assert (tmp_path / "out.safetensors").read_bytes() == (tmp_path / "in.safetensors").read_bytes()


@pytest.mark.parametrize("seed", range(10))
def test_one_key_more_one_less_and_another_shape_are_refused_by_name(seed, tmp_path):
    _, content = random_release(seed)
    draw = random.Random(seed)
    key = draw.choice(sorted(key for key in content if content[key].dim() and "layer.0" not in key))
    name = key.removeprefix("module.")
    shape = (*content[key].shape[:-1], content[key].shape[-1] + 1)
    wrong = {
        "one more": content | {"module.adapter.weight": torch.zeros(2)},
        "one less": {other: tensor for other, tensor in content.items() if other != key},
        "another shape": content | {key: torch.zeros(shape)},
    }
    for what, changed in wrong.items():
        save_file(changed, tmp_path / "in.safetensors")
        with pytest.raises(UserError, match="adapter" if what == "one more" else None) as refused:
            import_vgt_release(tmp_path / "in.safetensors")
        # A size that everything hangs on is told by what no longer fits it.
        sizes = ("word_embeddings", "bbox_conv.0", "tohid", "linear_video", "position_embeddings", "token_type")
        if not any(size in name for size in sizes):
            assert what == "one more" or name in str(refused.value)


def test_only_the_named_buffer_is_dropped_and_half_precision_widened(tmp_path):
    _, content = random_release(0)
    half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in content.items()}
    buffers = {f"module.{key}": torch.arange(512)[None] for key in DROPPED_KEYS}
    torch.save(half | buffers, tmp_path / "vgt.pth")
    model = from_pretrained(tmp_path / "vgt.pth", sees_words_in_frames=True)
    assert isinstance(model, Vgt) and model.config.sees_words_in_frames
    for key, tensor in model.state_dict().items():
        if key != "logit_scale":
            assert tensor.dtype in (torch.float32, torch.int64)
            assert torch.equal(tensor, half[f"module.{key}"].to(tensor.dtype)), key
    _, report = import_vgt_release(tmp_path / "vgt.pth")
    assert report.dropped == DROPPED_KEYS


def test_prefix_before_some_keys_only_is_refused(tmp_path):
    _, content = random_release(0)
    first = sorted(content)[0]
    save_file(
        {key.removeprefix("module.") if key == first else key: t for key, t in content.items()},
        tmp_path / "in.safetensors",
    )
    with pytest.raises(UserError, match=first.removeprefix("module.")):
        import_vgt_release(tmp_path / "in.safetensors")


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_language_model_of_a_folder_takes_its_place_whatever_its_head(kind, tmp_path):
    from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaModel

    sizes = dict(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
    if kind == "bert":
        theirs = BertForMaskedLM(BertConfig(**sizes, max_position_embeddings=12))
        inner = theirs.bert
    else:
        inner = theirs = RobertaModel(RobertaConfig(**sizes, max_position_embeddings=14, type_vocab_size=1))
    theirs.save_pretrained(tmp_path)
    model = build_on_language_model(small_config(), tmp_path).eval()
    ids = torch.randint(2, 30, (2, 6))
    with torch.no_grad():
        wanted = inner.eval()(ids).last_hidden_state
        torch.testing.assert_close(model.amodel(ids), model.amodel.linear_text(wanted))
    with pytest.raises(UserError, match="do not fit|is no"):
        load_language_model(small_model(), tmp_path)
