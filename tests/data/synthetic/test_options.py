"""What corpora can have beside the plain ones: labels, facts of each topic's own, splits of several domains."""

import hashlib
import io
import json
from collections import Counter

import av
import numpy as np
import pytest

from mama_ray.config import with_overrides
from mama_ray.data.synthetic.config import CorpusConfig, corpus_hash
from mama_ray.data.synthetic.facts import facts_of, stream_rng
from mama_ray.data.synthetic.generate import clip_id_of, describe_clip, generate_clip
from mama_ray.data.synthetic.label import DIGITS, LETTERS, label_of, stamp_label
from mama_ray.data.synthetic.motion import trace
from mama_ray.data.synthetic.own_facts import EVERY_COLOUR_WORDS, EVERY_MOTION_WORDS, OWN_ATTRIBUTES, own_values
from mama_ray.data.synthetic.read_back import read_thing
from mama_ray.data.synthetic.recognise import is_generators
from mama_ray.data.synthetic.scene import draw_scene
from mama_ray.data.synthetic.vocabulary import SOURCE_TOPICS, TOPICS, count_distinct_facts
from mama_ray.data.synthetic.words import COLOUR_WORDS, MOTION_WORDS, SHAPE_WORDS, SIZE_WORDS

# SHA-256 of the descriptions of some clips of each split, and the corpus's hash, before there were these options.
BEFORE = {
    ("simple", "all", "plain"): ("3c19032a6cba92ae", "6a9b92939a71bf53"),
    ("full", "all", "plain"): ("b9144a25a7f144ce", "ea6bfddf1cb34ecf"),
    ("full", "source", "plain"): ("6412874c9cccde97", "71232c088560ef6e"),
    ("simple", "all", "first_person"): ("705de761894615b1", "925f84c403cdf70f"),
}
LABELLED = CorpusConfig(level="full", num_train=300, swapped_rate=0.4, label_rate={"swapped": 1.0, "clean": 0.5})
OWN = CorpusConfig(level="full", topic_facts="own", num_train=300, num_val=256, num_test=2048)


def describe_some(config: CorpusConfig) -> str:
    clips = [describe_clip(config, split, number) for split in config.num_clips for number in (0, 1, 2, 17, 90)]
    return hashlib.sha256(repr(clips).encode()).hexdigest()[:16]


