"""Post-processing keeps words that only look like image words, and the grammar around those it replaces."""

import pytest

from mama_ray.captioning.postprocess import PostprocessConfig, postprocess


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("  A dog \n runs. ", "A dog runs."),
        ("The image shows a dog.", "The video shows a dog."),
        ("The images show a dog.", "The videos show a dog."),
        ("Images of a dog", "Videos of a dog"),
        ("A dog runs. These images depict it in the images.", "A dog runs. These videos depict it in the videos."),
        ("A grid of 12 images shows a dog", "A grid of 12 images shows a dog"),
        ("Twelve images of a dog", "Twelve images of a dog"),
        ("A series of images of a dog", "A series of images of a dog"),
        ("a man edits images on a computer", "a man edits images on a computer"),
        ("The first image shows a dog.", "The first image shows a dog."),
        ("each image, the top left image", "each image, the top left image"),
        ("her mirror image", "her mirror image"),
        ("The image's colours; IN THE IMAGE", "The video's colours; IN THE Video"),
        ("a black and white image", "a black and white video"),
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
        ("Mr. Smith talks to Dr. Jones. They laugh.", "Mr. Smith talks to Dr. Jones."),
        ("1. A dog runs. 2. It stops.", "1. A dog runs."),
        ('He says "Stop." Then he runs.', 'He says "Stop."'),
        ("一只狗在跑。它停下来了。", "一只狗在跑。"),
    ],
)
def test_one_sentence_is_kept_where_the_prompt_asks_for_one(text, caption):
    assert postprocess(text, PostprocessConfig(first_sentence=True)) == caption


def test_image_words_may_stay():
    assert postprocess("an image", PostprocessConfig(replace_image_words=False)) == "an image"
