"""VGT in MAMA's step, with its own dropout and batch statistics: the hypergradient is exact, statistics move once."""

import pytest
import torch

from mama_ray.data.batch import ClipBatch
from mama_ray.weighting.question_model import QuestionModel
from tests.models.vgt.small import features, padded_texts, small_model
from tests.weighting.answering_toys import question_step, reference
from tests.weighting.test_hypergradient import relative_error
from tests.weighting.toys import weight_gradients


def vgt_batch(seed: int, size: int, *, config) -> ClipBatch:
    """Clips by their features, packed as a reader packs them, with a question of three options each."""
    torch.manual_seed(seed)
    video = features(config, size)
    packed = torch.cat([video["frames"], video["regions"].flatten(3)], dim=-1)
    options = torch.stack([padded_texts(3, 5, 4) for _ in range(size)])
    return ClipBatch(
        frames=packed,
        token_ids=padded_texts(*([4, 6] * size)[:size]),
        rows=torch.arange(size),
        valid=torch.ones(size, dtype=torch.bool),
        targets={"answer": torch.randint(0, 3, (size,))},
        question={"option_token_ids": options},
    )


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
def test_hypergradient_of_vgt_equals_the_second_order_graph(arrangement):
    model = small_model(sees_words_in_frames=True).train()
    assert model.config.dropout == 0.3
    step = question_step(QuestionModel(model), arrangement=arrangement)
    batch, meta_batch = vgt_batch(1, 5, config=model.config), vgt_batch(2, 4, config=model.config)
    phi, theta = reference(step, batch, meta_batch)
    assert relative_error(weight_gradients(step, batch, meta_batch), phi) < 1e-6
    assert all(gradient.abs().max() > 0 for gradient in phi)
    for name, gradient in zip(step.parameters, theta, strict=True):
        torch.testing.assert_close(step.parameters[name].grad, gradient, rtol=1e-7, atol=1e-11, msg=name)
    assert model.state_dict()["encode_vid.bbox_conv.1.num_batches_tracked"] == 1
