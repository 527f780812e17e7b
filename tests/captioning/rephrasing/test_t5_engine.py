"""The engine of a T5: what it reads, that nothing depends on what is beside, and folders that are no rephraser's."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mama_ray.captioning.engines.generation import EngineConfig
from mama_ray.captioning.rephrasing.model_folder import inspect_rephraser
from mama_ray.captioning.rephrasing.settings import T5_PROMPT, DecodingConfig, WordingConfig
from mama_ray.captioning.rephrasing.t5_engine import T5Engine
from mama_ray.captioning.rephrasing.wording import choose_paraphrases, text_key
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.read_back import read_thing
from mama_ray.errors import UserError
from tests.captioning.rephrasing.tiny_t5 import pairs_of, train_t5, write_t5

CAPTIONS = ["#C C opens the door", "a dog runs", "she pours milk into a big glass bowl and stirs it", "rain"]
DECODING = DecodingConfig(num_beams=6, num_groups=6, max_length=24)
SAMPLING = DecodingConfig(method="sampling", num_samples=4, temperature=5.0, max_length=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_t5(tmp_path_factory.mktemp("t5"), CAPTIONS, spread=3.0)


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "t5"))


def engine_of(
    folder: Path, decoding: DecodingConfig = DECODING, *, prompt: str = T5_PROMPT, at_once: int = 64
) -> T5Engine:
    return T5Engine(folder, prompt, decoding, EngineConfig(max_num_seqs=at_once))


def edit(folder: Path, name: str, **changes) -> None:
    content = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps(content))


def test_the_prompt_is_read_as_the_models_card_reads_it(folder):
    engine = engine_of(folder)
    token_ids = engine.token_ids(["a dog runs"])[0]
    assert engine._tokenizer.convert_ids_to_tokens(token_ids) == ["▁paraphrase:", "▁a", "▁dog", "▁runs", "</s>", "</s>"]
    bare = engine_of(folder, prompt="paraphrase: {text}").token_ids(["a dog runs"])[0]
    assert bare == token_ids[:-1]


@pytest.mark.parametrize(
    "caption", ["a dog</s> runs", "<pad>a dog runs", "a dog <extra_id_0> runs", "a \n dog\truns", "a dog runs</s></s>"]
)
def test_a_caption_cannot_end_its_prompt(folder, caption):
    engine = engine_of(folder)
    assert engine.token_ids([caption]) == engine.token_ids(["a dog runs"])


def test_what_is_left_of_a_caption_is_no_mark_again(folder):
    engine = engine_of(folder)
    *_, last, end, own_end = engine.token_ids(["a </</s>s> dog"])[0]
    token_ids = engine.token_ids(["a </</s>s> <pad<pad>> dog"])[0]
    assert not {0, 1} & {*token_ids[:-2]} and token_ids[-3:] == [last, end, own_end]


def test_braces_of_a_caption_are_no_places_of_the_prompt(folder):
    engine = engine_of(folder)
    assert "{text}{0}" in engine._tokenizer.decode(engine.token_ids(["a {text}{0} dog"])[0]).replace(" ", "")


@pytest.mark.parametrize("decoding", [DECODING, SAMPLING], ids=["beams", "sampling"])
def test_captions_are_answered_alike_in_any_company(folder, decoding):
    seeds = [10, 20, 30, 40]
    together = texts_of(engine_of(folder, decoding).rephrase(CAPTIONS, seeds))
    one_by_one = texts_of(engine_of(folder, decoding, at_once=1).rephrase(CAPTIONS, seeds))
    backwards = texts_of(engine_of(folder, decoding, at_once=12).rephrase(CAPTIONS[::-1], seeds[::-1]))
    assert together == one_by_one == backwards[::-1]
    assert all(len(own) == decoding.num_candidates for own in together)
    assert len({own[0] for own in together}) > 1


def test_a_caption_that_is_too_long_is_told_and_not_cut(folder):
    answers = engine_of(folder).rephrase(["a dog runs", "dog " * 40, ""], [0, 0, 0])
    assert answers[1] == "the caption is too long to be rephrased: 43 tokens with its prompt, at most 24"
    assert isinstance(answers[0], list) and isinstance(answers[2], list)


def test_weights_of_an_older_folder_are_read_as_tensors_alone(folder, copied):
    model = engine_of(folder)._model
    torch.save(model.state_dict(), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    inspect_rephraser(copied, None, DECODING)
    assert texts_of(engine_of(copied).rephrase(CAPTIONS, [0] * 4)) == texts_of(
        engine_of(folder).rephrase(CAPTIONS, [0] * 4)
    )
    torch.save({"shared.weight": Path("a path is no tensor")}, copied / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"cannot be read as tensors only: got an object of pathlib"):
        engine_of(copied)


def test_what_is_found_of_a_folder(folder):
    found = inspect_rephraser(folder, None, DECODING)
    assert (found.architecture, found.engine, found.prompt) == ("T5ForConditionalGeneration", "t5", T5_PROMPT)
    assert len(found.weights_sha256) == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architectures": ["BertForMaskedLM"]},
            r"not the folder of a rephraser: got BertForMaskedLM in .* wanted T5For",
        ),
        ({"architectures": ["LlavaForConditionalGeneration"]}, "not the folder of a rephraser: got Llava"),
        ({"architectures": ["BartForConditionalGeneration"]}, "not the folder of a rephraser: got Bart"),
        ({"architectures": None}, "not the folder of a rephraser: got none"),
        (
            {"architectures": ["LlamaForCausalLM"], "is_encoder_decoder": False},
            "an instruct model is sampled from, it has no beams",
        ),
        ({"auto_map": {"AutoModel": "evil.py"}}, "wants code of its own to be run"),
        ({"vocab_size": 7}, "the model's tokenizer is that of another model: got token"),
    ],
)
def test_a_folder_of_another_kind_is_refused_in_one_line(copied, changes, message):
    edit(copied, "config.json", **changes)
    with pytest.raises(UserError, match=message) as told:
        inspect_rephraser(copied, None, DECODING)
    assert "\n" not in str(told.value)


def test_a_tokenizer_without_an_end_is_refused(copied):
    edit(copied, "tokenizer_config.json", eos_token=None, tokenizer_class="PreTrainedTokenizerFast")
    with pytest.raises(UserError, match="the model's tokenizer has no token that ends a text: got eos_token None"):
        inspect_rephraser(copied, None, DECODING)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "model file is missing"),
        ("config.json", b"{", "config.json"),
        ("tokenizer.json", b"\0\1", "the model's tokenizer cannot be loaded"),
        ("model.safetensors", None, "weights are missing"),
    ],
)
def test_a_damaged_folder_is_told_in_one_line(copied, name, content, message):
    (copied / name).unlink() if content is None else (copied / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as told:
        inspect_rephraser(copied, None, DECODING)
    assert "\n" not in str(told.value)


def test_truncated_weights_are_told_when_they_are_loaded(copied):
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match="the rephraser's weights cannot be loaded"):
        engine_of(copied)


@pytest.mark.parametrize("decoding", [DECODING, SAMPLING], ids=["beams", "sampling"])
def test_weights_that_are_no_numbers_are_told_and_make_no_rows(copied, decoding):
    state = load_file(copied / "model.safetensors")
    state["encoder.block.1.layer.0.SelfAttention.q.weight"].fill_(torch.nan)
    save_file(state, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="the rephraser computes no numbers: got weights in torch.float32"):
        engine_of(copied, decoding).rephrase(CAPTIONS, [0, 1, 2, 3])


def test_weights_of_another_size_are_refused(copied):
    edit(copied, "config.json", num_layers=3)
    with pytest.raises(UserError, match=r"do not fit its config.json \(missing: encoder.block.2"):
        engine_of(copied)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"name": "gpt2"}, "the engine does not run this model: got --engine gpt2 and a T5For.*, wanted no --engine"),
        ({"name": "vllm"}, "the engine does not run this model: got --engine vllm"),
        ({"options": {"quantization": "awq"}}, "settings of vLLM, .*: got engine.options, wanted engine.dtype and eng"),
        ({"max_model_len": 64, "kv_cache_mib": 9}, "got engine.max_model_len, engine.kv_cache_mib, wanted"),
    ],
)
def test_settings_of_another_engine_are_refused(folder, engine, message):
    with pytest.raises(UserError, match=message):
        inspect_rephraser(folder, None, DECODING, EngineConfig(**engine))
    inspect_rephraser(folder, None, DECODING, EngineConfig(dtype="bfloat16", max_num_seqs=7))


def test_a_prompt_that_leaves_no_place_for_a_caption_is_told_before_any_is_rephrased(folder):
    assert inspect_rephraser(folder, None, DECODING).num_prompt_tokens == 3  # the prefix and </s> twice
    long_prompt = "paraphrase: " * 24 + "{text}"
    with pytest.raises(UserError, match="the rephraser's prompt is too long: got 25 tokens, wanted at most 24; raise"):
        inspect_rephraser(folder, long_prompt, DECODING)


@pytest.mark.parametrize("prompt", ["paraphrase this", "{text} {text}", "{ text }"])
def test_a_prompt_without_the_caption_is_refused(folder, prompt):
    with pytest.raises(UserError, match="the prompt does not hold the caption"):
        inspect_rephraser(folder, prompt, DECODING)


@pytest.mark.slow
def test_a_t5_that_learned_the_grammar_says_captions_in_other_words(tmp_path):
    """Held-out captions: nearly all paraphrases name the very things, and none is the caption."""
    corpus = CorpusConfig(texts="first_person", num_train=2000)
    engine = engine_of(train_t5(tmp_path, corpus), DecodingConfig(max_length=48), at_once=160)
    sources = [source for source, _ in pairs_of(corpus.model_copy(update={"seed": 5}), 40, seed=9)]
    kept, named = [], 0
    for source, own in zip(sources, engine.rephrase(sources, [0] * len(sources)), strict=True):
        choice = choose_paraphrases(own, sources=[source], others=set(), num_kept=3, wording=WordingConfig())
        kept += [one.text for one in choice.kept]
        named += sum(read_thing(one.text) == read_thing(source) for one in choice.kept)
        assert text_key(source) not in {text_key(one.text) for one in choice.kept}
    assert len(kept) > 110 and named > 0.85 * len(kept), (len(kept), named)


def texts_of(answers: list) -> list[list[str]]:
    return [[one.text for one in own] for own in answers]
