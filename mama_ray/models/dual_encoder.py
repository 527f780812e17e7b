"""What a backbone owes: everything that training, weighting, evaluation and captioning ask of a model.

A backbone is a torch module that also inherits `DualEncoder`; `tests/models/test_dual_encoder.py` holds every one to
these promises. Two more cannot be written as signatures: outside training the same input gives the same features on
every call, in training under the same state of the generator and the same batch; and attention goes through
`models/attention.py`, so that forward-mode differentiation works. Neither tower sees the other's input, which the
angular margin needs.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from mama_ray.models.weight_files import LoadReport


@runtime_checkable
class DualEncoderConfig(Protocol):
    """A backbone's config, a `Config` that goes into config.json but for `gradient_checkpointing`."""

    @property
    def image_size(self) -> int:
        """Frame height and width in pixels."""

    @property
    def num_frames(self) -> int:
        """Frames per clip that the weights were made for."""

    @property
    def vocab_size(self) -> int:
        """Token ids."""

    @property
    def context_length(self) -> int:
        """Most tokens of a text."""

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether a new model recomputes its layers in backward."""

    def model_dump(self, *, mode: str, exclude: set[str]) -> dict[str, Any]:
        """Return the fields as plain values."""


@runtime_checkable
class DualEncoder(Protocol):
    """Clips and texts in, features of one space out; `logit_scale` is the learned inverse temperature in log form."""

    model_type: ClassVar[str]
    """The name in config.json, by which `models/pretrained.py` finds the backbone again."""

    config: Any
    """The backbone's own DualEncoderConfig."""

    logit_scale: nn.Parameter
    """A scalar; it needs no gradient where it is frozen."""

    training: bool

    new_weights: tuple[str, ...] = ()
    """Names of the weights that the source of a loaded model had none for: they are as they were initialised."""

    @property
    def logit_scale_bounds(self) -> tuple[float, float]:
        """Smallest and largest log scale."""

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether layers are recomputed in backward."""

    def __call__(
        self, frames: Any, token_ids: Int[Tensor, "texts tokens"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "texts dim"]]:
        """Return (video_features, text_features)."""

    def encode_video(self, frames: Any) -> Float[Tensor, "batch dim"]:
        """Embed clips to unit norm, at least float32: RGB with values 0 to 255, Num (batch, frames, height, width, c)
        with any number of frames, or where a backbone reads features instead of pixels its dict of tensors, axis 0 the
        clip."""

    def encode_text(self, token_ids: Int[Tensor, "texts tokens"]) -> Float[Tensor, "texts dim"]:
        """Embed token ids as the backbone's own tokenizer makes them, to unit norm, at least float32.

        After CLIP's rule each row is ended, and filled up, by the largest id of the vocabulary; after BERT's it is
        filled up with a pad id that the config names. What fills a row up changes nothing.
        """

    def clamp_logit_scale_(self) -> None:
        """Put the logit scale back within its bounds, in place; called after each optimiser step."""

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Turn recomputation on or off; neither features nor gradients change, also under `functional_call`."""

    # What a torch module offers, as far as it is asked for.

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters with their names, which are the keys of model.safetensors."""

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield all modules with their names."""

    def state_dict(self) -> dict[str, Any]:
        """Return the weights by name."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Copy weights by name into the model."""

    def train(self, mode: bool = True) -> "DualEncoder":
        """Set the training mode."""

    def eval(self) -> "DualEncoder":
        """Leave the training mode."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move to a device, or to a type of numbers."""


@runtime_checkable
class PooledEncoder(DualEncoder, Protocol):
    """A dual encoder that gives the feature of a clip before the projection into the joint space: what a head that
    classifies clips reads."""

    @property
    def pooled_width(self) -> int:
        """Channels of that feature."""

    def pool_video(self, frames: Any) -> Float[Tensor, "batch width"]:
        """Return it for what `encode_video` takes; it has no unit norm."""


@runtime_checkable
class BiasedEncoder(Protocol):
    """A dual encoder with a bias of its own beside the logit scale, as SigLIP's, for the sigmoid loss."""

    logit_bias: nn.Parameter
    """A scalar that is added to each scaled similarity."""


@runtime_checkable
class Backbone(Protocol):
    """What `load.py` in a backbone's folder offers: the module itself is the entry of the table in `pretrained.py`."""

    @property
    def PRESETS(self) -> Mapping[str, DualEncoderConfig]:
        """Named sizes; a name belongs to one backbone only."""

    def build_fresh(self, config: Any) -> DualEncoder:
        """Build a model with new weights from torch's random numbers."""

    def load_directory(
        self, directory: Path, *, interpolate: bool = False, **overrides: Any
    ) -> tuple[DualEncoder, LoadReport]:
        """Load a directory whose config.json has this backbone's model_type, with fields of the config replaced;
        UserError where something is damaged or does not fit."""

    def trained_overrides(self, directory: Path) -> dict[str, Any]:
        """Return what to replace in the config so that the model has no new weights that change its features."""

    def describe_directory(self, directory: Path) -> DualEncoderConfig:
        """Return the config of such a directory with `load_directory`'s errors, without reading the weights."""
