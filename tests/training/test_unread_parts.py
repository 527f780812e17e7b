"""A backbone that can answer, in runs where it does not: what only answers are made of is frozen, so DDP can reduce."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mama_ray.data.batch import ClipBatch
from mama_ray.models.heads.head import build_head
from mama_ray.models.heads.settings import HeadConfig
from mama_ray.models.patterns import matches
from mama_ray.models.settings import LoraConfig
from mama_ray.models.trained_part import choose_trained_part
from mama_ray.objectives.question_answering import AnsweringObjective
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import TrainState, build_state
from mama_ray.weighting.settings import MetaConfig, WeightingConfig
from tests.models.vgt.small import small_model
from tests.models.violet.small import small_violet, some_frames, some_prompts
from tests.weighting.test_vgt import vgt_batch

SIZE = 3
ANSWERING = {"violet": {"enc_img", "trsfr", "fc_mtm"}, "vgt": {"position_v", "mmt", "vqproj"}}


@pytest.fixture
def group() -> Iterator[None]:
    if dist.is_initialized():  # by vLLM in a test before, which leaves its own
        dist.destroy_process_group()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def model_and_batch(backbone: str):
    if backbone == "vgt":
        model = small_model()
        return model, vgt_batch(1, SIZE, config=model.config)
    model = small_violet({"mlm_head": True})
    prompts = some_prompts()
    batch = ClipBatch(
        frames=some_frames(model.config),
        token_ids=prompts["token_ids"],
        rows=torch.arange(SIZE),
        valid=torch.ones(SIZE, dtype=torch.bool),
        targets={"answer": torch.tensor([0, 3, 7])},
        question=prompts,
    )
    return model, batch


def state_of(model, asks: str) -> TrainState:
    head = None
    if asks == "head":
        width = model.encode_text(torch.ones(1, 3).long()).shape[1]
        head = build_head(HeadConfig(kind="classification", hidden_dim=4), width, 9).double()
    return build_state(
        model,
        objective=ContrastiveConfig(),
        weighting=WeightingConfig(kind="uniform"),
        meta=MetaConfig(),
        optim=OptimConfig(),
        num_steps=2,
        global_batch_size=SIZE,
        task=None if asks == "nothing" else AnsweringObjective(),
        head=head,
    )


@pytest.mark.parametrize("asks", ["nothing", "head", "the model"])
@pytest.mark.parametrize("backbone", ANSWERING)
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=1)], ids=["all", "adapters"])
def test_every_trained_parameter_has_a_gradient_and_ddp_takes_several_steps(group, backbone, asks, lora):
    model, batch = model_and_batch(backbone)
    names = dict(model.named_parameters()).keys()
    choose_trained_part(model, lora=lora)
    if asks == "head" and backbone == "vgt":
        batch.question["token_ids"] = batch.token_ids
    state = state_of(model.double(), asks)
    step = state.weighted_step
    assert isinstance(step.model, DistributedDataParallel)
    for number in range(2):
        step.compute_gradients(batch, step=number)
        assert [name for name, value in step.parameters.items() if value.grad is None] == []
    if lora is None:
        frozen = {name for name, value in model.named_parameters() if not value.requires_grad} & names
        parts = {name.split(".")[0] for name in frozen}
        assert (parts >= ANSWERING[backbone]) == (asks != "the model")
        assert not any(name.startswith("enc_img.swin") for name in frozen)


@pytest.mark.parametrize("backbone", ANSWERING)
def test_answering_parts_are_exactly_what_the_features_do_not_depend_on(backbone):
    model, batch = model_and_batch(backbone)
    own = {name: value for name, value in model.named_parameters() if value.requires_grad and name != "logit_scale"}
    video, text = model(batch.frames, batch.token_ids)
    gradients = torch.autograd.grad(video.sum() + text.sum(), list(own.values()), allow_unused=True)
    unread = {name for name, gradient in zip(own, gradients, strict=True) if gradient is None}
    assert unread == {name for name in own if matches(name, model.answering_parts)} != set()
