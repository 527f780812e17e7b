"""vLLM's own processes, of an engine on several GPUs, load LLaVA too: by the plugin that the package declares."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mama_ray.captioning.engines.vllm_llava import require_plugin
from mama_ray.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
GROUP = "vllm.general_plugins"
# What a spawned worker of vLLM does before it builds the model.
WORKER = """
from vllm.plugins import load_general_plugins

load_general_plugins()
load_general_plugins()  # vLLM calls it in many places
from vllm.model_executor.models.llava import LlavaForConditionalGeneration
from vllm.model_executor.models.llava_next import LlavaNextForConditionalGeneration
"""


@pytest.fixture
def installed(tmp_path) -> Path:
    """A folder with what an installation of this package tells others of its entry points."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = tmp_path / "installed" / "mama_ray-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {declared['name']}\nVersion: 0.1.0\n")
    lines = [f"{name} = {value}" for name, value in declared["entry-points"][GROUP].items()]
    (folder / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
    return folder.parent


@pytest.mark.vllm
def test_a_process_of_vllms_own_loads_llava_where_the_package_is_installed(installed):
    environment = os.environ | {"PYTHONPATH": f"{installed}:{ROOT}"}
    command = [sys.executable, "-c", WORKER]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_llava_on_several_gpus_is_refused_where_the_plugin_is_not_installed(tmp_path, installed, monkeypatch):
    others = tmp_path / "others"
    for folder, name in ((tmp_path, "LlavaForConditionalGeneration"), (others, "Qwen2VLForConditionalGeneration")):
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(f'{{"architectures": ["{name}"]}}')
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" not in path])
    assert not importlib.metadata.entry_points(group=GROUP, name="mama_ray")
    require_plugin(others)
    with pytest.raises(
        UserError, match="LlavaForConditionalGeneration on several GPUs where mama_ray is not installed"
    ):
        require_plugin(tmp_path)
    monkeypatch.setattr(sys, "path", [str(installed), *sys.path])
    require_plugin(tmp_path)
