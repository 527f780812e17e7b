import json
from argparse import Namespace

import pytest
import torch

from mama_ray.errors import UserError
from mama_ray.models.weight_files import (
    HEAD_WEIGHTS,
    INDEX_NAME,
    TORCH_NAME,
    WEIGHTS_NAME,
    compare_states,
    hash_weights,
    name_some,
    read_safetensors,
    read_state,
    read_torch_file,
    read_weights_file,
    write_safetensors,
)


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


def test_weights_of_an_older_repository_are_read_as_tensors_only(tmp_path):
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}
    torch.save(state, tmp_path / TORCH_NAME)
    assert all(torch.equal(tensor, state[name]) for name, tensor in read_state(tmp_path).items())
    shapes = read_state(tmp_path, values_of=("b",))
    assert (shapes["a"].is_meta, shapes["a"].shape, shapes["b"].is_meta) == (True, (2, 3), False)
    digest = hash_weights(tmp_path)
    torch.save({"a": state["a"] + 1, "b": state["b"]}, tmp_path / TORCH_NAME)
    assert hash_weights(tmp_path) != digest


def test_a_head_is_part_of_what_a_model_is_known_by(tmp_path):
    write_safetensors({"a": torch.ones(2)}, tmp_path / WEIGHTS_NAME)
    alone = hash_weights(tmp_path)
    assert alone == hash_weights(tmp_path / WEIGHTS_NAME)
    write_safetensors({"b": torch.ones(2)}, tmp_path / HEAD_WEIGHTS)
    headed = hash_weights(tmp_path)
    write_safetensors({"b": torch.zeros(2)}, tmp_path / HEAD_WEIGHTS)
    assert len({alone, headed, hash_weights(tmp_path)}) == 3


@pytest.mark.parametrize("content", [print, ["no", "names"], {"a": 1.5}])
def test_what_is_no_state_dict_is_refused_unopened(tmp_path, content):
    torch.save(content, tmp_path / TORCH_NAME)
    with pytest.raises(UserError, match=TORCH_NAME):
        read_state(tmp_path)


def test_arguments_of_a_training_are_read_beside_released_weights_alone(tmp_path):
    arguments = Namespace(model="base", betas=(0.9, 0.999), nested={"lr": [3e-5, None]}, own=Namespace(rank=0))
    torch.save({"state_dict": {"a": torch.ones(2)}, "args": arguments}, tmp_path / "released.pt")
    assert read_weights_file(tmp_path / "released.pt")["args"] == arguments
    with pytest.raises(UserError, match=r"got an object of argparse\.Namespace"):
        read_torch_file(tmp_path / "released.pt")
    assert Namespace not in torch.serialization.get_safe_globals()  # allowed for one file, and no longer


class Reached:
    """Would end this process, and with it the tests, where it is unpickled."""

    def __reduce__(self):
        return exit, (17,)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"epoch": 5, "state_dict": state}])
def test_a_tensor_without_values_is_refused_by_name(tmp_path, wrap):
    path, state = tmp_path / "x.pt", {"module.a.b": torch.ones(2)}
    torch.save(wrap(state), path)
    assert read_weights_file(path)
    torch.save(wrap(state | {"module.c": torch.empty(2, device="meta")}), path)
    with pytest.raises(UserError, match=r"x\.pt has tensors without values: got module\.c on device meta"):
        read_weights_file(path)


def test_what_stands_within_allowed_arguments_is_refused_by_its_name(tmp_path):
    torch.save({"a": torch.ones(2), "args": Namespace(hidden=[Reached()])}, tmp_path / "released.pt")
    with pytest.raises(UserError, match="cannot be read as tensors only: got an object of") as refused:
        read_weights_file(tmp_path / "released.pt")
    assert "\n" not in str(refused.value)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    for name, value in (("a", 0.0), ("b", 1.0)):
        write_safetensors({"w": torch.tensor([value]), name: torch.ones(1)}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {"w": "a.safetensors", "a": "a.safetensors", "b": "b.safetensors"}}
    (tmp_path / INDEX_NAME).write_text(json.dumps(index))
    with pytest.raises(UserError, match="shards hold a tensor twice: got w"):
        read_state(tmp_path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool])
def test_whole_numbers_are_no_weights(tmp_path, dtype):
    """As quantised files have them, whose scales stand elsewhere; told by the outline as well."""
    write_safetensors({"w": torch.ones(2, dtype=dtype), "n": torch.ones(1, dtype=torch.int64)}, tmp_path / WEIGHTS_NAME)
    wanted = {"w": torch.ones(2), "n": torch.ones(1, dtype=torch.int64)}
    for state in (read_state(tmp_path), read_state(tmp_path, values_of=())):
        with pytest.raises(UserError, match="w: got torch.*, wanted floating-point numbers"):
            compare_states(wanted, state).raise_if_incomplete("x")
    assert not compare_states(wanted, {**wanted, "w": torch.ones(2, dtype=torch.bfloat16)}).mismatched


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_not_finite_are_refused_by_name(dtype, value):
    """As a run leaves that has diverged: each score of such a model would be one of nothing."""
    state = {"w": torch.tensor([1.0, value, 2.0], dtype=dtype), "v": torch.tensor([60000.0] * 9, dtype=dtype)}
    report = compare_states({"w": torch.ones(3), "v": torch.ones(9)}, state)
    assert report.mismatched == ("w: got NaN or infinity, wanted finite numbers",)
