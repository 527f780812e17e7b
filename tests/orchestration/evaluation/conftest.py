"""A model of random weights with its tokenizer."""

from tests.encoder.tiny_encoder import model_folder  # noqa: F401 - a fixture
