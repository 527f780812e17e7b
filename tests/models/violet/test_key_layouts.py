"""Files in the release's layout: in whole, out byte for byte, refused for a key more, a key less, another shape."""

import dataclasses
import re
from functools import lru_cache

import pytest
import torch
from safetensors.torch import load_file, save_file

from mama_ray.errors import UserError
from mama_ray.models.pretrained import from_pretrained
from mama_ray.models.violet.key_layouts import OWN_PARTS, ReleasedModel, read_release
from mama_ray.models.violet.load import export_violet_release, import_violet_release, import_with_form
from mama_ray.models.violet.model import Violet
from tests.models.violet.small import SMALL, small_violet

BIASES = ("fc_mtm.predictions.bias", "fc_mtm.predictions.decoder.bias")


@lru_cache
def layout() -> dict[str, torch.Tensor]:
    return ReleasedModel(small_violet().float()).state_dict()


def release_file(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights in the release's layout, with the buffers that its files carry."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: value if key.endswith("_index") else torch.randn(value.shape, generator=generator)
        for key, value in layout().items()
    }
    places = {"enc_txt.emb_txt.position_ids": torch.arange(12)[None]} if seed % 2 else {}
    return state | {BIASES[0]: state[BIASES[1]].clone()} | places


def write(state: dict[str, torch.Tensor], path) -> None:
    torch.save(state, path) if path.suffix == ".pt" else save_file(state, path)


def read(path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True) if path.suffix == ".pt" else load_file(path)


