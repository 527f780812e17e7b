"""A trained model on the Hugging Face hub: weights, config, tokenizer, settings without places, and a model card.

    mama_ray.push_to_hub("runs/mine", "me/mine", license="apache-2.0")

What only going on with the run needs, optimiser and weight net, stays at home.
"""

import shutil
import tempfile
from pathlib import Path

import yaml

from mama_ray.data.questions.answers import ANSWERS_NAME
from mama_ray.data.tokenizer_match import TOKENIZER_FILES
from mama_ray.encoder.source import checkpoint_of
from mama_ray.errors import UserError
from mama_ray.evaluation.protocol import ResultFile, describe_protocol
from mama_ray.models.card import CARD, UNKNOWN_LICENSE, CardResult, model_card, without_places
from mama_ray.models.heads.classes import CLASS_HEAD_CONFIG
from mama_ray.models.heads.folder import HEAD_CONFIG
from mama_ray.models.hf_encoder.preprocessor import FILES as PREPROCESSOR_FILES
from mama_ray.models.hub import upload_to_hub
from mama_ray.models.pretrained import describe_model
from mama_ray.models.run_config import RUN_CONFIG, training_config
from mama_ray.models.weight_files import HEAD_WEIGHTS, hash_weights, read_json, safetensors_of
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.small_files import MAX_JSON_BYTES

# Each by its name: beside the model a checkpoint has the state of its training, in safetensors and JSON as well.
_MODEL_FILES = ("config.json", *PREPROCESSOR_FILES, HEAD_WEIGHTS, HEAD_CONFIG, CLASS_HEAD_CONFIG, ANSWERS_NAME)
_TOKENIZER_FILES = (
    *TOKENIZER_FILES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
)  # fmt: skip


def push_to_hub(
    run: str | Path,
    repo_id: str,
    *,
    license: str = UNKNOWN_LICENSE,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
) -> str:
    """Publish a run's best checkpoint, a checkpoint or a model folder as a hub repository; returns its address.

    The repository is made where there is none. The endpoint and, without `token`, the token are those of
    huggingface_hub (`HF_ENDPOINT`, `HF_TOKEN`, `hf auth login`). Raises UserError for what is no whole model and for
    what the hub refuses.
    """
    with tempfile.TemporaryDirectory(prefix="mama_ray-publish-") as directory:
        prepare_upload(run, Path(directory), repo_id=repo_id, license=license)
        message = commit_message or f"Upload {repo_id.rpartition('/')[2]} with mama_ray"
        return upload_to_hub(
            Path(directory), repo_id, private=private, revision=revision, commit_message=message, token=token
        )


def prepare_upload(source: str | Path, directory: Path, *, repo_id: str, license: str = UNKNOWN_LICENSE) -> None:
    """Write into an empty folder what `push_to_hub` uploads."""
    with storage_errors(str(source)):
        place = checkpoint_of(Place.of(source))
        with place.local() as folder:
            describe_model(folder)  # a folder that cannot be loaded is told here, not by who downloads it
            if not (weights := safetensors_of(folder)):
                raise UserError(
                    "the model has no safetensors",
                    got=str(source),
                    wanted="weights that nobody has to unpickle",
                    remedy="load it with from_pretrained, and publish the folder that save_pretrained writes",
                )
            for name in (*weights, *_MODEL_FILES, *_TOKENIZER_FILES):
                if name in weights or (folder / name).is_file():
                    shutil.copyfile(folder / name, directory / name)
            training = training_config(folder / RUN_CONFIG)
            record = read_json(folder / "train_state.json") if (folder / "train_state.json").is_file() else None
        results = _results_of(place, hash_weights(directory))
    if training:
        settings = yaml.safe_dump(without_places(training), sort_keys=False, allow_unicode=True)
        (directory / RUN_CONFIG).write_text(settings, encoding="utf-8")
    card = model_card(
        repo_id, read_json(directory / "config.json"), training, record=record, results=results, license=license
    )
    (directory / CARD).write_text(card, encoding="utf-8")


def _results_of(folder: Place, digest: str) -> list[CardResult]:
    """Return the results, of the folder's own evaluations and its run's, that are of weights with this hash."""
    homes = [folder, folder.parent.parent] if folder.name.startswith("step_") else [folder]
    found = []
    for place in (file for home in homes for file in (home / "evaluation").files() if file.name.endswith(".json")):
        try:
            content = ResultFile.from_json(place.read_bytes(MAX_JSON_BYTES))
        except UserError:
            continue  # another file, or of another version
        found += [
            CardResult(
                content.benchmark if result.label == "plain" else f"{content.benchmark}, {result.label}",
                result.protocol.dataset,
                result.protocol.split,
                describe_protocol(result.protocol),
                result.metrics,
            )
            for result in content.results
            if result.checkpoint.sha256 == digest
        ]
    return found
