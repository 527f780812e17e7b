"""Padding of batches: equally long for every worker, and never mistaken for a clip."""

import numpy as np
import pytest
import torch

from mama_ray.data.batch import PADDING_ROW, TARGET_PREFIX, WEIGHT_INPUTS, pad_batch, to_clip_batch

CLIPS = {
    "frames": np.full((3, 2, 4, 4, 3), 7, np.uint8),
    "token_ids": np.arange(15).reshape(3, 5),
    "rows": np.array([4, 0, 9]),
    "valid": np.array([True, False, True]),
}


def test_padding_comes_after_the_clips_and_is_neither_valid_nor_a_clip():
    padded = pad_batch(CLIPS, 5)
    for name, values in CLIPS.items():
        np.testing.assert_array_equal(padded[name][:3], values)
        assert padded[name].dtype == values.dtype
        assert padded[name].shape == (5, *values.shape[1:])
    assert not padded["valid"][3:].any()
    assert set(padded["rows"][3:]) == {PADDING_ROW}


def test_a_whole_batch_is_not_copied():
    assert all(values is CLIPS[name] for name, values in pad_batch(CLIPS, 3).items())


def test_a_batch_may_be_all_padding():
    nothing = {name: values[:0] for name, values in CLIPS.items()}
    assert {len(values) for values in pad_batch(nothing, 2).values()} == {2}
    assert not pad_batch(nothing, 2)["valid"].any()


def test_a_batch_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="cannot be padded to 2"):
        pad_batch(CLIPS, 2)


def test_targets_pad_slice_and_move_with_their_clips():
    arrays = CLIPS | {f"{TARGET_PREFIX}answer": np.array([5, 6, 7])}
    batch = to_clip_batch(pad_batch(arrays, 4))
    assert {name: tensor.tolist() for name, tensor in batch.targets.items()} == {"answer": [5, 6, 7, 0]}
    part = batch[1:3].to("meta")
    assert part.targets["answer"].shape == (2,) and part.targets["answer"].device.type == "meta"
    assert batch[1:3].targets["answer"].tolist() == [6, 7]
    assert to_clip_batch(CLIPS).targets == {}


def test_inputs_of_the_weight_net_pad_slice_and_move_with_their_clips():
    columns = np.array([[0.5, 1], [np.nan, 0], [2.5, 2]], np.float32)
    batch = to_clip_batch(pad_batch(CLIPS | {WEIGHT_INPUTS: columns}, 4))
    np.testing.assert_array_equal(batch.weight_inputs.numpy(), np.vstack([columns, np.zeros((1, 2))]))
    np.testing.assert_array_equal(batch[1:3].weight_inputs.numpy(), columns[1:])
    np.testing.assert_array_equal(batch.select(torch.tensor([0, 2])).weight_inputs.numpy(), columns[[0, 2]])
    assert batch.to("meta").weight_inputs.device.type == "meta"
    assert to_clip_batch(CLIPS).weight_inputs is None
