"""What a start looks at before anything is opened."""

import pytest
from pydantic import ValidationError

from mama_ray.errors import UserError
from mama_ray.orchestration.serving.job import AppJob
from mama_ray.orchestration.serving.run import _listening
from tests.orchestration.serving.app_process import free_port


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("my.machine:8765", "my.machine"),
        ("http://my.machine/", "my.machine"),
        ("[::1]:8765", "::1"),
        ("*", "my.machine.example"),
        ("", "my.machine.example"),
    ],
)
def test_a_name_that_no_request_would_bear_is_refused_with_the_bare_one(host, wanted):
    with pytest.raises(ValidationError, match=f"bare name or address such as {wanted} "):
        AppJob(hosts=[host])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"run": "embedded", "cluster": {"num_shares": 2}}, "num_shares have no meaning without num_replicas"),
        ({"cluster": {"num_replicas": 2}}, "cluster needs run"),
        ({"search": "approximate"}, "search needs run"),
        ({"index": "runs/index"}, "index needs run"),
    ],
)
def test_what_would_do_nothing_is_refused(given, told):
    with pytest.raises(ValidationError, match=told):
        AppJob.model_validate(given)


def test_names_and_addresses_are_taken_bare():
    given = ["my.machine", "My_machine-2.example.", "192.168.1.5", "[::1]", "fd00::1"]
    assert AppJob(hosts=given).hosts == [*given[:3], "::1", "fd00::1"]


def test_of_two_apps_that_are_starting_one_has_the_port():
    job = AppJob(port=free_port())
    with _listening(job), pytest.raises(UserError, match="cannot listen there"):
        _listening(job).close()