def decode(video: bytes) -> np.ndarray:
    with av.open(io.BytesIO(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("kind", BEFORE, ids="-".join)
def test_corpora_without_these_options_are_what_they_were(kind):
    config = CorpusConfig(**dict(zip(("level", "domain", "texts"), kind, strict=True)))
    assert (corpus_hash(config)[:16], describe_some(config)) == BEFORE[kind]


def test_labels_come_at_the_rate_of_each_kind_and_in_training_alone():
    kinds = [(clip.truth["kind"], "label" in clip.truth) for clip in map(train_clip, range(300))]
    counts = Counter(kinds)
    assert counts["swapped", False] == counts["wrong", True] == counts["incomplete", True] == 0
    assert counts["swapped", True] > 80
    clean = counts["clean", True] + counts["clean", False]
    assert abs(counts["clean", True] - clean / 2) < 5 * np.sqrt(clean / 4)
    assert not any("label" in describe_clip(LABELLED, s, n).truth for s in ("meta", "val", "test") for n in range(40))


def train_clip(number: int):
    return describe_clip(LABELLED, "train", number)


def test_a_caption_names_the_label_that_the_picture_shows():
    seen = 0
    for number in range(60):
        generated = generate_clip(LABELLED, "train", number)
        label, text = generated.clip.truth.get("label"), generated.clip.captions[0].text
        assert label == label_of(LABELLED, "train", number)
        assert ("labelled" in text) == (label is not None)
        if label is None:
            continue
        seen += 1
        assert text.endswith(f" labelled {label[0]} {label[1]}")
        corner = decode(generated.video)[:, -14:, -18:].mean(axis=(0, 3))
        signs = {}
        for other in (a + b for a in LETTERS for b in DIGITS):
            blank = np.zeros((1, 48, 48, 3), np.uint8)
            stamp_label(blank, other)
            signs[other] = blank[0, -14:, -18:].mean(axis=2)
        assert min(signs, key=lambda other: np.abs(signs[other] - corner).sum()) == label
    assert seen > 15


def test_fewer_signs_make_fewer_labels_and_change_nothing_else():
    few = with_overrides(LABELLED, {"label_signs": 2})
    clips = [describe_clip(few, "train", number) for number in range(300)]
    labels = {clip.truth.get("label") for clip in clips} - {None}
    assert labels == {letter + digit for letter in LETTERS[:2] for digit in DIGITS[:2]}
    kinds = [(clip.truth["kind"], "label" in clip.truth) for clip in clips]
    assert kinds == [(clip.truth["kind"], "label" in clip.truth) for clip in map(train_clip, range(300))]


def test_a_swapped_clip_tells_of_the_other_clip_and_of_its_own_label():
    swapped = next(clip for clip in map(train_clip, range(100)) if clip.truth["kind"] == "swapped")
    other = int(swapped.truth["swapped_with"].rsplit("-", 1)[1])
    told = train_clip(other).truth["clean_caption"]
    assert swapped.captions[0].text.startswith(told) and swapped.captions[0].text != told


def test_a_misread_caption_takes_each_colour_and_motion_for_its_neighbour():
    config = CorpusConfig(level="full", num_train=200, misread_rate=0.4, swapped_rate=0.0, label_rate={"misread": 1.0})
    clips = [describe_clip(config, "train", number) for number in range(200)]
    misread = [clip for clip in clips if clip.truth["kind"] == "misread"]
    assert abs(len(misread) - 80) < 5 * np.sqrt(200 * 0.4 * 0.6)
    taken_for = set()
    for clip in misread:
        for seen, said in zip(clip.truth["facts"]["objects"], clip.truth["stated"]["objects"], strict=True):
            assert (seen["shape"], seen["size"]) == (said["shape"], said["size"])
            taken_for |= {(seen["colour"], said["colour"]), (seen["motion"], said["motion"])}
        assert len(clip.truth["misread"]) == 4 and "label" in clip.truth
    assert taken_for >= {("red", "orange"), ("orange", "red"), ("left", "right"), ("right", "left")}
    assert len(taken_for) == 16 == len(dict(taken_for)) == len({said for _, said in taken_for})
    assert not any("label" in clip.truth for clip in clips if clip.truth["kind"] != "misread")


def test_a_later_kind_of_label_leaves_the_hash_of_labelled_corpora_as_it_was():
    assert corpus_hash(LABELLED)[:16] == "6b3718f770027d70"
    assert corpus_hash(with_overrides(LABELLED, {"label_rate.misread": 0.1})) != corpus_hash(LABELLED)


def test_labels_are_of_plain_texts():
    with pytest.raises(ValueError, match="label_rate is of texts plain"):
        CorpusConfig(texts="first_person", label_rate={"clean": 0.5})


def test_no_two_topics_share_a_colour_or_a_motion_of_their_own():
    for name in ("colour", "motion"):
        values = [value for shape in TOPICS for value in own_values(shape)[name]]
        assert len(set(values)) == len(values) == 16
        assert set(values) == set(OWN_ATTRIBUTES[name])
    for split in ("train", "meta", "test"):
        for number in range(80):
            for thing in facts_of(OWN, split, number):
                assert thing.colour in own_values(thing.shape)["colour"]
                assert thing.motion in own_values(thing.shape)["motion"]


def test_val_and_test_of_topics_with_own_facts_are_distinct_balanced_and_have_twins():
    facts = {
        split: [facts_of(OWN, split, number) for number in range(OWN.num_clips[split])] for split in ("val", "test")
    }
    assert len({*facts["val"], *facts["test"]}) == 256 + 2048
    assert set(Counter(pair[0].shape for pair in facts["test"]).values()) == {256}
    assert all(pair[::-1] in set(facts["test"]) for pair in facts["test"])
    assert count_distinct_facts("full", has_own=True) == 3072
    whole = CorpusConfig(level="full", topic_facts="own", num_val=1024, num_test=2048)
    every = {facts_of(whole, split, number) for split in ("val", "test") for number in range(whole.num_clips[split])}
    assert len(every) == 3072
    with pytest.raises(ValueError, match="at most 3072"):
        CorpusConfig(level="full", topic_facts="own", num_val=1040, num_test=2048)
    with pytest.raises(ValueError, match="at most 64"):
        CorpusConfig(topic_facts="own", num_val=8, num_test=64)


def test_a_rare_topics_own_facts_are_rare_in_training():
    config = with_overrides(OWN, {"zipf_exponent": 2.0})
    counts = Counter(thing.motion for number in range(300) for thing in facts_of(config, "train", number))
    assert max(counts.values()) > 20 * min(counts[motion] for motion in OWN_ATTRIBUTES["motion"])


def test_the_words_of_own_facts_can_be_read_back_and_stand_for_one_fact_alone():
    words = [
        word for table in (SHAPE_WORDS, SIZE_WORDS, EVERY_COLOUR_WORDS) for ways in table.values() for word in ways
    ]
    words += [form for ways in EVERY_MOTION_WORDS.values() for forms in ways for form in forms]
    assert len(set(words)) == len(words)
    simple = with_overrides(OWN, {"level": "simple", "num_val": 8, "num_test": 16, "wrong_rate": 0.5})
    for number in range(100):
        clip = describe_clip(simple, "meta", number)
        assert (read_thing(clip.captions[0].text),) == facts_of(simple, "meta", number)
    wrong = [describe_clip(simple, "train", number) for number in range(100)]
    assert all(clip.questions and clip.truth["stated"]["objects"] for clip in wrong)


def test_a_clip_with_own_facts_is_known_as_the_generators():
    assert is_generators(json.dumps(describe_clip(OWN, "test", 0).truth))


def test_every_motion_looks_different_in_the_four_frames_that_a_small_model_reads():
    progress = np.clip((np.arange(8)[1::2] + 0.5) / 8 * 2, 0, 1)  # the first of two objects
    looks = {}
    for motion in OWN_ATTRIBUTES["motion"]:
        path = trace(motion, progress, "full")
        looks[motion] = np.concatenate([path.offset.ravel(), path.scale / 4, path.is_shown])
    names = list(looks)
    gaps = [np.abs(looks[a] - looks[b]).max() for n, a in enumerate(names) for b in names[n + 1 :]]
    assert min(gaps) > 0.03  # shares of the side: more than a pixel of 48


def test_meta_and_test_of_other_domains_leave_the_rest_as_it_is():
    plain = CorpusConfig(level="full", num_val=32, num_test=64)
    mixed = with_overrides(plain, {"meta_domain": "source", "test_domain": "shifted"})
    for number in range(20):
        assert facts_of(mixed, "train", number) == facts_of(plain, "train", number)
        one, two = (describe_clip(config, "train", number).captions for config in (plain, mixed))
        assert one == two
        assert facts_of(mixed, "test", number) == facts_of(plain, "test", number)
    shown = {thing.shape for number in range(60) for thing in facts_of(mixed, "meta", number)}
    assert shown == set(SOURCE_TOPICS)
    assert {thing.shape for number in range(60) for thing in facts_of(mixed, "test", number)} == set(TOPICS)
    source_test = CorpusConfig(level="full", num_val=200, num_test=800, test_domain="source")
    pairs = [facts_of(source_test, split, n) for split in ("val", "test") for n in range(source_test.num_clips[split])]
    assert len(set(pairs)) == 1000 and {thing.shape for pair in pairs for thing in pair} == set(SOURCE_TOPICS)


def test_the_shifted_domain_is_dim_noisy_and_told_in_the_rarer_words():
    config = CorpusConfig(level="full", test_domain="shifted", meta_domain="source", num_test=64)

    def scenes(split):
        for number in range(40):
            rng = stream_rng(config.seed, "scene", split, number)
            domain = config.domain_of(split)
            yield draw_scene(facts_of(config, split, number), "full", 8, rng, domain=domain)

    assert max(scene.brightness for scene in scenes("test")) < 0.85 < min(scene.brightness for scene in scenes("train"))
    assert min(scene.noise for scene in scenes("test")) > 4
    assert {scene.background for scene in scenes("meta")} == {"plain", "gradient"}
    assert {scene.background for scene in scenes("test")} == {"stripes", "checks", "blobs"}
    plain = {ways[0] for words in (COLOUR_WORDS, SIZE_WORDS) for ways in words.values()}
    plain |= {form for ways in MOTION_WORDS.values() for form in ways[0]}
    told = [f" {describe_clip(config, 'test', number).captions[0].text} " for number in range(40)]
    assert not [text for text in told for word in plain if f" {word} " in text]


def test_names_and_folders_of_such_corpora_are_their_own():
    options = [
        {},
        {"label_rate.swapped": 1.0},
        {"topic_facts": "own"},
        {"meta_domain": "source"},
        {"test_domain": "shifted"},
        {"test_domain": "source"},
    ]
    configs = [with_overrides(CorpusConfig(level="full"), option) for option in options]
    assert len({corpus_hash(config) for config in configs}) == len(configs)
    assert len({clip_id_of(config, "train", 0) for config in configs}) == len(configs)
    assert clip_id_of(configs[0], "train", 0) == "full-0-train-000000"
