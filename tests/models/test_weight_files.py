import pytest
import torch

from mama_ray.errors import UserError
from mama_ray.models.weight_files import name_some, read_safetensors, write_safetensors


def test_bytes_depend_on_the_tensors_alone(tmp_path):
    first, second = torch.arange(6.0).reshape(2, 3), torch.ones(2)
    write_safetensors({"b": first.T, "a": second}, tmp_path / "one.safetensors")
    write_safetensors({"a": second.clone(), "b": first.T.contiguous()}, tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert torch.equal(read_safetensors(tmp_path / "one.safetensors")["b"], first.T)
    assert not list(tmp_path.glob("*.partial"))


def test_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match="weights.safetensors"):
        read_safetensors(tmp_path / "weights.safetensors")


def test_long_lists_of_names_are_cut_and_counted():
    assert name_some(["a", "b", "c"], limit=2) == "a, b and 1 more"
    assert name_some(["a", "b"], limit=2) == "a, b"
