"""What a start looks at before anything is opened."""

import pytest

from mama_ray.errors import UserError
from mama_ray.orchestration.serving.job import AppJob
from mama_ray.orchestration.serving.run import _listening
from tests.orchestration.serving.app_process import free_port


def test_of_two_apps_that_are_starting_one_has_the_port():
    job = AppJob(port=free_port())
    with _listening(job), pytest.raises(UserError, match="cannot listen there"):
        _listening(job).close()
