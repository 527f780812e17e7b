import pytest
import torch

from mama_ray.errors import UserError
from mama_ray.models.clip_vip.model import ClipVip
from mama_ray.models.clip_vip.presets import PRESETS
from mama_ray.models.pretrained import preset


@pytest.mark.parametrize(("name", "count"), [("base_32", 151_288_833), ("base_16", 149_632_257), ("tiny", 698_177)])
def test_preset_has_the_specified_number_of_parameters(name, count):
    with torch.device("meta"):
        model = ClipVip(preset(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_base_32_keys_are_those_of_clip_plus_two():
    from transformers import CLIPConfig, CLIPModel

    with torch.device("meta"):
        ours = ClipVip(preset("base_32")).state_dict()
        theirs = CLIPModel(CLIPConfig()).state_dict()
    added = {"vision_model.embeddings.added_cls", "vision_model.embeddings.temporal_embedding"}
    assert set(ours) == set(theirs) | added
    assert all(ours[key].shape == theirs[key].shape for key in theirs)


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(UserError, match="base_32") as caught:
        preset("base_23")
    assert all(name in str(caught.value) for name in PRESETS)
