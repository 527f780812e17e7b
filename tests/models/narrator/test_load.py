"""Folders and released files of gated narrators: in whole, out byte for byte, refused for what does not fit."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mama_ray.config import with_overrides
from mama_ray.errors import UserError
from mama_ray.models.narrator.key_layouts import is_release
from mama_ray.models.narrator.load import (
    export_narrator_release,
    import_narrator_release,
    load_gated_narrator,
    load_narrator_tokenizer,
    read_gated_config,
    save_gated_narrator,
    start_gated_narrator,
)
from mama_ray.models.narrator.tokenizer import END_OF_TEXT, load_gpt2_tokenizer, train_gpt2_tokenizer
from mama_ray.models.pretrained import from_pretrained
from mama_ray.models.weight_files import read_weights_file
from tests.models.narrator.small import (
    RELEASED,
    gpt2,
    gpt2_folder,
    release_file,
    release_state,
    small_narrator,
    some_frames,
    some_tokens,
)
from tests.models.timesformer.small import small_timesformer

CAPTIONS = ["a red circle moves left", "a blue square grows", "two green bars turn round"]


def sizes(seed: int):
    """A config of the release, of another size for each seed."""
    fields = {"video.num_layers": 1 + seed % 3, "language.num_layers": 2 + seed % 4, "num_frames": 2 + seed % 4}
    fields |= {"video.width": 8 * (1 + seed % 3), "num_queries": 4 + seed % 5, "image_size": 16 * (1 + seed % 2)}
    fields |= {"cross_every": 1 + seed % 2, "pooler_heads": 1 + seed % 3, "language.width": 64 * (1 + seed % 2)}
    return with_overrides(RELEASED, fields | {"language.num_heads": 1 + seed % 2})


def tensor_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def assert_same_bytes(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype and ours[key].shape == value.shape, key
        assert tensor_bytes(ours[key]).equal(tensor_bytes(value)), key


def test_25_random_files_come_in_whole_and_go_out_byte_for_byte(tmp_path):
    path, again = tmp_path / "in.pt", tmp_path / "out.pt"
    for seed in range(25):
        config, state = sizes(seed), release_state(sizes(seed), seed)
        if seed % 5 == 1:
            state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        content = release_file(state) if seed % 4 else state
        torch.save(content, path)
        assert is_release(read_weights_file(path))
        model, report, form = import_narrator_release(path)
        got = model.config
        config = config.model_copy(update={"interpolation": "bilinear"})  # LaViLa's
        assert got.model_copy(update={"pixel_mean": config.pixel_mean, "pixel_std": config.pixel_std}) == config
        assert 255 * got.pixel_mean[0] == pytest.approx(108.3272985)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        masks = {key for key in state if key.endswith((".attn.bias", ".crossattention.bias", ".masked_bias"))}
        assert set(report.dropped) == masks and not masks & model.state_dict().keys()
        export_narrator_release(model, again, form)
        written = read_weights_file(again)
        if seed % 4:
            assert_same_bytes(written["state_dict"], content["state_dict"])
            assert written.keys() == content.keys() - {"optimizer", "scaler"} and written["args"] == content["args"]
        else:
            assert_same_bytes(written, content)


def test_a_narrator_of_no_file_is_written_in_the_releases_layout(tmp_path):
    model, _, _ = imported(tmp_path)
    export_narrator_release(model, tmp_path / "new.pt")
    again, _, _ = import_narrator_release(tmp_path / "new.pt")
    visual, tokens = model.encode_visual(some_frames()), some_tokens()
    assert torch.equal(again(again.encode_visual(some_frames()), tokens), model(visual, tokens))
    joint = small_narrator({"attention": "joint"})
    with pytest.raises(UserError, match="no such narrator: got joint attention"):
        export_narrator_release(joint, tmp_path / "joint.pt")


def imported(tmp_path, change=lambda state: None):
    state = release_state(RELEASED, 1)
    change(state)
    torch.save(release_file(state), tmp_path / "in.pt")
    return import_narrator_release(tmp_path / "in.pt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("img_queries"), "does not show the sizes"),
        (lambda state: state.pop("text_decoder.transformer.h.0.alpha_dense"), "missing: .*alpha_dense"),
        (lambda state: state.update({"text_decoder.transformer.h.1.alpha_dense": torch.zeros(())}), "unexpected: "),
        (lambda state: state.update({"text_decoder.more": torch.zeros(3)}), "unexpected: text_decoder.more"),
        (lambda state: state["text_decoder.lm_head.weight"].add_(1), "output matrix of its own"),
        (lambda state: state["text_decoder.transformer.h.0.attn.bias"].fill_(1), "no causal mask"),
        (lambda state: state["img_attn_pool.to_kv.weight"].fill_(torch.nan), "NaN or infinity"),
        (lambda state: state.update({"img_attn_pool.to_kv.weight": torch.zeros(127, 24)}), "got .127, 24."),
    ],
)
def test_a_file_that_is_not_whole_is_refused_in_one_line(change, words, tmp_path):
    with pytest.raises(UserError, match=words) as refusal:
        imported(tmp_path, change)
    assert "\n" not in str(refusal.value)


def test_a_narrators_file_as_dual_encoder_is_refused_by_name(tmp_path):
    imported(tmp_path)
    with pytest.raises(UserError, match="no text tower"):
        from_pretrained(tmp_path / "in.pt")


def saved(tmp_path):
    model = small_narrator({"language.vocab_size": 300, "language.num_positions": 80}).float()
    folder = tmp_path / "narrator"
    save_gated_narrator(model, train_gpt2_tokenizer(CAPTIONS, vocab_size=300), folder)
    return model, folder


def test_a_folder_gives_the_same_model_and_tokenizer_again(tmp_path):
    model, folder = saved(tmp_path)
    again, tokenizer = load_gated_narrator(folder), load_narrator_tokenizer(folder)
    assert again.config == model.config == read_gated_config(folder) and not again.training
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "mama_ray_gated_narrator" and config["architectures"] == ["GatedNarrator"]
    text = "a red bar grows, ünïcode 你 🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.eos_token_id == model.config.eos_id == 0
    assert load_gated_narrator(folder, dtype=torch.bfloat16).img_queries.dtype == torch.bfloat16


def test_folders_of_other_models_and_damaged_ones_are_refused_in_one_line(tmp_path):
    _, folder = saved(tmp_path)
    whole = json.loads((folder / "config.json").read_text())
    cases = [
        (whole | {"model_type": "llava"}, "another kind of model: got llava"),
        (whole | {"language": whole["language"] | {"num_layers": 10**9}}, "language.num_layers = 1000000000"),
        (whole | {"num_queries": 6}, "got .5, 32., wanted .6, 32."),
        (whole | {"cross_every": 1}, "missing: text_decoder.transformer.h.1.alpha_cattn"),
        (whole | {"eos_id": 300}, "model config: eos_id: got 300, wanted below language.vocab_size 300"),
        (whole | {"language": whole["language"] | {"width": 7}}, "model config: width: got 7, wanted a multiple"),
        (whole | {"surprise": 1}, "surprise"),
    ]
    for content, words in cases:
        (folder / "config.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=words):
            load_gated_narrator(folder)
    (folder / "config.json").write_text(json.dumps(whole))
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(UserError, match="damaged"):
        load_gated_narrator(folder)


def test_a_tokenizer_that_cannot_end_a_text_or_is_another_models_is_refused(tmp_path):
    model, folder = saved(tmp_path)
    with pytest.raises(UserError, match="is not that of the model"):
        save_gated_narrator(model, train_gpt2_tokenizer(CAPTIONS * 30, vocab_size=400), tmp_path / "other")
    for name, words in (("tokenizer_config.json", "no token that ends"), ("tokenizer.json", "is missing")):
        if name == "tokenizer_config.json":
            for file in (name, "tokenizer.json"):
                path = folder / file
                path.write_text(path.read_text().replace(END_OF_TEXT, "<start>").replace("eos_token", "end_token"))
        else:
            (folder / name).unlink()
        with pytest.raises(UserError, match=words):
            load_narrator_tokenizer(folder)


def test_gpt2s_older_files_are_read_too(tmp_path):
    folder = gpt2_folder(tmp_path / "new")
    state = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer."): value for name, value in state.items() if name != "lm_head.weight"}
    bare |= {f"h.{layer}.attn.bias": torch.ones(96, 96).tril()[None, None] for layer in range(3)}
    save_file(bare, folder / "model.safetensors")
    vision, tokens = small_timesformer().float(), some_tokens()
    model = start_gated_narrator(vision, folder, num_queries=7)
    assert (model.config.bos_id, model.config.eos_id, model.config.num_queries) == (59, 59, 7)
    assert all(torch.equal(model.visual.state_dict()[name], one) for name, one in vision.visual.state_dict().items())
    with torch.no_grad():
        ours = model(model.encode_visual(some_frames()), tokens)
        torch.testing.assert_close(ours, gpt2()(input_ids=tokens).logits, rtol=0, atol=1e-5)
    save_file({name: value for name, value in bare.items() if name != "wpe.weight"}, folder / "model.safetensors")
    with pytest.raises(UserError, match="missing: transformer.wpe.weight"):
        start_gated_narrator(vision, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "activation_function": "swish9"}))
    with pytest.raises(UserError, match="activation_function"):
        start_gated_narrator(vision, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="is no GPT-2: got bert"):
        start_gated_narrator(vision, folder)


def test_gpt2s_vocabulary_files_are_a_tokenizer_whose_end_is_known(tmp_path):
    backend = json.loads(train_gpt2_tokenizer(CAPTIONS, vocab_size=300).backend_tokenizer.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(backend["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in backend["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    tokenizer = load_gpt2_tokenizer(tmp_path)
    assert tokenizer.eos_token == END_OF_TEXT and tokenizer.decode(tokenizer("a red bar")["input_ids"]) == "a red bar"
