"""Secrets stay out of what is written, and nothing else is touched."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mama_ray.config import Config, ConfigError, config_to_yaml, with_overrides
from mama_ray.errors import UserError
from mama_ray.masking import holds_credentials, mask_command, mask_secrets, mask_text, repeats_the_environment
from tests.masking.secret_forms import FORMS, KNOWN_ANYWHERE, ORDINARY

BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
SECRETS = st.text(BASE64, min_size=40, max_size=40).filter(lambda text: any(letter.isdigit() for letter in text))


@pytest.mark.parametrize("form", FORMS)
def test_no_form_tells_its_secret(form):
    secret = "wJalr/UtnFEMI+K7MDENG/bPx+RfiCYEXAMPLE/12"[:40]
    masked = mask_text(form.replace("HIDDEN", secret))
    assert secret not in masked and "***" in masked
    assert not any(part in masked for part in secret.split("/") if len(part) > 2)


@given(secret=SECRETS, form=st.sampled_from(FORMS))
@example(secret="8080/" + "aB" * 17 + "c", form="http://user:SECRET@host:8080")
@example(secret="12/" + "aB" * 18 + "c", form="s3://key:SECRET@bucket/x")
@example(secret="/" * 39 + "1", form="redis://:SECRET@cache:6379/0")
def test_no_letters_of_base64_survive_in_any_form(secret, form):
    masked = mask_text(form.replace("HIDDEN", secret))
    assert secret not in masked
    pieces = [secret[start : start + 12] for start in range(0, 29)]
    assert not any(piece in masked for piece in pieces)
    assert mask_text(masked) == masked


@given(st.text(), st.sampled_from(FORMS + ORDINARY), st.text())
def test_masking_twice_is_masking_once(before, form, after):
    masked = mask_text(f"{before} {form} {after}")
    assert mask_text(masked) == masked


@pytest.mark.parametrize("secret", KNOWN_ANYWHERE)
@pytest.mark.parametrize("text", ["got {}, wanted another", "x={}", "/a/{}/b", "'{}'"])
def test_what_is_known_by_its_letters_is_masked_anywhere(text, secret):
    assert secret not in mask_text(text.format(secret))


@pytest.mark.parametrize("text", ORDINARY)
def test_texts_without_a_secret_stay(text):
    assert mask_text(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("s3://AKIA:abc@bucket/x", "s3://***@bucket/x"),
        ("s3://AKIA:a/b+c@bucket/x", "s3://***@bucket/x"),
        ("https://user@host/x", "https://***@host/x"),
        ("s3://b/x?secret_key=abc&region=eu", "s3://b/x?secret_key=***&region=eu"),
        ("https://h/x?X-Amz-Signature=abc&n=1", "https://h/x?X-Amz-Signature=***&n=1"),
        ("s3://A:x@a/1,s3://B:y@b/2", "s3://***@a/1,s3://***@b/2"),
        ("AccountName=a;AccountKey=abc==;EndpointSuffix=b", "AccountName=a;AccountKey=***;EndpointSuffix=b"),
        ("host=h password='a b' dbname=d", "host=h password='***' dbname=d"),
        ("got {'password': 'a\"b', 'n': 1}", "got {'password': '***', 'n': 1}"),
        ("(password=abc), then", "(password=***), then"),
        ('--api_key: got "abc", wanted text', '--api_key: got "***", wanted text'),
    ],
)
def test_the_secret_alone_is_masked(text, masked):
    assert mask_text(text) == masked


@pytest.mark.parametrize(
    "name",
    ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD",
     "RAY_AUTH_TOKEN", "AZURE_STORAGE_KEY", "VIDEO_API_KEY", "CACHE_PASSWORD", "GROUP_TOKEN", "PGPASSWORD", "SSHPASS",
     "DB_PASSWORD1", "dbpassword", "SECRET_KEY_BASE", "GH_PAT"],
)  # fmt: skip
def test_what_the_environment_holds_under_a_secrets_name_is_masked_anywhere(name, monkeypatch):
    monkeypatch.setenv(name, 'plain words/of "a secret"')
    for spelling in (
        'plain words/of "a secret"',
        "plain%20words%2Fof%20%22a%20secret%22",
        'plain words/of \\"a secret\\"',
    ):
        assert "words" not in mask_text(f"it is {spelling} here")
    monkeypatch.setenv(name, "short")
    assert mask_text("it is short here") == "it is short here"


def test_a_password_inside_the_environments_uris_is_masked_where_it_stands_alone(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:p%40ss/w@rd-of-mine@proxy:8080")
    assert mask_text("no answer from me:p%40ss/w@rd-of-mine@proxy:8080") == "no answer from me:***@proxy:8080"
    assert mask_text("with p@ss/w@rd-of-mine") == "with ***"


def test_paths_of_the_environment_are_no_secrets(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/credentials.json")
    monkeypatch.setenv("MY_API_KEY", str(tmp_path))
    monkeypatch.setenv("PWD", str(tmp_path))
    text = f"no file /nowhere/credentials.json in {tmp_path}"
    assert mask_text(text) == text


def test_a_long_text_takes_no_time():
    for text in ("a" * 100_000, "key" * 30_000, "x:" * 50_000, "://" * 30_000, "password=" * 10_000, "'" * 100_000):
        mask_text(text)  # seconds are minutes where a pattern goes back


@pytest.mark.parametrize(
    "name", ["key", "api_key", "API_KEY", "hub_token", "token", "secret", "db_password", "credentials", "secretKey"]
)
def test_text_under_a_secret_name_is_masked_however_deep(name):
    assert mask_secrets({"a": [{name: "hunter2"}]}) == {"a": [{name: "***"}]}


def test_all_below_a_secret_name_and_the_names_of_a_mapping_are_masked():
    given = {"credentials": {"who": "me", "deep": ["x"]}, "mix": {"s3://k:s/x@b": 0.5}, "password": 12345678}
    wanted = {"credentials": {"who": "***", "deep": ["***"]}, "mix": {"s3://***@b": 0.5}, "password": "***"}
    assert mask_secrets(given) == wanted


@pytest.mark.parametrize(
    "value",
    [
        {"num_tokens": 77, "tokenizer": "path", "keyframes": "x", "monkey": "see", "token": None, "max_token": 3},
        {"uri": "s3://bucket/user@home/x", "endpoint": "http://127.0.0.1:9000/a@b", "mail": "a@b.c"},
        {"uri": "hf://org/model@revision"},
        {"eos_token": "</s>", "pad_token": "<pad>", "password": None, "api_key": ""},
    ],
)
def test_values_that_are_no_secret_are_left_alone(value):
    assert mask_secrets(value) == value


def test_a_command_line_is_masked_by_its_options():
    words = [
        "python",
        "jobs/x.py",
        "--api_key",
        "hunter2",
        "more",
        "--run",
        "key",
        "--hub-token=hunter2",
        "--uri",
        "s3://k:hunter2/x@b",
    ]
    assert mask_command(words) == (
        ["python", "jobs/x.py", "--api_key", "***", "***", "--run", "key", "--hub-token=***", "--uri", "s3://***@b"]
    )


@pytest.mark.parametrize("uri", [form for form in FORMS if "://" in form and " " not in form and form[0] != "{"])
def test_every_form_inside_a_uri_is_known_at_the_door(uri):
    assert holds_credentials(uri.replace("HIDDEN", "wJalr/UtnFEMI+K7"))


@pytest.mark.parametrize(
    "word",
    [
        "https://h/x?p%61ssword=zzzz1234",
        "https://h/x?access%5Fkey=wJalrUtnFEMI7",
        "https://h/x?sig%3DwJalrUtnFEMI7",
        "s3:///key:secret@bucket/x",
        'https://u:p"w@h/x',
        "s3://b/x?video_password=zzzz1234",
        "hf_abcdEFGH1234567890ijklmnop",
        "AKIAIOSFODNN7EXAMPLE",
        "runs/ghp_abcdEFGH1234567890ijklmnopqrstuv",
    ],
)
def test_other_spellings_and_words_alone_are_known_at_the_door_too(word):
    assert holds_credentials(word)


def test_a_word_that_repeats_a_secret_of_the_environment_is_known(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "supersecretvalue99")
    assert repeats_the_environment("/data/supersecretvalue99/x")
    assert not repeats_the_environment("/data/supersecretvalue98/x")
    monkeypatch.setenv("DATASET_KEY", "activitynet")  # a word, which a folder may be called by
    assert not repeats_the_environment("s3://bucket/activitynet")


@pytest.mark.parametrize("uri", [text for text in ORDINARY if text.startswith(("s3:", "http:", "file:", "hf:"))])
def test_other_uris_pass_the_door(uri, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "bucket/what")  # what the environment holds does not decide
    assert not holds_credentials(uri)


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


def test_a_secret_is_masked_before_an_error_cuts_its_text():
    uri = "s3://key:" + "Ab1/" * 100 + "@bucket"
    assert "Ab1/" not in str(UserError("storage", got=uri, remedy=f"try {uri}"))
