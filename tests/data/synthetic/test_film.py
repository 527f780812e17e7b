"""The embedded film shows its clips one after the other, and its annotations say which."""

import json

import numpy as np

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.film import ANNOTATIONS_NAME, write_film
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.probe import probe_video

CORPUS = CorpusConfig(num_train=4, num_val=3, num_test=1, num_frames=8, fps=8)


def test_a_film_is_its_clips_in_their_order(tmp_path):
    clips = [("val", 0), ("val", 2), ("test", 0)]
    film = write_film(tmp_path, CORPUS, clips)
    info = probe_video(film)
    assert (info.num_frames, info.duration_s, info.codec) == (24, 3.0, "h264")
    rows = [json.loads(line) for line in (tmp_path / ANNOTATIONS_NAME).read_text().splitlines()]
    assert [(row["start_s"], row["end_s"]) for row in rows] == [(0, 1), (1, 2), (2, 3)]
    frames = VideoDecoder(film).frames_by_index(np.arange(24)).reshape(3, 8, 48, 48, 3)
    for clip, shown, row in zip(clips, frames, rows, strict=True):
        generated = generate_clip(CORPUS, *clip)
        assert row["captions"][0]["text"] == generated.clip.captions[0].text
        own = VideoDecoder(generated.video).frames_by_index(np.arange(8))
        assert np.abs(shown.astype(int) - own).mean() < 6


def test_a_film_is_the_same_bytes_each_time_and_is_not_made_twice(tmp_path):
    first = write_film(tmp_path / "a", CORPUS, [("val", 0)])
    assert first.read_bytes() == write_film(tmp_path / "b", CORPUS, [("val", 0)]).read_bytes()
    before = first.stat().st_mtime_ns
    assert write_film(tmp_path / "a", CORPUS, [("val", 0)]).stat().st_mtime_ns == before
