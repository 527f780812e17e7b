"""What stands at the very beginning of a name or a text."""

import pytest

from mama_ray.data.annotations import parse_annotation
from mama_ray.data.pairing import Sample
from mama_ray.orchestration.prepare.foreign import clip_of


@pytest.mark.parametrize("video", ["...and_then.mp4", "..a.mp4", "folder/..b.mp4"])
def test_dots_at_the_beginning_of_a_name_do_not_lead_out_of_the_folder(video):
    assert parse_annotation({"video": video}).video == video


@pytest.mark.parametrize("video", ["../a.mp4", "x/../../a.mp4"])
def test_a_path_that_leads_out_of_the_folder_is_refused(video):
    with pytest.raises(ValueError, match="inside the folder"):
        parse_annotation({"video": video})


def test_a_byte_order_mark_is_no_part_of_a_text_member_s_caption():
    sample = Sample("k", texts={"txt": b"\xef\xbb\xbfa cat"})
    clip = clip_of(sample, 1.0, default_split=None, source="human")
    assert [caption.text for caption in clip.captions] == ["a cat"]
