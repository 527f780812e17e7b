"""Questions of one clip in a batch: they are no negatives of each other, in every form of the contrastive loss."""

import pytest
import torch

from mama_ray.objectives.contrastive import compute_contrastive_losses
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.objectives.sigmoid import compute_sigmoid_losses

CLIPS = torch.tensor([4, 4, 7, 9, 9, 9])
SCALE, BIAS = torch.tensor(1.5, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64)


def features() -> tuple[torch.Tensor, torch.Tensor]:
    """Features of the clips and of a text of each pair."""
    generator = torch.Generator().manual_seed(0)
    videos, texts = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    videos[1], videos[4], videos[5] = videos[0], videos[3], videos[3]
    return tuple(torch.nn.functional.normalize(values, dim=-1) for values in (videos, texts))


def losses_of(loss: str, videos, texts, *, chunk_size: int = 0, clips=CLIPS) -> torch.Tensor:
    config = ContrastiveConfig(margin=0.2, chunk_size=chunk_size)
    if loss == "sigmoid":
        return compute_sigmoid_losses(videos, texts, SCALE, BIAS, config, clips=clips)
    return compute_contrastive_losses(videos, texts, SCALE, config, clips=clips)


@pytest.mark.parametrize("chunk_size", [0, 2, 4])
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_each_pair_has_the_loss_that_it_has_without_the_others_of_its_clip(loss, chunk_size):
    videos, texts = features()
    found = losses_of(loss, videos, texts, chunk_size=chunk_size)
    for pair in range(len(CLIPS)):
        alone = (CLIPS[pair] != CLIPS) | (torch.arange(len(CLIPS)) == pair)
        wanted = losses_of(loss, videos[alone], texts[alone], clips=None)[int(alone[:pair].sum())]
        torch.testing.assert_close(found[pair], wanted, rtol=1e-12, atol=0)
    assert (found < losses_of(loss, videos, texts, clips=None))[CLIPS != 7].all()


@pytest.mark.parametrize("chunk_size", [0, 4])
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_clips_of_one_pair_each_change_nothing(loss, chunk_size):
    videos, texts = features()
    with_clips = losses_of(loss, videos, texts, chunk_size=chunk_size, clips=torch.arange(6))
    assert torch.equal(with_clips, losses_of(loss, videos, texts, chunk_size=chunk_size, clips=None))
