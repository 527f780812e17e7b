"""How a rank of a test ends."""

import os
from typing import NoReturn

import torch.distributed as dist


def leave_group() -> NoReturn:
    """End the process of a rank whose results are written, when all ranks have come here.

    At once, and without taking the group down: on busy cores gloo's threads, which see the others go, now and then
    abort a process that ends in the ordinary way.
    """
    dist.barrier()
    os._exit(0)