def assert_same_bytes(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype and ours[key].shape == value.shape, key
        assert ours[key].contiguous().view(torch.uint8).equal(value.contiguous().view(torch.uint8)), key


def test_50_random_files_come_in_whole_and_go_out_byte_for_byte(tmp_path):
    for seed in range(50):
        path, again = (tmp_path / f"{name}{'.pt' if seed % 3 else '.safetensors'}" for name in ("in", "out"))
        state = release_file(seed)
        write(state, path)
        model, report, form = import_with_form(path, config=SMALL)
        assert set(report.dropped) == {key for key in state if key.endswith(("_index", "position_ids"))}
        assert all(key.startswith(OWN_PARTS) for key in report.fresh)
        own = model.state_dict()
        assert set(own) - set(state) == set(report.fresh)
        assert all(torch.equal(own[key], state[key]) for key in own if key in state)
        export_violet_release(model, again, form)
        assert_same_bytes(read(again), state)


def test_a_key_less_and_a_key_of_another_shape_are_refused_by_name():
    state = release_file(1)
    with torch.device("meta"):
        model = Violet(SMALL)
    for key, value in state.items():
        absent = {name: tensor for name, tensor in state.items() if name != key}
        if key != "enc_txt.emb_txt.position_ids":  # a buffer that newer files do not have
            with pytest.raises(UserError, match=re.escape(key)):
                read_release(model, absent, source="violet.pt")
        with pytest.raises(UserError, match=re.escape(key)):
            read_release(model, absent | {key: torch.cat([value, value])}, source="violet.pt")


@pytest.mark.parametrize(
    "key",
    ["enc_img.swin.layers.0.blocks.2.norm1.weight", "trsfr.layer.2.output.dense.bias", "fc.1.weight", "logit_scale"],
)
def test_a_key_more_is_refused_by_name(key, tmp_path):
    write(release_file() | {key: torch.zeros(3)}, tmp_path / "violet.pt")
    with pytest.raises(UserError, match=f"unexpected: {key}"):
        import_violet_release(tmp_path / "violet.pt", config=SMALL)


def test_a_buffer_of_another_window_is_refused(tmp_path):
    key = "enc_img.swin.layers.1.blocks.0.attn.relative_position_index"
    state = release_file()
    for other in (state[key].flip(0), state[key].float()):  # the latter would be written back as other bytes
        write(state | {key: other}, tmp_path / "violet.pt")
        with pytest.raises(UserError, match=key):
            import_violet_release(tmp_path / "violet.pt", config=SMALL)


def test_parts_that_a_file_lacks_are_named_by_the_config(tmp_path):
    fields = {"order_embedding": False, "num_task_embeddings": 0, "mlm_head": False}
    state = release_file()
    state = {
        key: value for key, value in state.items() if not key.startswith(("emb_task", "enc_img.emb_odr", "fc_mtm"))
    }
    write(state, tmp_path / "violet.pt")
    with pytest.raises(UserError, match="missing: emb_task"):
        import_violet_release(tmp_path / "violet.pt", config=SMALL)
    model, _, form = import_with_form(tmp_path / "violet.pt", config=SMALL, **fields)
    export_violet_release(model, tmp_path / "again.pt", form)
    assert_same_bytes(read(tmp_path / "again.pt"), state)


@pytest.mark.parametrize(
    "wrap", [lambda s: {"model": s}, lambda s: {f"module.{key}": value for key, value in s.items()}]
)
def test_known_wrappings_are_taken_off(wrap, tmp_path):
    state = release_file()
    torch.save(wrap(state), tmp_path / "violet.pt")
    model, _ = import_violet_release(tmp_path / "violet.pt", config=SMALL)
    assert torch.equal(model.trsfr.layer[1].output.dense.weight, state["trsfr.layer.1.output.dense.weight"])


def test_half_precision_becomes_float32_and_goes_out_as_it_was(tmp_path):
    state = {key: value.half() if value.is_floating_point() else value for key, value in release_file().items()}
    write(state, tmp_path / "violet.pt")
    model, _, form = import_with_form(tmp_path / "violet.pt", config=SMALL)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    export_violet_release(model, tmp_path / "again.pt", form)
    assert_same_bytes(read(tmp_path / "again.pt"), state)


def test_head_of_v1s_name_and_two_biases_that_differ_go_out_as_they_came(tmp_path):
    state = release_file() | {BIASES[0]: torch.randn(40)}
    state = {key.replace("fc_mtm.predictions.", "fc.predictions."): value for key, value in state.items()}
    write(state, tmp_path / "violet.pt")
    model, report, form = import_with_form(tmp_path / "violet.pt", config=SMALL)
    assert BIASES[0] in report.dropped
    assert torch.equal(model.fc_mtm.predictions.decoder.bias, state["fc.predictions.decoder.bias"])
    export_violet_release(model, tmp_path / "again.pt", form)
    assert_same_bytes(read(tmp_path / "again.pt"), state)


def test_mamas_fork_is_named_and_its_adapters_are_left_out_on_request_alone(tmp_path):
    state = release_file()
    adapters = {f"trsfr.layer.{layer}.attention.adaptmlp.down_proj.weight": torch.ones(2, 12) for layer in (0, 1)}
    write(state | adapters | {"dummy_param": torch.zeros(0)}, tmp_path / "mama.pt")
    with pytest.raises(
        UserError, match=r"adapters of MAMA's fork.*2 keys, such as trsfr\.layer\.0\.attention\.adaptmlp"
    ):
        import_violet_release(tmp_path / "mama.pt", config=SMALL)
    model, report = import_violet_release(tmp_path / "mama.pt", config=SMALL, without_adapters=True)
    assert {*adapters, "dummy_param"} < set(report.dropped)
    assert torch.equal(model.emb_task, state["emb_task"])


def test_a_file_of_other_things_is_refused(tmp_path):
    for content in ({"enc_img.emb_cls": 3}, {"model": {"enc_img.emb_cls": "x"}}):
        torch.save(content, tmp_path / "violet.pt")
        with pytest.raises(UserError, match="no flat state dict|not a flat state dict"):
            import_violet_release(tmp_path / "violet.pt", config=SMALL)


def test_from_pretrained_knows_the_file_by_its_keys(tmp_path):
    write(release_file(), tmp_path / "violet.pt")
    model = from_pretrained(tmp_path / "violet.pt", **SMALL.model_dump())
    assert isinstance(model, Violet) and model.config == SMALL


def test_export_of_a_trained_model_has_the_buffers_of_the_release(tmp_path):
    model = small_violet().float()
    export_violet_release(model, tmp_path / "violet.safetensors")
    state = load_file(tmp_path / "violet.safetensors")
    assert sum(key.endswith("relative_position_index") for key in state) == 4
    assert torch.equal(state[BIASES[0]], state[BIASES[1]])
    again, report = import_violet_release(tmp_path / "violet.safetensors", config=SMALL)
    assert dataclasses.astuple(report)[:3] == ((), (), ())
    assert torch.equal(again.enc_img.emb_pos, model.enc_img.emb_pos)
