"""Weights that the source of a model had none for are trained whole beside adapters, whatever their names are."""

import pytest

from mama_ray.config import with_overrides
from mama_ray.errors import UserError
from mama_ray.models.clip_vip.hf_layout import to_hf_clip
from mama_ray.models.heads.head import build_head
from mama_ray.models.heads.settings import HeadConfig
from mama_ray.models.pretrained import BACKBONES, from_pretrained
from mama_ray.models.settings import LoraConfig
from mama_ray.models.trained_part import choose_trained_part
from mama_ray.models.violet.load import import_violet_release
from mama_ray.objectives.question_answering import AnsweringObjective
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import build_state
from mama_ray.weighting.settings import MetaConfig, WeightingConfig
from tests.models.hf_encoder.hf_models import build
from tests.models.test_dual_encoder import TINY
from tests.models.violet.small import SMALL
from tests.models.violet.test_key_layouts import release_file, write


def trained(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def adapted(model) -> set[str]:
    return {name.partition(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A." in name}


@pytest.fixture
def violet(tmp_path):
    """A VIOLET of a released file, whose dual heads and text tower are new, with adapters."""
    write(release_file(), tmp_path / "violet.pt")
    model, report = import_violet_release(tmp_path / "violet.pt", config=SMALL)
    model.new_weights = report.fresh
    choose_trained_part(model, lora=LoraConfig(rank=1))
    return model


def test_new_parts_of_violet_are_trained_and_get_no_adapters(violet):
    own = {name for name in trained(violet) if ".lora_" not in name}
    assert own == set(violet.new_weights) > {"text_projection.weight", "text_tower.layer.0.output.dense.weight"}
    parts = {name.split(".")[0] for name in adapted(violet)}
    assert parts == {"enc_img", "trsfr"}


def test_new_pooling_over_time_is_trained_and_gets_no_adapters(tmp_path):
    build("clip").save_pretrained(tmp_path)
    model = from_pretrained(f"hf:{tmp_path}", temporal_layers=1)
    pooling = {name for name in model.state_dict() if name.startswith("pooling.")}
    assert set(model.new_weights) == pooling and len(pooling) > 10
    choose_trained_part(model, lora=LoraConfig(rank=1))
    assert {name for name in trained(model) if ".lora_" not in name} == pooling | {"logit_scale"}
    assert adapted(model) and not any(name.startswith("pooling.") for name in adapted(model))


def test_what_is_new_in_a_clip_folder_is_known_by_the_load_and_not_after_the_next(tmp_path):
    tiny = with_overrides(TINY["clip_vip"], {"num_proxies": 1})
    to_hf_clip(BACKBONES["clip_vip"].build_fresh(tiny), tmp_path / "clip")
    new = {f"vision_model.embeddings.{name}" for name in ("added_cls", "temporal_embedding")}
    assert set(from_pretrained(tmp_path / "clip").new_weights) == new
    assert BACKBONES["clip_vip"].build_fresh(tiny).new_weights == ()


def test_parts_that_are_named_win_over_new_ones(tmp_path):
    build("clip").save_pretrained(tmp_path)
    options = {"lora": LoraConfig(rank=1, trained=("logit_scale",), targets=("pooling.*",))}
    model = from_pretrained(f"hf:{tmp_path}", temporal_layers=1)
    choose_trained_part(model, **options)
    assert {name for name in trained(model) if ".lora_" not in name} == {"logit_scale"}
    model = from_pretrained(f"hf:{tmp_path}", temporal_layers=1)
    with pytest.raises(UserError, match=r"weights of the model that was loaded"):
        choose_trained_part(model, lora=LoraConfig(rank=1, targets=("pooling.*",)))
    model = from_pretrained(f"hf:{tmp_path}", temporal_layers=1)
    choose_trained_part(model, lora=LoraConfig(rank=1), freeze=("pooling.*.self_attn",))
    assert not any("self_attn" in name and name.startswith("pooling.") for name in trained(model))


@pytest.mark.parametrize("kind", ["classification", "similarity", "options", "own"])
def test_heads_that_answer_are_trained_whole_beside_adapters(violet, kind):
    """The head of a dual encoder is no part of the model; VIOLET's own, the MLM head, is one that was learned."""
    head = None if kind == "own" else build_head(HeadConfig(kind=kind, hidden_dim=4), SMALL.dim, 5)
    state = build_state(
        violet,
        objective=ContrastiveConfig(),
        weighting=WeightingConfig(kind="uniform"),
        meta=MetaConfig(),
        optim=OptimConfig(),
        num_steps=1,
        global_batch_size=2,
        task=AnsweringObjective(),
        head=head,
    )
    names = state.weighted_step.parameters.keys()
    of_head = {f"head.{name}" for name, _ in head.named_parameters()} if head is not None else set()
    assert {name for name in names if name.startswith("head.")} == of_head
    assert {f"model.{name}" for name in violet.new_weights} <= names
    assert any(name.startswith("model.trsfr") for name in names) == (kind == "own")
    in_optimizer = {id(value) for group in state.optimizer.param_groups for value in group["params"]}
    assert in_optimizer == {id(value) for value in state.weighted_step.parameters.values()}
