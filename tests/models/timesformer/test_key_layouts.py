"""Files in LaViLa's layout: in whole, out byte for byte, refused for a key more, a key less, another shape or class."""

import re
from argparse import Namespace
from pathlib import PurePosixPath

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mama_ray.config import with_overrides
from mama_ray.errors import UserError
from mama_ray.models.pretrained import describe_model, from_pretrained, model_type_of, save_pretrained
from mama_ray.models.timesformer.key_layouts import from_release, read_release
from mama_ray.models.timesformer.load import export_lavila_release, import_lavila_release, import_with_form
from mama_ray.models.timesformer.model import Timesformer
from mama_ray.models.weight_files import read_weights_file
from tests.models.timesformer.small import (
    RELEASED,
    loaded,
    release_file,
    release_state,
    small_timesformer,
    some_frames,
    some_texts,
)

LAVILA_MEAN = (108.3272985, 116.7460125, 104.0937362)


def sizes(seed: int):
    """A config of the release, of another size for each seed."""
    tower = "distilbert" if seed % 3 == 0 else "clip"
    fields = {"video.num_layers": 1 + seed % 3, "text.num_layers": 1 + seed % 2, "num_frames": 2 + seed % 4}
    fields |= {"video.width": 8 * (1 + seed % 3), "dim": 4 + seed % 5, "image_size": 16 * (1 + seed % 2)}
    return with_overrides(RELEASED[tower], fields)


