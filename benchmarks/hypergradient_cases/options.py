"""The ways to a hypergradient that are compared, by dotted keys of a cell of the study; TODAY is the default."""

from typing import Any

UNIFORM, TODAY = "uniform", "batch 32, every 2"
_LEARNED = {"weighting.kind": "learned", "weighting.standardise": True}
_LAST_LAYERS = ("*.layers.1", "*_projection", "*.post_layernorm", "*.final_layer_norm", "logit_scale")
_SIZES, _EVERY = (8, 16, 32, 64), (1, 2, 4, 8)


def _options() -> dict[str, dict[str, Any]]:
    options: dict[str, dict[str, Any]] = {UNIFORM: {"weighting.kind": "uniform"}}
    options[TODAY] = {"meta.batch_size": 32, "meta.meta_every": 2}
    today = options[TODAY]
    for share, words in ((0.5, "half"), (0.25, "a quarter")):
        options[f"tangents of {words}, every 2"] = today | {"meta.tangent_share": share}
    options["averaged, every 2"] = today | {"meta.gradient_decay": 0.6}
    options["one-sided difference, every 2"] = today | {"meta.hypergradient": "finite_difference"}
    options["last layers, every 2"] = today | {"meta.inner.parameters": _LAST_LAYERS}
    cheapest = {"meta.tangent_share": 0.25, "meta.gradient_decay": 0.6}
    options["tangents of a quarter, averaged, every 2"] = today | cheapest
    options["tangents of a quarter, averaged, batch 16, every 2"] = today | cheapest | {"meta.batch_size": 16}
    options["tangents of a quarter, averaged, batch 16, every 4"] = (
        today | cheapest | {"meta.batch_size": 16, "meta.meta_every": 4}
    )
    for size in _SIZES:
        for every in _EVERY:
            options.setdefault(f"batch {size}, every {every}", {"meta.batch_size": size, "meta.meta_every": every})
    return {name: (_LEARNED if name != UNIFORM else {}) | values for name, values in options.items()}


OPTIONS = _options()
