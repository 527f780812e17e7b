"""The corpus in memory: frames, captions and truth belong together."""

import numpy as np
import pytest

from mama_ray.data.synthetic.generate import describe_clip, generate_clip
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.experiments.study.clip_arrays import load_split


@pytest.fixture
def tokenizer(small_study):
    return Tokenizer.from_directory(small_study.pretrained)


@pytest.mark.parametrize("split", ["train", "meta", "val", "test"])
def test_each_split_holds_its_own_clips(small_study, tokenizer, split):
    corpus = small_study.cell.seeded_corpus
    clips = load_split(corpus, split, small_study.frames_path, tokenizer, {})
    assert len(clips) == corpus.num_clips[split]
    for number in (0, len(clips) - 1):
        video = generate_clip(corpus, split, number).video
        wanted = load_clip_frames(video, num_frames=4, transform=TransformConfig(image_size=corpus.image_size))
        assert np.array_equal(clips.frames[number], wanted)
        text = describe_clip(corpus, split, number).captions[0].text
        assert np.array_equal(clips.token_ids[number], tokenizer([text])[0])


def test_captions_are_those_of_the_asked_rates_over_the_same_pictures(small_study, tokenizer):
    corpus = small_study.cell.seeded_corpus
    spoiled = load_split(corpus, "train", small_study.frames_path, tokenizer, {})
    assert {"clean", "swapped"} <= set(spoiled.kinds)
    swapped = int(np.flatnonzero(spoiled.kinds == "swapped")[0])
    truth = spoiled.clips[swapped].truth
    other = int(truth["swapped_with"].rsplit("-", 1)[1])
    assert spoiled.clips[swapped].captions[0].text == describe_clip(corpus, "train", other).truth["clean_caption"]


def test_a_generated_caption_takes_the_place_of_the_clips_own_where_it_is_asked_for(small_study, tokenizer):
    corpus = small_study.cell.seeded_corpus
    name = describe_clip(corpus, "train", 3).clip_id
    clips = load_split(corpus, "train", small_study.frames_path, tokenizer, {name: "a large red heart rises"})
    places = np.array([3, 4, 3])
    batch = clips.batch(places, use_generated=np.array([True, True, False]))
    assert np.array_equal(batch.token_ids[0], tokenizer(["a large red heart rises"])[0])
    assert np.array_equal(batch.token_ids[1], clips.token_ids[4])
    assert np.array_equal(batch.token_ids[2], clips.token_ids[3])
    assert not np.array_equal(clips.token_ids[3], batch.token_ids[0])
    without = load_split(corpus, "train", small_study.frames_path, tokenizer, {})
    assert without.token_ids is clips.token_ids and not without.generated  # a run's captions are not the next one's


def test_selected_clips_keep_what_belongs_to_them(small_study, tokenizer):
    corpus = small_study.cell.seeded_corpus
    name = describe_clip(corpus, "train", 5).clip_id
    clips = load_split(corpus, "train", small_study.frames_path, tokenizer, {name: "a ring"})
    chosen = clips.select(np.array([9, 5]))
    assert [clip.clip_id for clip in chosen.clips] == [clips.clips[9].clip_id, name]
    assert np.array_equal(chosen.frames[1], clips.frames[5])
    assert list(chosen.generated) == [1]


def test_frames_of_another_corpus_are_refused(small_study, tokenizer, tmp_path):
    np.save(tmp_path / "frames.npy", np.zeros((3, 4, 48, 48, 3), np.uint8))
    with pytest.raises(UserError, match="frames of another corpus"):
        load_split(small_study.cell.seeded_corpus, "train", tmp_path / "frames.npy", tokenizer, {})
