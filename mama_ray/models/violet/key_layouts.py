"""The flat file of VIOLETv2's release: the model's own names without the dual encoder's parts, and three kinds of keys.

* Buffers, which hold no weights: read, compared with what they must hold, dropped. Export writes them again.
* `fc_mtm.predictions.bias`, which is `fc_mtm.predictions.decoder.bias` a second time: the release reads the latter.
  Files of VIOLET v1 call the head `fc`.
* Of MAMA's fork: `dummy_param`, which is dropped, and adapters (`...adaptmlp...`), which this model does not have: a
  file with them is refused unless they are to be left out.

Whatever else is left over is an error.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mama_ray.errors import UserError
from mama_ray.models.adapters import exported_state
from mama_ray.models.violet.model import Violet
from mama_ray.models.violet.windows import relative_position_index
from mama_ray.models.weight_files import LoadReport, State, compare_states, name_some

OWN_PARTS = ("video_projection.", "text_tower.", "text_projection.", "logit_scale")
RELEASE_MARK = "enc_img."  # which no other released file has
DUMMY_KEY = "dummy_param"
ADAPTER_MARK = ".adaptmlp."
MLM_KEY, V1_MLM_KEY = "fc_mtm", "fc"
POSITION_IDS, SEGMENT_IDS = "enc_txt.emb_txt.position_ids", "enc_txt.emb_txt.token_type_ids"
_TWIN, _BIAS = f"{MLM_KEY}.predictions.bias", f"{MLM_KEY}.predictions.decoder.bias"
MlmName = Literal["fc_mtm", "fc"]


@dataclass(frozen=True, eq=False)
class ReleaseForm:
    """What a file has beyond the weights, so that it can be written again as it was.

    Attributes:
        buffers: names of its buffers.
        mlm_name: of the head that predicts words.
        dtypes: of its weights; one that is not named is float32.
        other_bias: of the head, where its two keys differ, the one that is not read.
    """

    buffers: tuple[str, ...]
    mlm_name: MlmName
    dtypes: Mapping[str, torch.dtype]
    other_bias: Tensor | None = None


def is_release(content: Any) -> bool:
    """Whether a file's content is in the layout of VIOLET's release."""
    return any(key.startswith(RELEASE_MARK) for key in _flat(content))


def _flat(content: Any) -> dict[str, Any]:
    """Take off the known wrappings: {"model": state}, and `module.` before every key."""
    if isinstance(content, Mapping) and set(content) == {"model"}:
        content = content["model"]
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return {}
    prefix = "module." if content and all(key.startswith("module.") for key in content) else ""
    return {key.removeprefix(prefix): value for key, value in content.items()}


def read_release(
    model: Violet, content: Any, *, source: str, without_adapters: bool = False
) -> tuple[State, ReleaseForm, LoadReport]:
    """Return a released file's weights under the model's names, the file's form, and what became of each key.

    UserError names every key that is missing, too many, of another shape, or of content that cannot be. The model may
    be one without memory.
    """
    state = _flat(content)
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(
            f"{source} is not a flat state dict", wanted="names mapped to tensors, or {'model': such a dict}"
        )
    adapters = sorted(key for key in state if ADAPTER_MARK in key)
    if adapters and not without_adapters:
        raise UserError(
            f"{source} holds the adapters of MAMA's fork, which VIOLETv2 does not have",
            got=f"{len(adapters)} keys, such as {adapters[0]}",
            wanted="VIOLETv2's keys",
            remedy="import_violet_release(..., without_adapters=True) leaves them out; the features are others then",
        )
    dropped = [*adapters, *(key for key in (DUMMY_KEY,) if key in state)]
    for key in dropped:
        del state[key]
    mlm_name = _mlm_name(state)
    state = _with_head_named(state, mlm_name, MLM_KEY)
    buffers = _take_buffers(model, state, source)
    report = _compare(model, state, [*dropped, *buffers])
    report.raise_if_incomplete(source)
    dtypes = {key: value.dtype for key, value in state.items()}
    weights = {key: state[key] for key in _release_names(model)}
    other_bias = None
    if model.fc_mtm is not None and not torch.equal(state[_TWIN], state[_BIAS]):
        other_bias = state[_TWIN]
        report = replace(report, dropped=(*report.dropped, _TWIN))
    return weights, ReleaseForm(tuple(buffers), mlm_name, dtypes, other_bias), report


@dataclass(frozen=True, eq=False)
class ReleasedModel:
    """A model as the release has it, without the parts of the dual encoder.

    Attributes:
        form: of the file that it came from; by default float32 with the buffers of Video Swin.
    """

    model: Violet
    form: ReleaseForm | None = None

    def state_dict(self) -> State:
        """Return the content of the flat file."""
        return _release_state(self.model, self.form)


def _release_state(model: Violet, form: ReleaseForm | None) -> State:
    known = _known_buffers(model)
    form = form or ReleaseForm(tuple(_indices(known)), MLM_KEY, {})
    state = {
        key: value.detach().cpu().contiguous().to(form.dtypes.get(key, torch.float32))
        for key, value in exported_state(model).items()
        if not key.startswith(OWN_PARTS)
    }
    if model.fc_mtm is not None:
        state[_TWIN] = state[_BIAS].clone() if form.other_bias is None else form.other_bias
    # Copies: safetensors takes no two names of one tensor.
    return _with_head_named(state, MLM_KEY, form.mlm_name) | {name: known[name].clone() for name in form.buffers}


def _mlm_name(state: Collection[str]) -> MlmName:
    has_v1 = any(key.startswith(f"{V1_MLM_KEY}.predictions.") for key in state)
    return "fc" if has_v1 and not any(key.startswith(f"{MLM_KEY}.") for key in state) else "fc_mtm"


def _with_head_named(state: State, old: MlmName, new: MlmName) -> State:
    old_start, start = f"{old}.predictions.", f"{new}.predictions."
    return {
        start + key.removeprefix(old_start) if key.startswith(old_start) else key: value for key, value in state.items()
    }


def _indices(names: Collection[str]) -> list[str]:
    return [name for name in names if name.endswith(".relative_position_index")]


def _release_names(model: nn.Module) -> list[str]:
    return [key for key in model.state_dict() if not key.startswith(OWN_PARTS)]


def _known_buffers(model: Violet) -> State:
    """Return every buffer that a file may hold, with the only content it can have."""
    index = relative_position_index(model.config.video.window)
    places = torch.arange(model.config.num_positions)[None]
    blocks = {
        f"{name}.relative_position_index": index
        for name, module in model.named_modules()
        if hasattr(module, "relative_position_bias_table")
    }
    return blocks | {POSITION_IDS: places, SEGMENT_IDS: torch.zeros_like(places)}


def _take_buffers(model: Violet, state: State, source: str) -> list[str]:
    """Take the buffers out of a state and return their names; UserError for one that says something else."""
    known = _known_buffers(model)
    names = [key for key in state if key in known]
    absent = sorted(set(_indices(known)) - set(names)) if _indices(names) else []
    LoadReport(missing=tuple(absent)).raise_if_incomplete(source)
    others = [key for key in names if not _is_same(state.pop(key), known[key])]
    if others:
        raise UserError(
            f"buffers of {source} are not those of the model",
            got=name_some(others),
            wanted=f"indices within a window of {model.config.video.window}; positions in order; segment 0",
            remedy="import with the config that the weights were made for",
        )
    return names


def _is_same(found: Tensor, wanted: Tensor) -> bool:
    # Of other numbers, equal ones would be written back as other bytes.
    return found.dtype == wanted.dtype and torch.equal(found, wanted)


def _compare(model: Violet, state: State, dropped: list[str]) -> LoadReport:
    """Compare keys and shapes with those that the release has for such a model."""
    own = model.state_dict()
    wanted = {key: own[key] for key in _release_names(model)}
    if model.fc_mtm is not None:
        wanted[_TWIN] = wanted[_BIAS]
    fresh = tuple(key for key in own if key.startswith(OWN_PARTS))
    return replace(compare_states(wanted, state, dropped=dropped), fresh=fresh)
