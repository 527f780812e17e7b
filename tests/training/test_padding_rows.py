"""A row that fills up a batch holds no token, and leaves neither loss nor gradients nor hypergradient a trace."""

from dataclasses import replace

import pytest
import torch

from mama_ray.config import with_overrides
from mama_ray.data.batch import PADDING_ROW, ClipBatch
from mama_ray.models.pretrained import BACKBONES
from mama_ray.objectives.question_answering import AnsweringObjective
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import build_state
from mama_ray.weighting.settings import MetaConfig, WeightingConfig
from tests.models.tiny_backbones import TINY
from tests.models.vgt.small import features

SIZE = 4
# The fields of what drops in each, and that of the id of padding: 0 in BERT's vocabularies, as batches are filled up.
DROPPED = {
    "violet": ("dropout",),
    "vgt": ("dropout", "text.dropout"),
    "timesformer distilbert": ("text_dropout",),
}
PAD_ID = {"vgt": "text.pad_token_id", "hf_encoder videoprism": "pad_id"}
CASES = [name for name in TINY if name not in ("timesformer joint",)]
ANSWERING = ("violet", "vgt")


def model_of(name: str, dropout: float):
    fields = dict.fromkeys(DROPPED.get(name, ()), dropout)
    fields |= {PAD_ID[name]: 0} if name in PAD_ID else {}
    torch.manual_seed(0)
    return BACKBONES[name.split()[0]].build_fresh(with_overrides(TINY[name], fields)).to(torch.float64)


def batch_of(name: str, model, seed: int, *, is_asked: bool) -> ClipBatch:
    torch.manual_seed(seed)
    if name == "vgt":
        video = features(model.config, SIZE)
        frames = torch.cat([video["frames"], video["regions"].flatten(3)], dim=-1)
    else:
        side = model.config.image_size
        frames = torch.randint(0, 255, (SIZE, model.config.num_frames, side, side, 3), dtype=torch.uint8)
    question, targets = {}, {}
    if is_asked:
        question = {"token_ids": torch.randint(5, 38, (SIZE, 9))}
        question |= {"mask_positions": torch.randint(0, 9, (SIZE,))} if name == "violet" else {}
        targets = {"answer": torch.randint(0, 6, (SIZE,))}
    texts = torch.randint(5, 38, (SIZE, 10))
    return ClipBatch(frames, texts, torch.arange(SIZE), torch.ones(SIZE, dtype=torch.bool), targets, question)


def filled_up(batch: ClipBatch) -> ClipBatch:
    """The batch with its last row as `pad_batch` fills one up."""

    def empty(values: torch.Tensor, fill: int = 0) -> torch.Tensor:
        values = values.clone()
        values[-1] = fill
        return values

    return replace(
        batch,
        frames=empty(batch.frames),
        token_ids=empty(batch.token_ids),
        rows=empty(batch.rows, PADDING_ROW),
        valid=empty(batch.valid),
        targets={name: empty(values) for name, values in batch.targets.items()},
        question={name: empty(values) for name, values in batch.question.items()},
    )


def step_of(
    name: str, dropout: float, *, is_asked: bool, prepare, device: str = "cpu", dtype: torch.dtype = torch.float64
) -> tuple[dict, dict[str, torch.Tensor]]:
    """One step with its meta step on batches that `prepare` has made of whole ones; scalars and gradients."""
    model = model_of(name, dropout).to(device, dtype)
    if is_asked and name == "vgt":
        torch.manual_seed(1)
        model.set_answers(torch.randint(5, 38, (6, 4)))
    state = build_state(
        model,
        objective=ContrastiveConfig(margin=0.1),
        task=AnsweringObjective() if is_asked else None,
        weighting=WeightingConfig(hidden_dim=8),
        meta=MetaConfig(meta_every=1),
        optim=OptimConfig(lr=0.01),
        num_steps=3,
        global_batch_size=SIZE,
    )
    state.weighting.to(device)
    batch, meta = (prepare(batch_of(name, model, seed, is_asked=is_asked)).to(device) for seed in (2, 3))
    record = state.weighted_step.compute_gradients(batch, meta)
    gradients = {key: value.grad for key, value in state.weighted_step.parameters.items() if value.grad is not None}
    gradients |= {f"net.{key}": value for key, value in state.weighting.named_parameters()}
    return record.scalars, gradients


PARAMETERS = [(name, False) for name in CASES] + [(name, True) for name in ANSWERING]


@pytest.mark.parametrize(("name", "is_asked"), PARAMETERS)
def test_padding_leaves_everything_finite_where_attention_drops(name, is_asked):
    require_finite(*step_of(name, 0.1, is_asked=is_asked, prepare=filled_up))


def require_finite(scalars: dict, gradients: dict[str, torch.Tensor]) -> None:
    assert gradients
    for key in ("train/loss", "meta/loss", "meta/hypergradient_norm"):
        assert torch.as_tensor(scalars[key]).isfinite(), key
    assert [key for key, value in gradients.items() if not value.isfinite().all()] == []


@pytest.mark.parametrize(("name", "is_asked"), [case for case in PARAMETERS if case[0] != "vgt"])
def test_a_step_with_padding_is_the_step_without_it(name, is_asked):  # VGT's batch statistics count all rows
    with_padding, ours = step_of(name, 0.0, is_asked=is_asked, prepare=filled_up)
    without, theirs = step_of(name, 0.0, is_asked=is_asked, prepare=lambda batch: batch[: SIZE - 1])
    for key in ("train/loss", "meta/loss", "meta/hypergradient_norm"):
        assert float(with_padding[key]) == pytest.approx(float(without[key]), rel=1e-9), key
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-7, atol=1e-10, msg=key)
