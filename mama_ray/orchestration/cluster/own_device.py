"""The device of a task or an actor: a GPU only where it was given one."""

import ray
import torch


def has_own_gpu() -> bool:
    """Whether this task or actor was given a GPU or a part of one; False outside of both."""
    return bool(ray.get_runtime_context().get_accelerator_ids().get("GPU"))


def own_device() -> torch.device:
    """Return the device that a model of this task or actor belongs on.

    Ray leaves all GPUs of the machine visible to what was given none, and torch would take the first of them, beside
    whoever has it.
    """
    return torch.device("cuda" if has_own_gpu() and torch.cuda.is_available() else "cpu")
