"""The model card, README.md beside the weights: what a reader, and the Hugging Face hub, want to know of a model.

The front matter is what the hub reads. Names of files and storages that a training used are told by their last part:
a card is handed on, and where somebody's data lies is nobody's affair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mama_ray.masking import mask_secrets
from mama_ray.models.hub import without_prefix
from mama_ray.models.run_config import evaluation_resize
from mama_ray.version import installed_version

CARD = "README.md"
UNKNOWN_LICENSE = "unknown"  # the hub's word
_SHOWN_KEYS = ("t2v_R@1", "t2v_R@5", "t2v_R@10", "t2v_median_rank", "v2t_R@1", "v2t_R@5", "v2t_R@10", "v2t_median_rank")


@dataclass(frozen=True)
class CardResult:
    """The numbers of one protocol: `benchmark` names it, `protocol` describes it in a line."""

    benchmark: str
    dataset: str
    split: str
    protocol: str
    metrics: Mapping[str, float]


def model_card(
    name: str,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    *,
    record: Mapping[str, Any] | None = None,
    results: Sequence[CardResult] = (),
    license: str = UNKNOWN_LICENSE,
    address: str | None = None,
) -> str:
    """Return the card of a model.

    Args:
        name: its heading.
        model: content of config.json.
        training: settings of its training, {} where they are unknown.
        record: what a checkpoint says of itself: step, num_steps, samples_seen, validation.
        results: of evaluations of exactly these weights.
        license: of the weights, in the hub's words, such as apache-2.0.
        address: what `load_encoder` takes; by default the name.
    """
    front = _front_matter(name, model, training, results, license)
    parts = [f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---", f"# {name}", _what_it_is(model)]
    parts += ["## Use", _use(address or name)]
    parts += ["## Training", _training(training, record)]
    parts += ["## Results", _results(record, results)]
    parts += ["## Licence", _license(license)]
    settings = yaml.safe_dump(
        without_places({"config": dict(model), "training": dict(training)}), sort_keys=False, allow_unicode=True
    )
    parts += ["## Settings", f"```yaml\n{settings}```"]
    return "\n\n".join(parts) + "\n"


def without_places(value: Any, name: str = "") -> Any:
    """Return settings in which paths and URIs are cut to their last part, and secrets masked."""
    if isinstance(value, Mapping):
        return {key: without_places(member, str(key)) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_places(member, name) for member in value]
    value = mask_secrets(value, name)  # before a URI is cut within its password
    if isinstance(value, str) and ("://" in value or value.startswith(("/", "~", "./", "../"))):
        return value.rstrip("/").rpartition("/")[2]
    return value


def _front_matter(
    name: str, model: Mapping[str, Any], training: Mapping[str, Any], results: Sequence[CardResult], license: str
) -> dict[str, Any]:
    front: dict[str, Any] = {
        "license": license,
        "library_name": "mama_ray",
        "pipeline_tag": "feature-extraction",
        "tags": ["video-text-retrieval", "video", "mama", str(model.get("model_type", "dual-encoder"))],
    }
    base = without_prefix(str((training.get("model") or {}).get("pretrained") or ""))
    if base.count("/") == 1 and not Path(base).exists() and without_places(base) == base:
        front["base_model"] = base
    if results:
        front["model-index"] = [{"name": name, "results": [_index_entry(result) for result in results]}]
    return front


def _index_entry(result: CardResult) -> dict[str, Any]:
    metrics = [
        {"type": key.lower().replace("@", "_at_"), "name": key, "value": round(float(result.metrics[key]), 3)}
        for key in _SHOWN_KEYS
        if key in result.metrics
    ]
    return {
        "task": {"type": "video-text-retrieval", "name": "Video-text retrieval"},
        "dataset": {"type": result.dataset, "name": result.benchmark, "split": result.split},
        "metrics": metrics,
    }


def _what_it_is(model: Mapping[str, Any]) -> str:
    frames, size, length = model.get("num_frames"), model.get("image_size"), model.get("context_length")
    return (
        f"A video-text dual encoder ({model.get('model_type')}): {frames} frames of {size} x {size} pixels, and texts "
        f"of up to {length} tokens, become unit vectors of {model.get('dim')} numbers, whose product is their"
        f" similarity. Made with mama_ray {installed_version()}."
    )


def _use(address: str) -> str:
    code = [
        "import mama_ray",
        "",
        f'encoder = mama_ray.load_encoder("{address}")',
        'videos = encoder.encode_videos(["a.mp4", "b.mp4"])',
        'similarity = videos.features @ encoder.encode_texts(["a cat jumps"]).T',
    ]
    return "\n".join(["```python", *code, "```"])


def _training(training: Mapping[str, Any], record: Mapping[str, Any] | None) -> str:
    if not training:
        return "Not recorded beside the weights."
    data = training.get("data") or {}
    evaluation = evaluation_resize(dict(training))
    lines = [
        f"* data: `{without_places(training.get('shards')) or 'the embedded corpus'}`"
        + (f", captions mixed {data['captions']}" if data.get("captions") else ""),
        f"* frames become squares by `{data.get('resize', 'squash')}`, in evaluation by `{evaluation}`",
        f"* objective: {_one_line(training.get('objective'))}",
        f"* weights of the samples: {_one_line(training.get('weighting'))}",
    ]
    if record:
        lines.append(
            f"* step {record.get('step')} of {record.get('num_steps')}, {record.get('samples_seen')} samples in batches"
            f" of {record.get('global_batch_size')}"
        )
    return "\n".join(lines)


def _one_line(settings: Any) -> str:
    if not isinstance(settings, Mapping):
        return "not recorded"
    return ", ".join(f"{key} {value}" for key, value in without_places(settings).items() if value is not None)


def _results(record: Mapping[str, Any] | None, results: Sequence[CardResult]) -> str:
    parts = []
    validation = (record or {}).get("validation")
    if validation:
        told = ", ".join(f"{key} {value:.2f}" for key, value in validation.items() if isinstance(value, (int, float)))
        parts.append(f"On the validation split of its training: {told}.")
    for result in results:
        keys = [key for key in _SHOWN_KEYS if key in result.metrics]
        rows = [keys, ["---"] * len(keys), [f"{result.metrics[key]:.1f}" for key in keys]]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        parts.append(f"**{result.benchmark}** ({result.protocol})\n\n{table}")
    return "\n\n".join(parts) or "These weights were not evaluated."


def _license(license: str) -> str:
    if license == UNKNOWN_LICENSE:
        return (
            "Nobody has said under which licence these weights are. That of the data they learned from may bind them."
        )
    return f"{license}. That of the data they learned from may bind these weights, too."
