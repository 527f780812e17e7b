import pytest
import torch

from mama_ray.models.stochastic_depth import drop_branch, rates_by_depth


def test_a_branch_is_dropped_for_whole_clips_and_its_mean_stays():
    torch.manual_seed(0)
    dropped = drop_branch(torch.ones(4000, 2, 3), 0.25)
    by_clip = dropped.flatten(1)
    assert (by_clip == by_clip[:, :1]).all()
    assert sorted(set(by_clip[:, 0].tolist())) == pytest.approx([0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)  # four standard errors


def test_no_rate_draws_nothing():
    branch = torch.randn(3, 2)
    before = torch.get_rng_state()
    assert drop_branch(branch, 0.0) is branch
    assert torch.equal(torch.get_rng_state(), before)


def test_rates_grow_linearly_from_zero():
    assert rates_by_depth(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert rates_by_depth(0.3, 1) == [0]
