"""What a gated narrator is started from, is shown, and leaves as its folder."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from mama_ray.captioning.engines.captioner import inspect_captioner
from mama_ray.captioning.narrator import gated
from mama_ray.captioning.narrator.gated import TaughtGated
from mama_ray.captioning.narrator.kinds import KINDS, kind_of_folder, kind_of_preset
from mama_ray.captioning.narrator.settings import GatedPreset, NarratorInput
from mama_ray.captioning.pictures.settings import ClipShowConfig
from mama_ray.captioning.pictures.show import show_clip
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.sampling import row_rng
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.models.narrator.load import load_gated_narrator, read_gated_config
from mama_ray.models.narrator.presets import PRESETS
from mama_ray.models.pretrained import from_pretrained
from mama_ray.models.timesformer.model import Timesformer
from mama_ray.orchestration.captioning.plan import how_to_show
from tests.captioning.narrator.gated_parts import (
    CAPTIONS,
    NUM_POSITIONS,
    labels_of,
    loss_of,
    open_narrator,
    settings,
    some_frames,
    started,
    write_dual_encoder,
    write_gpt2,
)
from tests.captioning.tiny_models import write_llava
from tests.data.video.video_factory import make_video


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return write_dual_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def narrator() -> TaughtGated:
    return open_narrator()


def tower_of(folder: Path) -> dict[str, torch.Tensor]:
    model = from_pretrained(folder)
    assert isinstance(model, Timesformer)
    return model.visual.state_dict()


def test_the_presets_of_the_command_line_are_those_that_there_are():
    assert set(get_args(GatedPreset)) == set(PRESETS)
    assert {kind_of_preset(name) for name in PRESETS} == {gated.NAME}
    assert kind_of_preset("tiny") == "llava"


def test_it_starts_as_its_parts_are(encoder, gpt2):
    """Gates shut: captions are scored as by the GPT-2 alone; the video tower is the dual encoder's."""
    one = started(gated_video_encoder=str(encoder), gated_language_model=str(gpt2))
    one.model.eval()
    alone = GPT2LMHeadModel.from_pretrained(gpt2).eval()
    texts = torch.randint(1, 200, (2, 9))
    with torch.no_grad():
        ours = one.model(one.model.encode_visual(some_frames(2)), texts)
        torch.testing.assert_close(ours, alone(texts).logits, rtol=1e-5, atol=1e-5)
    tower = tower_of(encoder)
    assert all(torch.equal(value, tower[name]) for name, value in one.model.visual.state_dict().items())
    assert one.tokenizer.decode(labels_of(one)[0][:3].tolist()) in CAPTIONS[0]


def test_a_part_that_is_left_out_is_an_untrained_one(encoder, gpt2):
    seen = started(gated_video_encoder=str(encoder)).model
    tower = tower_of(encoder)
    assert all(torch.equal(value, tower[name]) for name, value in seen.visual.state_dict().items())
    assert seen.config.language.num_layers == PRESETS["gated_tiny"].language.num_layers
    told = started(gated_language_model=str(gpt2)).model
    assert told.config.language.width == 32
    assert told.config.video == PRESETS["gated_tiny"].video
    assert not torch.equal(told.visual.state_dict()[next(iter(tower))], tower[next(iter(tower))])


def test_gates_start_where_they_are_told_to():
    for gates in (0.0, 1.0):
        found = {n: p.item() for n, p in started(gated_gates=gates).model.named_parameters() if "alpha" in n}
        assert len(found) == 6 and set(found.values()) == {gates}


def test_sizes_of_a_preset_can_be_others_and_unknown_ones_are_refused():
    sizes = {"patch_size": 16, "num_queries": 5, "language.num_layers": 2, "language.residual_dropout": 0.0}
    config = started(gated_sizes=sizes).model.config
    assert (config.patch_size, config.num_queries, config.language.num_layers) == (16, 5, 2)
    assert (config.language.residual_dropout, config.language.attention_dropout) == (0.0, 0.1)
    for wrong, named in (({"patch_sise": 16}, "patch_sise"), ({"patch_size": 7}, "multiple of patch_size")):
        with pytest.raises(UserError, match=f"model.gated.sizes.*{named}"):
            started(gated_sizes=wrong)


@pytest.mark.parametrize(
    ("sizes", "context_length", "pooler_heads"),
    [(None, NUM_POSITIONS, 1), ({"context_length": 40}, 40, 1), ({"context_length": 20, "pooler_heads": 3}, 20, 3)],
)
def test_sizes_that_no_part_fixes_are_those_that_are_asked_for(gpt2, sizes, context_length, pooler_heads):
    asked = {"gated_language_model": str(gpt2), "gated_sizes": sizes}
    model = started(**asked).model
    assert (model.config.context_length, model.config.pooler_heads) == (context_length, pooler_heads)
    longest = gated.longest_caption(settings(**asked).model)
    assert longest == (context_length - 1 if sizes else 76), "of a GPT-2 of fewer positions its folder tells"


@pytest.mark.parametrize(
    "part", [{"video_encoder": "elsewhere"}, {"sizes": {"num_queries": 5}}, {"gates": 1.0}], ids=str
)
def test_what_is_of_a_preset_is_refused_with_a_pretrained_narrator(part):
    with pytest.raises(ValueError, match=f"gated.{next(iter(part))} is of a preset; a pretrained narrator has its own"):
        settings(pretrained="somewhere", **{f"gated_{name}": value for name, value in part.items()})


