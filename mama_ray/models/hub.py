"""Where a model is that is named: a folder, a URI, a repository of the Hugging Face hub, or the one of the package.

Of the hub's repositories configs, tokenizers and safetensors are fetched into its cache. Older ones have
pytorch_model.bin alone; it is fetched then, and read as tensors only.
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mama_ray.errors import UserError
from mama_ray.storage.node_copies import node_copy
from mama_ray.storage.places import Place, absolute_uri
from mama_ray.storage.waits import told_wait

HUB_FILES = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*.json"]
HUB_FILES += ["vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"]
HUB_FILES += ["special_tokens_map.json", "added_tokens.json"]
HUB_FILES += ["processor_config.json", "video_preprocessor_config.json", "generation_config.json", "chat_template.*"]
HUB_FILES += ["config.yaml", "head.json", "class_head.json", "answers.json"]  # ours: how frames became squares, heads
_WEIGHTS, _OLD_WEIGHTS = "*.safetensors", "pytorch_model.bin"

HF_PREFIX = "hf:"
"""Before a folder, a URI or a hub id: the model there as transformers computes it."""

PREFIXES = (HF_PREFIX, "timesformer:", "joint:")
"""What may be made of a CLIP folder, which without a prefix becomes a CLIP-ViP; the last two are LaViLa's TimeSformer
and AVION's joint space-time ViT."""

EMBEDDED_ENCODER = "embedded"
"""Names the dual encoder that comes with the package. A folder of that name is `./embedded`."""

_EMBEDDED_FOLDER = Path(__file__).with_name("weights")


def prefix_of(source: str) -> str:
    """Return the prefix that a model is named with, "" for none."""
    return next((prefix for prefix in PREFIXES if source.startswith(prefix)), "")


def without_prefix(source: str) -> str:
    """Return where a model is that may be named with a prefix, or be the one that comes with the package."""
    if source == EMBEDDED_ENCODER:
        return str(_EMBEDDED_FOLDER)
    return source.removeprefix(prefix_of(source))


def absolute_source(source: str) -> str:
    """Name the local folder of a model so that workers, whose working directory is another, find it too.

    A URI and a hub id are as they were, and so is `embedded`: a worker has a package of its own.
    """
    prefix, bare = prefix_of(source), without_prefix(source)
    is_local = os.path.exists(os.path.expanduser(bare)) or bare.startswith((".", "~", "/"))
    return f"{prefix}{absolute_uri(bare)}" if is_local and source != EMBEDDED_ENCODER else source


@contextmanager
def local_model(source: str, *, revision: str | None = None) -> Iterator[Path]:
    """Give the local folder that a path, a URI or a hub id of a model means.

    A download lasts as long as the block, on a machine one for all. `revision` is of a hub's repository.
    """
    source = without_prefix(source)
    if "://" in source or os.path.isdir(os.path.expanduser(source)):
        with ExitStack() as download:
            with told_wait(f"fetching {source}", after_s=2.0):  # a local folder is there at once
                directory = download.enter_context(node_copy(Place.of(source)))
            yield directory
    else:
        yield fetch_from_hub(source, revision=revision)


def revision_of(folder: Path) -> str | None:
    """Return the commit of a folder that `fetch_from_hub` gave, None for any other."""
    is_of_hub = folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name)
    return folder.name if is_of_hub else None


def require_weights(folder: Path, sha256: str, source: str | None) -> None:
    """Raise UserError unless the weights in a folder are those that a job began with."""
    from mama_ray.models.weight_files import hash_weights  # torch, which whoever names a model does without

    try:
        found = hash_weights(folder)
    except FileNotFoundError:
        found = None
    if found != sha256:
        raise UserError(
            "the model is another one than when the job began",
            got=f"{source} on this machine",
            wanted=f"weights of sha256 {sha256}",
            remedy="put the same files there on all nodes, or start the job again with another --output",
        )


@contextmanager
def evaluated_model(uri: str) -> Iterator[Path]:
    """Give the local folder of a model that is evaluated: one of any storage, or what a prefix or `embedded` names."""
    is_named = bool(prefix_of(uri)) or uri == EMBEDDED_ENCODER
    with local_model(uri) if is_named else Place.of(uri).local() as folder:
        yield folder


def require_hub_id(name: str) -> None:
    """Raise UserError unless a name, which is no local path, may be that of a hub repository."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise UserError(
            "no such model",
            got=name,
            wanted="a directory, a file or a hub id such as 'openai/clip-vit-base-patch32'",
        )


def fetch_from_hub(repo_id: str, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """Fetch config, safetensors and tokenizer of a hub repository, or find them in the local cache; without a revision
    they are the newest."""
    require_hub_id(repo_id)
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    def fetch(names: list[str]) -> Path:
        own = {"revision": revision, "local_files_only": local_files_only}
        return Path(huggingface_hub.snapshot_download(repo_id, allow_patterns=names, **own))

    try:
        with told_wait(f"fetching {repo_id} from the Hugging Face hub", after_s=2.0):  # not what the cache holds
            folder = fetch(HUB_FILES)
            if any(folder.glob(_WEIGHTS)):
                return folder
            return fetch([*HUB_FILES, _OLD_WEIGHTS])  # only then: most repositories hold the weights in both forms
    # OSError holds every way a download fails: no network, no such repository, not in the cache, disk full.
    except (OSError, HFValidationError) as error:
        raise UserError(
            "model is neither a local path nor a reachable hub repository",
            got=f"{repo_id} ({type(error).__name__})",
            wanted="a directory, a file or a hub id",
            remedy="check the name and the network, or download it and pass the directory",
        ) from error


def upload_to_hub(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str,
    token: str | None = None,
) -> str:
    """Upload a folder as a model repository, made where there is none; returns its address.

    Raises UserError for what the hub, or the way to it, refuses.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi(token=token)
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(address.repo_id, branch=revision, exist_ok=True)
        api.upload_folder(repo_id=address.repo_id, folder_path=folder, revision=revision, commit_message=commit_message)
    except Exception as error:  # the errors of its HTTP library, another one in each of its major versions, among them
        raise UserError(
            "the hub did not take the model",
            got=f"{repo_id}: {error}",
            wanted="a repository that this user may write, such as 'me/my-model'",
            remedy="`hf auth login`, or put a token with the right to write into HF_TOKEN",
        ) from error
    return str(address)
