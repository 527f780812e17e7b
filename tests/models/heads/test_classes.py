"""Heads that tell classes: in their model's folder, and back."""

import pytest
import torch

from mama_ray.errors import UserError
from mama_ray.models.heads.classes import (
    ClassHeads,
    Classifier,
    capture_class_head,
    clip_feature,
    clip_feature_dim,
    has_class_head,
    load_classifier,
    read_class_head,
    split_kinds,
    write_class_head,
)
from mama_ray.models.heads.settings import ClassHeadConfig
from mama_ray.models.pretrained import save_pretrained


def test_a_folder_gives_back_what_was_written_and_stays_a_plain_model(tmp_path, model, frames):
    model = model.float()
    head = ClassHeads(clip_feature_dim(model), {"verb": 3, "action": 5})
    torch.nn.init.normal_(head.layers["action"].weight)
    save_pretrained(model, tmp_path)
    assert not has_class_head(tmp_path)
    write_class_head(capture_class_head(head, ("0:1", "2:0")), tmp_path)
    assert has_class_head(tmp_path)
    loaded = load_classifier(tmp_path)
    with torch.no_grad():
        found = loaded.classify(frames)
        wanted = Classifier(model.eval(), head.eval()).classify(frames)
    assert loaded.actions == ("0:1", "2:0", "", "", "") and list(found) == ["verb", "action"]
    assert found["action"].shape == (len(frames), 5)
    assert all(torch.equal(found[kind], wanted[kind]) for kind in wanted)


def test_a_folder_without_heads_and_heads_of_another_model_are_told(tmp_path, model):
    save_pretrained(model, tmp_path)
    with pytest.raises(UserError, match=r"tells no classes.*class_head\.json"):
        load_classifier(tmp_path)
    write_class_head(capture_class_head(ClassHeads(clip_feature_dim(model) + 1, {"verb": 3}), ()), tmp_path)
    with pytest.raises(UserError, match="not of this model"):
        load_classifier(tmp_path)
    captured = capture_class_head(ClassHeads(clip_feature_dim(model), {"verb": 3}), ())
    captured.content["sizes"] = {"verb": 4}
    write_class_head(captured, tmp_path)
    with pytest.raises(UserError, match="do not fit the class heads"):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": {"verb": -5}}, "sizes.*-5"),
        ({"sizes": {"verb": 10**11}}, "sizes.*100000000000"),
        ({"sizes": {"a.b": 3}}, "'a.b' is none of verb, noun, action"),
        ({"sizes": {"training": 3}}, "'training' is none of"),
        ({"sizes": {"action": 3}, "actions": ["0:1"]}, "1 names of 3 actions"),
    ],
)
def test_a_file_that_says_no_heads_is_refused_in_one_line(tmp_path, model, changes, message):
    save_pretrained(model, tmp_path)
    captured = capture_class_head(ClassHeads(clip_feature_dim(model), {"verb": 3}), ())
    captured.content.update(changes)
    write_class_head(captured, tmp_path)
    for read in (read_class_head, load_classifier):
        with pytest.raises(UserError, match=message) as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


def test_heads_read_the_feature_before_the_projection(model, frames):
    feature = clip_feature(model, frames)
    assert feature.shape[1] == clip_feature_dim(model) == model.config.video.width
    projected = torch.nn.functional.normalize(model.visual_projection(feature), dim=-1)
    torch.testing.assert_close(projected, model.encode_video(frames))


def test_logits_are_split_by_kind():
    parts = split_kinds(torch.arange(10.0).view(2, 5), {"verb": 2, "noun": 3})
    assert parts["verb"].tolist() == [[0, 1], [5, 6]] and parts["noun"].tolist() == [[2, 3, 4], [7, 8, 9]]


def test_a_run_is_selected_by_its_actions_where_it_tells_them():
    assert ClassHeadConfig().measured == "action"
    assert ClassHeadConfig(kinds=("noun", "verb")).measured == "verb"
    with pytest.raises(ValueError, match="twice"):
        ClassHeadConfig(kinds=("verb", "verb"))
