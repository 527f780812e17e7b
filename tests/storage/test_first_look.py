"""What a job says of a storage that it cannot use, and how S3 is found and asked."""

import socket
import urllib.request

import pytest

from mama_ray.errors import UserError
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.places import Place, absolute_uri

CHECKS = pytest.mark.parametrize("check", [ensure_readable, ensure_writable])


@CHECKS
def test_a_bucket_that_is_not_there_is_named_with_its_host_and_not_made(s3_server, s3_bucket, check):
    with pytest.raises(UserError, match="no bucket no-such-bucket") as refused:
        check("s3://no-such-bucket/runs")
    assert s3_server["AWS_ENDPOINT_URL"].removeprefix("http://") in str(refused.value)
    assert not Place.of("s3://no-such-bucket").exists()


@CHECKS
def test_what_can_be_used_is_passed(s3_bucket, tmp_path, check):
    check(f"s3://{s3_bucket}/not/yet/there")
    check(f"s3://{s3_bucket}")
    check(str(tmp_path / "new"))


@CHECKS
def test_an_unknown_scheme_is_told(check):
    with pytest.raises(UserError, match=r"storage URI: got nowhere://x.*Protocol not known"):
        check("nowhere://x")


@CHECKS
def test_an_endpoint_at_which_nobody_answers_is_named(s3_bucket, monkeypatch, check):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{probe.getsockname()[1]}"  # bound, but nobody listens
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{place}")
        with pytest.raises(UserError, match=f"at {place} .nobody answers"):
            check("s3://bucket/runs")


@CHECKS
def test_an_endpoint_that_takes_requests_and_is_silent_is_named(s3_bucket, monkeypatch, check):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{place}")
        with pytest.raises(UserError, match=f"at {place} .nobody answers"):
            check("s3://bucket/runs")


def test_endpoint_and_credentials_may_come_from_the_profile(s3_server, s3_bucket, tmp_path, monkeypatch):
    (tmp_path / "config").write_text(
        f"[profile lab]\nregion = us-east-1\nendpoint_url = {s3_server['AWS_ENDPOINT_URL']}\n"
    )
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = key\naws_secret_access_key = secret\n")
    for name in s3_server:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    ensure_writable(f"s3://{s3_bucket}/by-profile")
    monkeypatch.setenv("AWS_PROFILE", "lap")
    with pytest.raises(UserError, match="no such AWS profile: got lap"):
        ensure_writable(f"s3://{s3_bucket}/by-profile")


@CHECKS
def test_a_lack_of_permission_is_told_with_the_remedy_and_without_the_secret(s3_server, s3_bucket, check):
    headers = {"Content-Type": "text/plain"}
    url = f"{s3_server['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    urllib.request.urlopen(urllib.request.Request(url, data=b"0", method="POST", headers=headers), timeout=30).close()
    try:
        with pytest.raises(UserError, match="no permission") as refused:
            check(f"s3://{s3_bucket}/runs")
    finally:
        request = urllib.request.Request(url, data=b"inf", method="POST", headers=headers)
        urllib.request.urlopen(request, timeout=30).close()
    assert "AWS_PROFILE" in str(refused.value)
    assert s3_server["AWS_SECRET_ACCESS_KEY"] not in str(refused.value)


def test_a_relative_path_of_a_submitted_job_is_refused_for_output_and_missed_as_input(tmp_path, monkeypatch):
    package = tmp_path / "session_1/runtime_resources/working_dir_files/_ray_pkg_0123"  # where Ray unpacks it
    package.mkdir(parents=True)
    (package / "clips.csv").write_text("video,caption\n")
    monkeypatch.chdir(package)
    with pytest.raises(UserError, match="would be lost with it: got runs/mine; give a path from / on"):
        ensure_writable(absolute_uri("runs/mine"))
    assert not (package / "runs").exists()
    with pytest.raises(UserError, match="not in the working directory that was submitted.*: got shards; give a path"):
        ensure_readable(absolute_uri("shards"))
    ensure_readable(absolute_uri("clips.csv"), "openai/clip-vit-base-patch32", None)  # brought along; a hub id
    ensure_writable(str(tmp_path / "runs"))
