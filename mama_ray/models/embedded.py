"""How a checkpoint becomes the dual encoder that comes with the package, which `embedded` names.

    python -c 'from mama_ray.models.embedded import write_embedded; write_embedded("CHECKPOINT", "FOLDER")'

`weights/README.md` says of which run it is.
"""

import shutil
from pathlib import Path

import torch

from mama_ray.config.yaml_text import dump_yaml
from mama_ray.models.run_config import RUN_CONFIG, training_config
from mama_ray.models.weight_files import WEIGHTS_NAME, read_state, write_safetensors

_KEPT = ("config.json", "tokenizer.json", "tokenizer_config.json")
_PLACES = ("storage", "shards")  # settings of the training that say something of its machine alone


def write_embedded(checkpoint: str | Path, folder: str | Path) -> None:
    """Write a checkpoint's model into a folder: weights in float16, tokenizer, settings of the training."""
    checkpoint, folder = Path(checkpoint), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = read_state(checkpoint)
    halved = {name: value.half() if value.dtype == torch.float32 else value for name, value in state.items()}
    write_safetensors(halved, folder / WEIGHTS_NAME)
    settings = training_config(checkpoint / RUN_CONFIG)
    kept = {name: value for name, value in settings.items() if name not in _PLACES}
    (folder / RUN_CONFIG).write_text(dump_yaml(kept))
    for name in _KEPT:
        shutil.copyfile(checkpoint / name, folder / name)
