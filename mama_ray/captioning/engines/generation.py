"""How captions are generated: the sampling, the engine's limits, and each clip's own seed."""

import hashlib
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from mama_ray.config import AddedLater, Config

EngineName = Literal["auto", "vllm", "gpt2"]
_SEED_BITS = 62  # of a clip's seed: its captions count on from there, and vLLM takes 64 bits with a sign


class SamplingConfig(Config):
    """How captions are drawn from the model."""

    num_captions: int = Field(1, ge=1, le=64)
    """Captions per clip, all from one prefill."""

    temperature: float = Field(0.0, ge=0.0, le=5.0)
    """0 takes the likeliest token always; MAMA's release samples at 0.2."""

    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Share of probability mass that is sampled from."""

    top_k: AddedLater[int] = Field(0, ge=0, le=1 << 16)
    """Likeliest tokens that are sampled from; 0 is all."""

    max_tokens: int = Field(64, ge=1)
    """Tokens after which a caption is cut off (and flagged so)."""

    min_tokens: int = Field(0, ge=0)
    """Tokens before which the model may not end a caption."""

    seed: int = Field(0, ge=0)
    """Seed of the sampling; each clip and caption has its own, made from it."""

    @model_validator(mode="after")
    def _captions_can_be_drawn(self) -> "SamplingConfig":
        if self.num_captions > 1 and self.temperature == 0:
            raise ValueError("num_captions above 1 needs a temperature above 0: greedy captions of one clip are equal")
        narrowing = [name for name in ("top_p", "top_k") if name in self.changed_beside("temperature")]
        if narrowing and self.temperature == 0:
            names = " and ".join(narrowing)
            raise ValueError(f"{names} without a use at temperature 0, which takes the likeliest token: leave it out")
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}")
        return self


class EngineConfig(Config):
    """What runs the model, and how: vLLM most of them, `gpt2` LaViLa's gated narrators."""

    named_by: ClassVar[str | None] = "name"

    name: AddedLater[EngineName] = "auto"
    """auto: what the model's folder is for; another one is refused. On a command line `--engine gpt2` says it too."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: float32 on a CPU, the model's own on a GPU."""

    max_num_seqs: int = Field(64, ge=1)
    """Captions that are written at a time."""

    max_model_len: int | None = Field(None, ge=16)
    """Tokens of prompt, picture and caption together; null takes the model's own limit."""

    kv_cache_mib: int | None = Field(None, ge=1)
    """Memory of the key-value cache; null is 256 on a CPU and what gpu_memory_utilization leaves on a GPU."""

    gpu_memory_utilization: float = Field(0.9, gt=0.0, le=1.0)
    """Share that vLLM may take of a GPU's memory; of an engine that has half a GPU, of half of it."""

    batch_invariant: bool = False
    """vLLM's kernels whose rounding does not depend on the batch, where the GPU has them; slower."""

    options: dict[str, bool | int | float | str] = {}
    """Further arguments of vLLM's LLM class, such as {quantization: awq}; no other engine takes any."""

    @property
    def num_gpus(self) -> int:
        """GPUs that vLLM spreads a model over."""
        return int(self.options.get("tensor_parallel_size", 1)) * int(self.options.get("pipeline_parallel_size", 1))

    @model_validator(mode="after")
    def _options_are_of_vllm(self) -> "EngineConfig":
        if self.name == "gpt2" and self.options:
            raise ValueError(f"options {', '.join(self.options)} are of vLLM, which the engine gpt2 is not")
        return self


def clip_seed(seed: int, clip_id: str) -> int:
    """Return the sampling seed of a clip's first caption; sample k has the k-th after it. No history goes into it."""
    digest = hashlib.sha256(f"{seed}:{clip_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> (64 - _SEED_BITS)