def assert_same_bytes(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype and ours[key].shape == value.shape, key
        assert ours[key].contiguous().view(-1).view(torch.uint8).equal(value.contiguous().view(-1).view(torch.uint8))


def test_50_random_files_come_in_whole_and_go_out_byte_for_byte(tmp_path):
    path, again = tmp_path / "in.pt", tmp_path / "out.pt"
    for seed in range(50):
        config, state = sizes(seed), release_state(sizes(seed), seed)
        if seed % 5 == 1:
            state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        content = release_file(state) if seed % 4 else state
        torch.save(content, path)
        model, report, form = import_with_form(path)
        got = model.config
        assert got.model_dump() | {"context_length": 10} == config.model_dump() | {
            "pixel_mean": got.pixel_mean, "pixel_std": got.pixel_std, "logit_scale": got.logit_scale.model_dump(),
            "place_init_std": None, "text_dropout": 0.1, "num_text_positions": got.num_text_positions,
        }  # fmt: skip
        assert [round(255 * value, 7) for value in got.pixel_mean] == list(LAVILA_MEAN)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert report.fresh == () and len(report.dropped) == ("textual.embeddings.position_ids" in state)
        export_lavila_release(model, again, form)
        written = read_weights_file(again)
        assert_same_bytes(written["state_dict"] if seed % 4 else written, content["state_dict"] if seed % 4 else state)
        if seed % 4:
            assert (written["epoch"], written["args"], written["best_acc1"]) == (5, content["args"], 30.9)


@pytest.mark.parametrize("tower", ["clip", "distilbert"])
def test_a_key_less_and_a_key_of_another_shape_are_refused_by_name(tower):
    config, state = RELEASED[tower], release_state(RELEASED[tower])
    with torch.device("meta"):
        wanted = Timesformer(config).state_dict()
    _, form = read_release(state, "lavila.pt")
    assert from_release(wanted, state, form, "lavila.pt").keys() == wanted.keys()
    for key, value in state.items():
        absent = {name: tensor for name, tensor in state.items() if name != key}
        for other in (absent, absent | {key: torch.stack([value, value])}, absent | {key: value.round().long()}):
            with pytest.raises(UserError, match=re.escape(key)):
                from_release(wanted, other, form, "lavila.pt")


def test_no_channels_and_sparse_weights_are_refused_by_name():
    state = release_state(RELEASED["clip"])
    with pytest.raises(UserError, match="does not show the sizes"):
        import_lavila_release(
            "lavila.pt", content=state | {"visual.patch_embed.proj.weight": torch.zeros(0, 3, 16, 16)}
        )
    with pytest.raises(UserError, match=r"image_projection: got torch.sparse_coo, wanted a dense tensor"):
        import_lavila_release("lavila.pt", content=state | {"image_projection": state["image_projection"].to_sparse()})


@pytest.mark.parametrize(
    "key",
    ["visual.blocks.0.timeattn.gate", "visual.blocks.2.norm1.weight", "visual.head.weight", "text_model.x", "alpha"],
)
def test_a_key_more_is_refused_by_name(key, tmp_path):
    config = RELEASED["clip"]
    torch.save(release_file(release_state(config) | {key: torch.zeros(3)}), tmp_path / "lavila.pt")
    with pytest.raises(UserError, match=re.escape(key)):
        import_lavila_release(tmp_path / "lavila.pt", config=config)


@pytest.mark.parametrize("key", ["visual.pos_embed", "image_projection", "token_embedding.weight", "visual.norm.bias"])
def test_a_file_without_a_key_is_refused_by_name_where_no_size_is_said(key, tmp_path):
    state = release_state(RELEASED["clip"])
    del state[key]
    torch.save(release_file(state), tmp_path / "lavila.pt")
    with pytest.raises(UserError, match=re.escape(key)):
        from_pretrained(tmp_path / "lavila.pt")


@pytest.mark.parametrize(
    ("thing", "name"),
    [(PurePosixPath("runs"), "pathlib.PurePosixPath"), (nn.Linear(1, 1), "torch.nn.modules.linear.Linear")],
)
def test_an_object_outside_the_allowlist_is_refused_and_named(thing, name, tmp_path):
    content = release_file(release_state(RELEASED["clip"]))
    torch.save(content | {"args": Namespace(output_dir=thing)}, tmp_path / "lavila.pt")
    with pytest.raises(UserError, match=re.escape(name)) as refused:
        from_pretrained(tmp_path / "lavila.pt")
    assert "\n" not in str(refused.value)


def test_from_pretrained_knows_the_file_by_its_keys_and_a_folder_of_it_has_the_same_features(tmp_path):
    torch.save(release_file(release_state(RELEASED["clip"])), tmp_path / "lavila.pt")
    assert model_type_of(tmp_path / "lavila.pt") == "timesformer"
    model = from_pretrained(tmp_path / "lavila.pt")
    assert isinstance(model, Timesformer) and model.new_weights == () and not model.logit_scale.requires_grad
    save_pretrained(model, tmp_path / "folder")
    assert describe_model(tmp_path / "folder") == model.config
    frames, again = some_frames(16), from_pretrained(tmp_path / "folder")
    assert torch.equal(again.encode_video(frames), model.encode_video(frames))
    longer = loaded(tmp_path / "lavila.pt", num_frames=16, interpolate=True)
    assert longer.visual.temporal_embed.shape[1] == 16
    torch.testing.assert_close(longer.encode_video(frames), model.encode_video(frames))
    with pytest.raises(UserError, match="interpolate=True"):
        from_pretrained(tmp_path / "lavila.pt", num_frames=16)


def test_clips_text_tower_is_that_of_the_released_names():
    """Against torch's own attention, whose weights have those names."""
    config, state = RELEASED["clip"], release_state(RELEASED["clip"], 4)
    model, _ = import_lavila_release("lavila.pt", content=state)
    texts = some_texts(config)
    hidden = state["token_embedding.weight"][texts] + state["positional_embedding"]
    causal = nn.Transformer.generate_square_subsequent_mask(10)
    for layer in range(config.text.num_layers):
        own = {key.removeprefix(f"transformer.resblocks.{layer}."): value for key, value in state.items()}
        attention = nn.MultiheadAttention(16, 1, batch_first=True)
        attention.load_state_dict({key: own[f"attn.{key}"] for key in attention.state_dict()})
        normed = F.layer_norm(hidden, (16,), own["ln_1.weight"], own["ln_1.bias"])
        hidden = hidden + attention(normed, normed, normed, attn_mask=causal, need_weights=False)[0]
        normed = F.layer_norm(hidden, (16,), own["ln_2.weight"], own["ln_2.bias"])
        inner = F.linear(normed, own["mlp.c_fc.weight"], own["mlp.c_fc.bias"])
        quick_gelu = inner * torch.sigmoid(1.702 * inner)
        hidden = hidden + F.linear(quick_gelu, own["mlp.c_proj.weight"], own["mlp.c_proj.bias"])
    hidden = F.layer_norm(hidden, (16,), state["ln_final.weight"], state["ln_final.bias"])
    wanted = F.normalize(hidden[torch.arange(3), texts.argmax(1)] @ state["text_projection"], dim=-1)
    torch.testing.assert_close(model.encode_text(texts), wanted, rtol=1e-4, atol=1e-5)


def test_constants_of_pixels_are_those_of_the_training(tmp_path):
    state = release_state(RELEASED["clip"])
    scratch = import_lavila_release("x.pt", content=release_file(state, model="TIMESFORMER_BASE"))[0].config
    assert [round(255 * value, 3) for value in scratch.pixel_mean] == [123.675, 116.28, 103.53]
    alone = import_lavila_release("x.pt", content=state, config=RELEASED["clip"])[0].config
    assert alone.pixel_mean[0] == pytest.approx(108.3272985 / 255) != RELEASED["clip"].pixel_mean[0]
    named = import_lavila_release("x.pt", content=state, pixel_mean=(0.5, 0.5, 0.5))[0].config
    assert named.pixel_mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("found", "wanted"), [("distilbert", "clip"), ("clip", "distilbert")])
