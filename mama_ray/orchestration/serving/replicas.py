"""How search is spread over a cluster."""

from typing import Self

from pydantic import Field, model_validator

from mama_ray.config import Config


class ReplicaConfig(Config):
    """Search on Ray Serve: the encoder's replicas, and the index in shares with replicas of each."""

    num_replicas: int = Field(default=0, ge=0, le=1 << 10)
    """Replicas of each share; 0 keeps encoder and index in the app's own process."""

    num_towers: int = Field(default=2, ge=1, le=1 << 10)
    """Replicas of the encoder, which take queries in batches."""

    tower_cpus: float = Field(default=1.0, gt=0)
    """CPUs of a replica of the encoder."""

    tower_gpus: float = Field(default=0.0, ge=0)
    """GPUs of a replica of the encoder."""

    max_batch_size: int = Field(default=32, ge=1, le=1 << 10)
    """Most texts that are encoded together."""

    num_shares: int = Field(default=1, ge=1, le=1 << 10)
    """Parts of the index, each in an actor's memory; every query asks all of them."""

    share_cpus: float = Field(default=1.0, gt=0)
    """CPUs of a replica of a share."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.num_replicas == 0 and (told := self.changed_beside("num_replicas")):
            raise ValueError(f"{', '.join(told)} have no meaning without num_replicas: give it, too")
        return self
