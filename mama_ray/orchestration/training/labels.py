"""The classes of a run's clips: read once, beside the clips, and put into their tables."""

import hashlib
import json
from collections.abc import Mapping

import pyarrow as pa

from mama_ray.data.classes.table import ClassTable, classes_of_embedded, read_classes
from mama_ray.errors import UserError
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.heads.classes import ClassHeads, clip_feature_dim
from mama_ray.models.heads.settings import ClassHeadConfig
from mama_ray.orchestration.training.settings import DataConfig

SPLITS = ("train", "meta", "val")


def add_classes(
    tables: dict[str, pa.Table], config: DataConfig, *, needs_relevance: bool = False
) -> tuple[dict[str, pa.Table], dict]:
    """Return the tables of train, meta and val with columns of classes, and a summary: sizes by kind, names of actions
    that were made of pairs, and a hash of all; UserError where a clip has none.

    needs_relevance: whether a loss reads how relevant texts are to clips, as data.positive_relevance does, which
    actions alone do not say.
    """
    if config.classes:
        found, source = read_classes(config.classes), ", ".join(config.classes)
    else:
        found, source = _of_embedded(tables), "the embedded corpus"
    if (needs_relevance or config.positive_relevance is not None) and not {"verb", "noun"} & found.sizes.keys():
        raise UserError(
            "no relevance of texts to clips",
            got=f"classes of {', '.join(found.sizes)} in {source}",
            wanted="verbs and nouns",
            remedy="give a file of data.classes with the columns verb and noun, or take loss max_margin without "
            "data.positive_relevance",
        )
    labelled = tables | {split: found.add_to(tables[split], source) for split in SPLITS}
    ids = [clip_id for split in SPLITS for clip_id in tables[split]["clip_id"].to_pylist()]
    content = {clip_id: found.sets[clip_id] for clip_id in ids}
    digest = hashlib.sha256(json.dumps([content, dict(found.sizes), found.actions], sort_keys=True).encode())
    return labelled, {"sizes": dict(found.sizes), "actions": list(found.actions), "sha256": digest.hexdigest()}


def _of_embedded(tables: dict[str, pa.Table]) -> ClassTable:
    """What splits lack of the corpus's classes does not change their numbers: actions are those of all splits."""
    clips = pa.concat_tables([table.select(["clip_id", "truth"]) for table in tables.values()])
    return classes_of_embedded(clips["clip_id"].to_pylist(), clips["truth"].to_pylist())


def build_class_head(config: ClassHeadConfig, sizes: Mapping[str, int], model: DualEncoder) -> ClassHeads:
    """Make the run's heads with new weights, on the model's device; UserError for a kind of which no clip has a class,
    and for fewer classes than there are."""
    if missing := [kind for kind in config.kinds if kind not in sizes]:
        raise UserError(
            f"no clip has a {missing[0]}", got=f"classes of {', '.join(sizes)}", wanted="task.class_head.kinds of these"
        )
    num_classes: dict[str, int] = {kind: config.num_classes.get(kind, sizes[kind]) for kind in config.kinds}
    if short := [kind for kind in config.kinds if num_classes[kind] < sizes[kind]]:
        raise UserError(
            f"task.class_head.num_classes of {short[0]}",
            got=num_classes[short[0]],
            wanted=f"at least {sizes[short[0]]}",
        )
    return ClassHeads(clip_feature_dim(model), num_classes, config.dropout).to(model.logit_scale.device)