def test_a_checkpoint_of_another_text_tower_is_refused_in_one_line(found, wanted):
    content = release_file(release_state(RELEASED[found]))
    for options in ({"config": RELEASED[wanted]}, {"text_tower": wanted}):
        with pytest.raises(
            UserError, match=rf"lavila.pt has another text tower: got {found}, wanted {wanted}; load it with"
        ):
            import_lavila_release("lavila.pt", content=content, **options)


@pytest.mark.parametrize(
    ("keys", "got"),
    [
        (["text_decoder.transformer.h.0.attn.c_attn.weight", "img_queries"], "img_queries, text_decoder.transformer"),
        (["fc_cls.weight"], "fc_cls.weight"),
        (["textual.encoder.layer.0.output.dense.weight"], "textual.encoder"),
        ([], "a video tower alone"),
    ],
)
def test_a_narrator_a_classifier_and_bert_are_refused_by_their_parts(keys, got, tmp_path):
    state = {key: value for key, value in release_state(RELEASED["clip"]).items() if key.startswith("visual.")}
    torch.save(release_file(state | dict.fromkeys(keys, torch.zeros(2))), tmp_path / "lavila.pt")
    with pytest.raises(UserError, match=rf"no text tower of LaViLa's dual encoders: got {got}, wanted CLIP's"):
        from_pretrained(tmp_path / "lavila.pt")


def test_a_file_of_other_things_and_a_buffer_that_does_not_count_are_refused():
    for content in ({"state_dict": {"module.visual.blocks.0.timeattn.x": 3}}, {"visual.blocks.0.timeattn.x": "y"}):
        with pytest.raises(UserError, match="no state dict"):
            import_lavila_release("lavila.pt", content=content)
    state = release_state(RELEASED["distilbert"], 1)
    state["textual.embeddings.position_ids"] = state["textual.embeddings.position_ids"].flip(1)
    with pytest.raises(UserError, match="position_ids of lavila.pt does not count from 0"):
        import_lavila_release("lavila.pt", content=state)


def test_a_trained_model_goes_out_in_the_layout_and_a_joint_one_does_not(tmp_path):
    model = small_timesformer().float()
    export_lavila_release(model, tmp_path / "lavila.pt")
    content = read_weights_file(tmp_path / "lavila.pt")
    assert all(key.startswith("module.") for key in content["state_dict"])
    again, _ = import_lavila_release(tmp_path / "lavila.pt", config=model.config)
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    with pytest.raises(UserError, match="no joint attention"):
        export_lavila_release(small_timesformer({"attention": "joint"}), tmp_path / "joint.pt")
