"""Two and three gloo ranks equal one rank on the joined batch: losses, derivatives, phi's gradient, theta's steps."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from mama_ray.data.batch import GENERATED_IDS, TARGET_PREFIX, WEIGHT_INPUTS, ClipBatch, pad_batch, to_clip_batch
from mama_ray.data.plan import local_batch_size
from mama_ray.objectives.objective import SHARE
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.weighting.features import FeatureModel
from mama_ray.weighting.hypergradient import directional_derivatives
from mama_ray.weighting.settings import InnerStepConfig
from tests.ranks import leave_group
from tests.weighting.toys import (
    INPUTS,
    AnswerLoss,
    HeadLoss,
    HeadModel,
    ToyEncoder,
    build_step,
    random_batch,
    random_weight_net,
    with_columns,
    with_generated,
)

GLOBAL_BATCH, META_BATCH, NUM_STEPS = 12, 6, 5
VARIANTS = {
    "shared": {"arrangement": "shared"},
    "faithful": {"arrangement": "faithful"},
    "second_order": {"hypergradient": "second_order"},
    "finite_difference": {"hypergradient": "finite_difference"},
    "micro_batches": {"num_micro_batches": 2, "arrangement": "faithful"},
    "uneven_micro_batches": {"num_micro_batches": 4},
    "uneven_micro_batches_faithful": {
        "num_micro_batches": 4,
        "arrangement": "faithful",
        "hypergradient": "finite_difference",
    },
    "invalid_clips": {"arrangement": "shared"},
    "padded": {"arrangement": "shared"},
    "task": {"task": AnswerLoss(), "eta": 2.0, "arrangement": "faithful", "num_micro_batches": 2},
    "padded_task": {"task": AnswerLoss(), "eta": 2.0},
    "head": {"task": HeadLoss(), "num_micro_batches": 2, "hypergradient": "second_order"},
    "sigmoid": {"objective": ContrastiveConfig(loss="sigmoid", margin=0.2)},
    "padded_sigmoid": {
        "objective": ContrastiveConfig(loss="sigmoid", margin=0.2, chunk_size=3),
        "arrangement": "faithful",
        "num_micro_batches": 2,
    },
    "two_scales": {"objective": ContrastiveConfig(generated_scale=3.0, margin=0.2, chunk_size=5)},
    "max_margin": {"objective": ContrastiveConfig(loss="max_margin"), "arrangement": "faithful"},
    "padded_similarity": {
        "objective": ContrastiveConfig(loss="multi_similarity", chunk_size=3),
        "num_micro_batches": 2,
    },
    "averaged": {"gradient_decay": 0.7},
    "drawn": {"tangent_share": 0.5, "arrangement": "faithful"},
    "padded_drawn": {"tangent_share": 0.25},
    "drawn_micro_batches": {"tangent_share": 0.5, "num_micro_batches": 2},
    "restricted": {"inner": InnerStepConfig(lr=0.1, parameters=("video.2", "text"))},
    "restricted_faithful": {"inner": InnerStepConfig(lr=0.1, parameters=("text",)), "arrangement": "faithful"},
    "relative": {"inner": InnerStepConfig(lr=0.03, relative=True)},
    "adam": {"inner": InnerStepConfig(optimizer="adam", lr=0.01), "arrangement": "faithful"},
    "relative_adam": {"inner": InnerStepConfig(optimizer="adam", lr=0.03, relative=True), "num_micro_batches": 2},
    "inputs": {"weighting_config": INPUTS, "arrangement": "faithful"},
    "padded_inputs": {"weighting_config": INPUTS.model_copy(update={"standardise": True}), "num_micro_batches": 2},
    "margin": {"margin": "scalar", "arrangement": "faithful", "hypergradient": "second_order"},
    "padded_margin": {"margin": "per_sample", "num_micro_batches": 2},
    "drawn_margin": {"margin": "per_sample", "tangent_share": 0.5},
    "pairs": {"objective": ContrastiveConfig(generated_share=0.3, margin=0.2), "arrangement": "faithful"},
    "padded_learned_pairs": {
        "objective": ContrastiveConfig(generated_share="learned", margin=0.2, chunk_size=5),
        "margin": "per_sample",
        "num_micro_batches": 2,
        "arrangement": "faithful",
    },
    "drawn_learned_pairs_inputs": {
        "objective": ContrastiveConfig(generated_share="learned"),
        "weighting_config": INPUTS,
        "tangent_share": 0.5,
    },
    "padded_micro_batches": {"num_micro_batches": 2, "arrangement": "faithful", "hypergradient": "second_order"},
}
PADDED = {
    "padded": (16, 7),
    "padded_drawn": (16, 7),
    "padded_inputs": (16, 7),
    "padded_margin": (16, 7),
    "padded_learned_pairs": (16, 7),
    "padded_micro_batches": (16, 7),
    "padded_task": (16, 7),
    "padded_sigmoid": (16, 7),
    "padded_similarity": (16, 7),
}  # sizes that three ranks do not divide


def slice_of(batch: ClipBatch, rank: int, world_size: int, num_parts: int = 1) -> ClipBatch:
    """What a rank takes of a global batch, filled up with padding as the stream of batches does."""
    size = local_batch_size(len(batch), world_size, num_parts=num_parts)
    own = batch[rank * size : (rank + 1) * size]
    tensors = {"frames": own.frames, "token_ids": own.token_ids, "rows": own.rows, "valid": own.valid}
    if own.weight_inputs is not None:
        tensors[WEIGHT_INPUTS] = own.weight_inputs
    if own.generated_ids is not None:
        tensors[GENERATED_IDS] = own.generated_ids
    tensors |= {TARGET_PREFIX + name: value for name, value in own.targets.items()}
    return to_clip_batch(pad_batch({name: value.numpy() for name, value in tensors.items()}, size))


def run_steps(rank: int, world_size: int, variant: str) -> dict[str, torch.Tensor]:
    """Five steps of SGD, or of AdamW where the lookahead is its; every rank returns the same numbers."""
    options = {"objective": ContrastiveConfig(margin=0.2)} | VARIANTS[variant]
    bias = -2.0 if options["objective"].loss == "sigmoid" else None
    model = HeadModel() if variant == "head" else FeatureModel(ToyEncoder(), logit_bias=bias)
    wrapped = model
    if world_size > 1:
        wrapped = DistributedDataParallel(wrapped, gradient_as_bucket_view=True)
    net = random_weight_net(config=options.get("weighting_config"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if "adam" in variant:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.98))
    step = build_step(wrapped, net, weight_lr=0.5, optimizer=optimizer, **options)
    outcome = {}
    size, meta_size = PADDED.get(variant, (GLOBAL_BATCH, META_BATCH))
    for number in range(NUM_STEPS):
        batch, meta_batch = random_batch(number, size), random_batch(100 + number, meta_size)
        if variant == "invalid_clips":
            batch.valid[[1, 7]] = False
        if options["objective"].mixes_captions:
            batch = with_generated(batch, number)
        if "inputs" in variant:
            batch = with_columns(batch, number)
            batch.valid[3] = False
        num_parts = 1 if variant.startswith("uneven") else step.num_micro_batches
        batch = slice_of(batch, rank, world_size, num_parts)
        meta_batch = slice_of(meta_batch, rank, world_size)
        if number == 0:
            generator = torch.Generator().manual_seed(0)
            direction = {
                name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
                for name, value in step.parameters.items()
            }
            told = batch
            if options["objective"].learns_share:
                told = replace(batch, targets=batch.targets | {SHARE: torch.full((len(batch),), 0.3)})
            own = directional_derivatives(
                lambda values, b=told: step._functional_losses(values, b),
                step.parameters,
                direction,
                step.meta.hypergradient,
            )
            parts = [torch.empty_like(own) for _ in range(world_size)]
            if world_size > 1:
                dist.all_gather(parts, own.contiguous())
            outcome["derivatives"] = torch.cat(parts)[:size] if world_size > 1 else own
        result = step.compute_gradients(batch, meta_batch, measure_lookahead=True)
        if result.shares is not None:
            outcome[f"shares{number}"] = result.shares[:size].nan_to_num(nan=-1.0)
        outcome[f"losses{number}"], outcome[f"weights{number}"] = result.losses[:size], result.weights[:size]
        assert not result.losses[size:].any() and not result.weights[size:].any()
        outcome[f"meta{number}"] = torch.stack(
            [
                result.scalars[f"meta/{name}"].double()
                for name in ("loss", "loss_before_lookahead", "hypergradient_norm")
            ]
        )
        outcome[f"phi_gradient{number}"] = torch.cat([p.grad.flatten() for p in net.parameters()])
        optimizer.step()
    outcome["theta"] = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    if step.dials is not None:
        outcome["dials"] = torch.cat([value.detach().flatten() for value in step.dials.module.parameters()])
    outcome["phi"] = torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
    return outcome


def worker(rank: int, world_size: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
    outcomes = {variant: run_steps(rank, world_size, variant) for variant in VARIANTS}
    torch.save(outcomes, Path(folder) / f"rank{rank}.pt")
    leave_group()


@pytest.fixture(scope="module", params=[2, 3])
def outcomes(request, tmp_path_factory) -> list[dict]:
    """What every rank of a group saw, over all variants."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(request.param, port, str(folder)), nprocs=request.param)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(request.param)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_ranks_equal_one_process_on_the_joined_batch(outcomes, variant):
    alone = run_steps(0, 1, variant)
    is_difference = VARIANTS[variant].get("hypergradient") == "finite_difference"
    tolerance = 1e-5 if is_difference else 1e-9  # rounding, over a radius of 3e-8
    for of_rank in outcomes:
        for name, value in alone.items():
            torch.testing.assert_close(
                of_rank[variant][name], value, rtol=tolerance, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("variant", VARIANTS)
def test_weight_nets_of_all_ranks_are_bitwise_equal(outcomes, variant):
    assert all(torch.equal(outcomes[0][variant]["phi"], other[variant]["phi"]) for other in outcomes[1:])
