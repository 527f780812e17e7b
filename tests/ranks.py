"""How a rank of a test ends."""

import os
from typing import NoReturn

import torch.distributed as dist


def leave_group() -> NoReturn:
    """End the process of a rank whose results are written, when all ranks have come here.

    At once, and without taking the group down: on busy cores a rank that did so and ended in the ordinary way was
    aborted (SIGABRT, "terminate called without an active exception"), it seems by gloo's threads.
    """
    dist.barrier()
    os._exit(0)
