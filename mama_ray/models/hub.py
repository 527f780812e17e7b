"""Files of a model on the Hugging Face hub, fetched into its cache: configs, tokenizers, safetensors alone."""

import re
from pathlib import Path

from mama_ray.errors import UserError
from mama_ray.storage.waits import told_wait

HUB_FILES = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*.json"]
HUB_FILES += ["vocab.json", "merges.txt", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"]
HUB_FILES += ["processor_config.json", "video_preprocessor_config.json", "generation_config.json", "chat_template.*"]


def require_hub_id(name: str) -> None:
    """Raise UserError unless a name, which is no local path, may be that of a hub repository."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise UserError(
            "no such model",
            got=name,
            wanted="a directory, a file or a hub id such as 'openai/clip-vit-base-patch32'",
        )


def fetch_from_hub(repo_id: str, *, local_files_only: bool = False) -> Path:
    """Fetch config, safetensors and tokenizer of a hub repository, or find them in the local cache."""
    require_hub_id(repo_id)
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        with told_wait(f"fetching {repo_id} from the Hugging Face hub", after_s=2.0):  # not what the cache holds
            return Path(
                huggingface_hub.snapshot_download(repo_id, allow_patterns=HUB_FILES, local_files_only=local_files_only)
            )
    # OSError holds every way a download fails: no network, no such repository, not in the cache, disk full.
    except (OSError, HFValidationError) as error:
        raise UserError(
            "model is neither a local path nor a reachable hub repository",
            got=f"{repo_id} ({type(error).__name__})",
            wanted="a directory, a file or a hub id",
            remedy="check the name and the network, or download it and pass the directory",
        ) from error
