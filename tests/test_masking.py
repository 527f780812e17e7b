"""Secrets stay out of what is written, and nothing else is touched."""

import pytest

from mama_ray.config import Config, ConfigError, config_to_yaml, with_overrides
from mama_ray.masking import mask_secrets


@pytest.mark.parametrize(
    "name", ["key", "api_key", "API_KEY", "hub_token", "token", "secret", "db_password", "credentials"]
)
def test_text_under_a_secret_name_is_masked_however_deep(name):
    assert mask_secrets({"a": [{name: "hunter2"}]}) == {"a": [{name: "***"}]}


@pytest.mark.parametrize(
    ("uri", "masked"),
    [
        ("s3://AKIA:abc@bucket/x", "s3://***@bucket/x"),
        ("s3://AKIA:a/b+c@bucket/x", "s3://***@bucket/x"),
        ("https://user@host/x", "https://***@host/x"),
        ("s3://b/x?secret_key=abc&region=eu", "s3://b/x?secret_key=***&region=eu"),
        ("https://h/x?X-Amz-Signature=abc&n=1", "https://h/x?X-Amz-Signature=***&n=1"),
        ("s3://A:x@a/1,s3://B:y@b/2", "s3://***@a/1,s3://***@b/2"),
    ],
)
def test_credentials_inside_a_uri_are_masked(uri, masked):
    assert mask_secrets(uri) == masked


@pytest.mark.parametrize(
    "value",
    [
        {"num_tokens": 77, "tokenizer": "path", "keyframes": "x", "monkey": "see", "token": None, "max_token": 3},
        {"uri": "s3://bucket/user@home/x", "endpoint": "http://127.0.0.1:9000/a@b", "mail": "a@b.c"},
        {"uri": "hf://org/model@revision"},
    ],
)
def test_values_that_are_no_secret_are_left_alone(value):
    assert mask_secrets(value) == value


class _Job(Config):
    storage: str = "runs"
    api_key: str | None = None
    num_tokens: int = 7


def test_written_config_holds_no_secret():
    text = config_to_yaml(_Job(storage="s3://me:hunter2@bucket", api_key="hunter2"))
    assert "hunter2" not in text
    assert "bucket" in text
    assert "num_tokens: 7" in text


def test_error_about_a_secret_does_not_tell_it():
    with pytest.raises(ConfigError) as caught:
        with_overrides(_Job(), {"api_key": ["hunter2"]})
    assert "hunter2" not in str(caught.value)
