"""A narrator's folder survives transformers and has vLLM's names; its loss is that of the caption's tokens alone."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer

from mama_ray.captioning.engines.captioner import inspect_captioner, picture_side
from mama_ray.captioning.narrator.folder import (
    Narrator,
    convert_narrator,
    embedded_narrator,
    load_narrator,
    read_narrator_input,
    save_narrator,
)
from mama_ray.captioning.narrator.loss import IGNORED, CaptionLabels, CaptionLoss, choose_trained_parts
from mama_ray.captioning.narrator.preset import build_tiny_model, build_tiny_processor
from mama_ray.captioning.narrator.settings import NarratorInput
from mama_ray.captioning.pictures.clip_grid import make_clip_grid
from mama_ray.captioning.prompts import render_prompt
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.data.synthetic.read_back import count_named_right
from mama_ray.data.synthetic.vocabulary import Thing
from mama_ray.errors import UserError
from mama_ray.storage.places import storage_errors

CAPTIONS = ["a small red circle moves left", "there is a big blue star rising", "we see a tiny golden hoop that falls"]
INPUT = NarratorInput()
MAX_TOKENS = 12


@pytest.fixture(scope="module")
def narrator() -> Narrator:
    torch.manual_seed(0)
    processor = build_tiny_processor(CAPTIONS, INPUT.prompt.text, vocab_size=320)
    return Narrator(build_tiny_model(processor).eval(), processor)


@pytest.fixture(scope="module")
def folder(narrator, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("narrator")
    save_narrator(narrator, directory, INPUT)
    return directory


def loss_of(narrator: Narrator) -> CaptionLoss:
    return CaptionLoss(narrator.model, narrator.processor, render_prompt(INPUT.prompt, narrator.processor))


def labels_of(narrator: Narrator, captions: list[str], max_tokens: int = MAX_TOKENS) -> torch.Tensor:
    tokenizer = narrator.processor.tokenizer
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    prompt = render_prompt(INPUT.prompt, narrator.processor)
    to_labels = CaptionLabels(backend, prompt, end_id=tokenizer.eos_token_id, max_tokens=max_tokens)
    return torch.from_numpy(to_labels(captions))


def random_pictures(narrator: Narrator, count: int) -> torch.Tensor:
    side = picture_side(narrator.processor)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8)


def test_a_saved_narrator_loads_with_the_same_logits(narrator, folder):
    again = load_narrator(folder)
    pictures, labels = random_pictures(narrator, 3), labels_of(narrator, CAPTIONS)
    prompts = loss_of(narrator).prompt_ids.expand(3, -1)
    pixels = loss_of(narrator).normalise(pictures)
    with torch.no_grad():
        ours, theirs = (one.model(input_ids=prompts, pixel_values=pixels).logits for one in (narrator, again))
        assert torch.equal(ours, theirs)
        assert torch.equal(loss_of(narrator)(pictures, labels), loss_of(again)(pictures, labels))
    assert again.processor.tokenizer.get_vocab() == narrator.processor.tokenizer.get_vocab()


def test_a_folder_survives_being_loaded_and_saved_again(folder, tmp_path):
    save_narrator(load_narrator(folder), tmp_path, INPUT)
    assert (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in folder.iterdir()}


def test_the_weights_have_the_names_that_vllm_wants(folder):
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        names = set(file.keys())
    assert {
        "vision_tower.vision_model.embeddings.patch_embedding.weight",
        "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
        "multi_modal_projector.linear_1.weight",
        "language_model.model.embed_tokens.weight",
        "language_model.lm_head.weight",
    } <= names
    tower = {name for name in names if name.startswith("vision_tower.")}
    assert all(name.startswith("vision_tower.vision_model.") for name in tower)


def test_a_folder_says_what_its_narrator_was_trained_with_and_is_found_servable(folder, tmp_path):
    assert read_narrator_input(folder) == INPUT
    assert read_narrator_input(tmp_path) is None
    captioner = inspect_captioner(folder, INPUT.prompt)
    assert captioner.architecture == "LlavaForConditionalGeneration"
    assert captioner.num_prompt_tokens == len(loss_of(load_narrator(folder)).prompt_ids)


def test_another_type_of_weights_is_a_rounding(folder, narrator, tmp_path):
    convert_narrator(folder, tmp_path, "bfloat16")
    rounded = load_narrator(tmp_path)
    for ours, theirs in zip(narrator.model.parameters(), rounded.model.parameters(), strict=True):
        assert torch.equal(ours.bfloat16().float(), theirs)
    assert (tmp_path / "model.safetensors").stat().st_size < 0.6 * (folder / "model.safetensors").stat().st_size


def test_the_loss_sees_the_pixels_that_the_processor_would_make(narrator):
    (picture,) = random_pictures(narrator, 1)
    prompt = render_prompt(INPUT.prompt, narrator.processor)
    made = narrator.processor(text=prompt, images=picture.numpy(), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(loss_of(narrator).normalise(picture[None]), made)


def test_the_loss_equals_a_naive_sum_over_caption_tokens(narrator):
    """One sample and one token at a time, each from the shortest input that leads to it."""
    loss = loss_of(narrator)
    pictures, labels = random_pictures(narrator, 3), labels_of(narrator, CAPTIONS)
    expected = 0.0
    with torch.no_grad():
        for picture, row in zip(pictures, labels, strict=True):
            before = loss.prompt_ids.tolist()
            for token in (token for token in row.tolist() if token != IGNORED):
                pixels = loss.normalise(picture[None])
                logits = narrator.model(input_ids=torch.tensor([before]), pixel_values=pixels).logits[0, -1]
                expected -= float(logits.double().log_softmax(0)[token])
                before.append(token)
        assert float(loss(pictures, labels)) == pytest.approx(expected, rel=1e-5)


def test_labels_are_the_caption_and_its_end_and_nothing_of_the_prompt(narrator):
    tokenizer = narrator.processor.tokenizer
    labels = labels_of(narrator, [CAPTIONS[0], f"  {CAPTIONS[0]}\n"])
    kept = labels[0][labels[0] != IGNORED].tolist()
    assert kept[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(kept[:-1]) == f" {CAPTIONS[0]}"
    assert torch.equal(labels[0], labels[1])


def test_a_caption_that_is_too_long_loses_its_tail_and_its_end(narrator):
    (whole,), (cut,) = labels_of(narrator, CAPTIONS[:1], 32), labels_of(narrator, CAPTIONS[:1], 4)
    assert cut.tolist() == whole[:4].tolist()
    assert narrator.processor.tokenizer.eos_token_id not in cut


def test_a_prompt_that_runs_into_the_caption_is_refused(narrator):
    class Joined:
        """A tokenizer to which a text is one token."""

        def encode(self, text):
            return type("Encoding", (), {"ids": [hash(text)]})

        def no_padding(self): ...

        def no_truncation(self): ...

    with pytest.raises(UserError, match="runs into"):
        CaptionLabels(Joined(), "USER: <image>", end_id=1, max_tokens=4)(["a dog"])


def test_clips_without_labels_cost_nothing_and_move_nothing(narrator):
    loss = loss_of(narrator)
    value = loss(random_pictures(narrator, 2), torch.full((2, MAX_TOKENS), IGNORED))
    value.backward()
    assert value == 0
    assert all(not p.grad.any() for p in narrator.model.parameters() if p.grad is not None)
    narrator.model.zero_grad()


@pytest.mark.parametrize("trains", ["all", "language_and_projector", "projector"])
def test_every_parameter_that_is_to_train_gets_a_gradient_and_no_other(narrator, trains):
    choose_trained_parts(narrator.model, trains)
    loss_of(narrator)(random_pictures(narrator, 2), labels_of(narrator, CAPTIONS[:2])).backward()
    named = dict(narrator.model.named_parameters())
    assert {name for name, p in named.items() if p.grad is not None} == {n for n, p in named.items() if p.requires_grad}
    parts = {name.removeprefix("model.").split(".")[0] for name, p in named.items() if p.requires_grad}
    wanted = {
        "all": {"vision_tower", "multi_modal_projector", "language_model", "lm_head"},
        "language_and_projector": {"multi_modal_projector", "language_model", "lm_head"},
        "projector": {"multi_modal_projector"},
    }
    assert parts == wanted[trains]
    narrator.model.zero_grad(set_to_none=True)
    narrator.model.requires_grad_(True)


def test_layers_that_the_projector_does_not_see_are_not_trained(narrator):
    """LLaVA-1.5 reads the layer before the last."""
    config = narrator.model.config
    before = config.vision_feature_layer
    config.vision_feature_layer = -2
    try:
        choose_trained_parts(narrator.model, "all")
        layers = {n for n, p in narrator.model.named_parameters() if "vision_tower" in n and not p.requires_grad}
    finally:
        config.vision_feature_layer = before
        narrator.model.requires_grad_(True)
    last = config.vision_config.num_hidden_layers - 1
    assert layers
    assert all(f".layers.{last}." in name or "post_layernorm" in name for name in layers)


def test_folders_that_hold_no_llava_are_refused(tmp_path):
    with pytest.raises(UserError, match="processor"):
        load_narrator(tmp_path)


def test_the_embedded_narrator_is_small():
    folder = embedded_narrator()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6_000_000
    assert read_narrator_input(folder) == INPUT
    assert "python jobs/narrator.py" in (folder / "README.md").read_text()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("corpus", [CorpusConfig(), CorpusConfig(seed=1)], ids=lambda corpus: f"seed-{corpus.seed}")
def test_the_embedded_narrator_names_what_it_sees_in_clips_it_never_saw(corpus, dtype):
    narrator = load_narrator(embedded_narrator(), dtype=dtype)
    narrator.model.eval()
    num_clips, side = 64, picture_side(narrator.processor)
    clips = [generate_clip(corpus, "test", number) for number in range(num_clips)]
    pictures = np.stack([make_clip_grid(clip.video, INPUT.grid, side=side).pixels for clip in clips])
    captions = loss_of(narrator).narrate(torch.from_numpy(pictures), max_tokens=32)
    things = [Thing(**clip.clip.truth["facts"]["objects"][0]) for clip in clips]
    right = count_named_right(captions, things)
    assert all(right[name] >= math.ceil(0.9 * num_clips) for name in ("shape", "colour", "motion")), right


def test_a_narrator_that_finds_no_room_leaves_nothing_and_says_where(narrator, small_disk):
    disk = small_disk("256k")
    with pytest.raises(UserError, match=f"no space left on the storage: got {disk}: "), storage_errors(str(disk)):
        save_narrator(narrator, disk / "model", INPUT)
    assert list((disk / "model").iterdir()) == []