@pytest.mark.parametrize("parts", [(), ("video_encoder",), ("video_encoder", "language_model")], ids=str)
def test_another_number_of_frames_is_shown_and_remembered(encoder, gpt2, tmp_path, parts):
    places = {"video_encoder": str(encoder), "language_model": str(gpt2)}
    asked = settings(frames={"num_frames": 6}, **{f"gated_{name}": places[name] for name in parts})
    files, facts = gated.describe(None, asked, lambda: CAPTIONS)
    assert facts.num_frames == 6
    one = gated.start(facts, files, asked)
    one.save(tmp_path, NarratorInput())
    assert read_gated_config(tmp_path).num_frames == 6
    assert gated.describe(tmp_path, settings(), lambda: [])[1] == facts
    assert one.model.encode_visual(torch.zeros(1, 6, 48, 48, 3, dtype=torch.uint8)).shape[0] == 1
    with pytest.raises(UserError, match="num_frames is not what the narrator was trained with: got 4, wanted 6"):
        gated.describe(tmp_path, settings(frames={"num_frames": 4}), lambda: [])


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_what_it_is_shown_in_validation_is_what_an_engine_will_be_shown(interpolation, gpt2, tmp_path):
    """The filter is that of the video tower's training, and the narrator's folder remembers it."""
    video = make_video(num_frames=12, width=96, height=64)
    encoder = write_dual_encoder(tmp_path / "tower", interpolation=interpolation)
    asked = settings(gated_video_encoder=str(encoder), gated_language_model=str(gpt2))
    files, facts = gated.describe(None, asked, lambda: CAPTIONS)
    gated.start(facts, files, asked).save(tmp_path, NarratorInput())
    show = gated.show(facts, asked, DecodeConfig())
    captioner = inspect_captioner(tmp_path, NarratorInput().prompt)
    served = show_clip(video, how_to_show(captioner, ClipShowConfig(), DecodeConfig())).content
    in_training = TransformConfig(image_size=48, resize="center_crop", interpolation=interpolation)
    np.testing.assert_array_equal(served, load_clip_frames(video, num_frames=4, transform=in_training))
    np.testing.assert_array_equal(show(video, None), served)
    assert show.shape == served.shape
    drawn = [show(video, row_rng(0, epoch, 5)) for epoch in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any() and (drawn[0] != served).any()


def test_a_narrator_of_before_is_shown_frames_as_it_learned(encoder, tmp_path):
    started(gated_video_encoder=str(encoder)).save(tmp_path, NarratorInput())
    _, facts = gated.describe(tmp_path, settings(), lambda: [])
    config = json.loads((tmp_path / "config.json").read_text())
    del config["interpolation"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    _, facts_of_before = gated.describe(tmp_path, settings(), lambda: [])
    assert (facts.interpolation, facts_of_before.interpolation) == ("bilinear", "bicubic")


def test_a_saved_narrator_loads_with_the_same_captions_and_loss(narrator, tmp_path):
    narrator.save(tmp_path, NarratorInput())
    assert kind_of_folder(tmp_path) == gated.NAME
    again = gated.load(tmp_path)
    again.model.eval()
    frames, labels = some_frames(3), labels_of(narrator)
    with torch.no_grad():
        assert torch.equal(loss_of(narrator)(frames, labels), loss_of(again)(frames, labels))
    assert loss_of(again).narrate(frames, max_tokens=12) == loss_of(narrator).narrate(frames, max_tokens=12)


def test_weights_of_another_moment_are_written_in_place_of_the_models_own(narrator, tmp_path):
    before = {name: value.clone() + 1 for name, value in narrator.model.state_dict().items()}
    narrator.save(tmp_path, NarratorInput(), before)
    found = load_gated_narrator(tmp_path).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in found.items())
    assert not any(p.is_meta for p in narrator.model.parameters())


def test_another_type_of_weights_is_a_rounding(narrator, tmp_path):
    (tmp_path / "of").mkdir()
    narrator.save(tmp_path / "of", NarratorInput())
    gated.convert(tmp_path / "of", tmp_path / "to", "bfloat16")
    rounded = load_gated_narrator(tmp_path / "to")
    for ours, theirs in zip(narrator.model.parameters(), rounded.parameters(), strict=True):
        assert torch.equal(ours.bfloat16().float(), theirs)


def test_what_cannot_be_a_part_is_refused_by_name(encoder, gpt2, tmp_path):
    other = write_dual_encoder(tmp_path / "clip_vip", "tiny")
    for source, words in ((other, "video tower of a TimeSformer"), (gpt2, "another kind of model")):
        with pytest.raises(UserError, match=words):
            gated.describe(None, settings(gated_video_encoder=str(source)), lambda: CAPTIONS)
    with pytest.raises(UserError, match="tokenizer is missing"):
        gated.describe(None, settings(gated_language_model=str(encoder)), lambda: CAPTIONS)
    with pytest.raises(UserError, match="never learns token 0"):
        gated.describe(None, settings(gated_loss="padded"), lambda: CAPTIONS)
    with pytest.raises(UserError, match="holds another kind of model: got clip_vip, wanted 'llava' or"):
        kind_of_folder(other)


def test_frozen_parts_that_learned_nothing_are_refused():
    for trains, named in (
        ("gated_blocks", "video_encoder and gated.language_model"),
        ("language_and_gated_blocks", "video_encoder"),
    ):
        with pytest.raises(ValueError, match=f"untrained: give gated.{named}.*gated.trains all"):
            settings(gated_trains=trains)


def test_the_folder_of_a_llava_is_of_its_kind(tmp_path):
    folder = write_llava(tmp_path / "llava")
    assert KINDS[kind_of_folder(folder)].describe(folder, settings(), lambda: [])[1].num_frames == 0
