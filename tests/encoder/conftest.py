"""The tiny model of these tests."""

from tests.encoder.tiny_encoder import encoder, model_folder  # noqa: F401 - fixtures
