"""Makes the dual encoder that comes with the package, which `embedded` names, in one process without Ray.

    python -m mama_ray.experiments.embedded_encoder --storage FOLDER

writes it into FOLDER/embedded_encoder. What it learns from is decoded once, and kept in FOLDER.
"""

import argparse
import logging
import shutil
from pathlib import Path

import torch

from mama_ray.config import load_config
from mama_ray.data.synthetic.folder import write_corpus
from mama_ray.experiments.study.cell import pictures_of
from mama_ray.experiments.study.clip_arrays import write_frames
from mama_ray.experiments.study.job import PretrainingConfig
from mama_ray.experiments.study.pretrain import num_frames_of, pretrain
from mama_ray.models.weight_files import WEIGHTS_NAME, read_state, write_safetensors
from mama_ray.orchestration.cluster.named_configs import find_named

logger = logging.getLogger(__name__)


def make_encoder(config: PretrainingConfig, storage: Path) -> Path:
    """Make the corpus, learn from it, and write the model with weights in half precision; returns its folder."""
    pictures, corpus = pictures_of(config.corpus), storage / "corpus"
    write_corpus(pictures, corpus)
    frames = write_frames(pictures, corpus, num_frames=num_frames_of(config))
    logger.info("%d clips are decoded", sum(pictures.num_clips.values()))
    pretrain(config, frames, storage / "learned")
    write_half(storage / "learned", storage / "embedded_encoder")
    return storage / "embedded_encoder"


def write_half(model: Path, folder: Path) -> None:
    """Write a model's folder again with weights in float16."""
    shutil.copytree(model, folder, dirs_exist_ok=True)
    state = read_state(model)
    halved = {name: value.half() if value.dtype == torch.float32 else value for name, value in state.items()}
    write_safetensors(halved, folder / WEIGHTS_NAME)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", type=Path, required=True, help="folder of the corpus and of what is made")
    parser.add_argument("--config", default="embedded", help="name of a file in configs/encoder, or its path")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = load_config(PretrainingConfig, find_named("encoder", options.config))
    logger.info("the encoder is in %s", make_encoder(config, options.storage))


if __name__ == "__main__":
    main()
