"""Post-processing keeps words that only look like image words, and the grammar around those it replaces."""

import pytest

from mama_ray.captioning.postprocess import PostprocessConfig, postprocess


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("  A dog \n runs. ", "A dog runs."),
        ("The image shows a dog.", "The video shows a dog."),
        ("The images show a dog.", "The video show a dog."),
        ("Images of a dog", "Video of a dog"),
        ("An image of a dog in an image", "A video of a dog in a video"),
        ("Vivid imagery, reimaged.", "Vivid imagery, reimaged."),
        ("", ""),
    ],
)
def test_words_are_replaced_on_their_boundaries(text, caption):
    assert postprocess(text, PostprocessConfig()) == caption


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("A dog runs. It stops.", "A dog runs."),
        ("A dog runs", "A dog runs"),
        ("It took 2.5 s to stop! Then it ran.", "It took 2.5 s to stop!"),
    ],
)
def test_one_sentence_is_kept_where_the_prompt_asks_for_one(text, caption):
    assert postprocess(text, PostprocessConfig(first_sentence=True)) == caption


def test_image_words_may_stay():
    assert postprocess("an image", PostprocessConfig(replace_image_words=False)) == "an image"
