"""What the app is asked for."""

import ipaddress
import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from mama_ray.config import Config, MayChange
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.models.hub import absolute_source
from mama_ray.orchestration.captioning.job import EMBEDDED
from mama_ray.orchestration.serving.replicas import ReplicaConfig
from mama_ray.storage.places import absolute_uri

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
ALL_ADDRESSES = ("0.0.0.0", "::")  # to listen on
_NAME = re.compile(r"[a-z0-9._-]+", re.IGNORECASE | re.ASCII)  # what a Host header may have before its port
_HOST_OF_ADDRESS = re.compile(r"(?:[a-z]+://)?([a-z0-9._-]+|\[[0-9a-f:.]+\])(?:[:/]|$)", re.IGNORECASE | re.ASCII)

# What a stranger uploads is held tighter than what was prepared: a minute of a core, a few GiB of memory. It may be as
# long as what jobs/narrate.py takes, and as large as max_upload_mib says.
_UPLOADED_VIDEOS = DecodeConfig(
    max_bytes=64 << 30, max_duration_s=24 * 3600.0, max_frames=12_000_000, timeout_s=60.0, max_memory_gib=4.0
)


class AppJob(Config):
    """The app on one corpus."""

    shards: str | None = None
    """Folder or URI of shards with their index; null makes and uses the embedded corpus."""

    corpus: CorpusConfig = CorpusConfig()
    """The embedded corpus, where `shards` is null."""

    captions: list[str] = []
    """Folders or URIs of caption tables about the same clips, as jobs/caption.py and jobs/rephrase.py write them."""

    run: str | None = None
    """Run, checkpoint, model folder or hub id of the dual encoder that searches; `embedded` is the small one that comes
    with the package. null leaves search out."""

    index: str | None = None
    """Folder or URI of the embedding table of jobs/index.py; null makes it below `data` where `run` is given."""

    search: MayChange[Literal["exact", "approximate"]] = "exact"
    """approximate looks at the likeliest clips alone, for many millions; its recall@10 is told at the start."""

    cluster: ReplicaConfig = ReplicaConfig()
    """Search by replicas on Ray Serve, for more queries or clips than this process takes."""

    narrator: str | None = None
    """Captioner that narrates videos, as of jobs/narrate.py; `embedded` is the small one that comes with the package.
    null leaves narration out."""

    audit: str | None = None
    """Folder or URI that jobs/audit.py wrote; null leaves the page of weights out."""

    data: MayChange[str] = "runs/app"
    """Folder on this machine in which the app keeps uploads, narrations, marks and previews."""

    host: MayChange[str] = "127.0.0.1"
    """Address to listen on. Any but this machine's own needs a token, in the variable MAMA_RAY_APP_TOKEN."""

    port: MayChange[int] = Field(8765, ge=1, le=65535)
    """Port to listen on."""

    hosts: MayChange[list[str]] = []
    """Names or addresses without a port, beside those of this machine's own address, under which browsers may ask for
    the app. Where `host` is 0.0.0.0 or ::, any IP address is one."""

    max_upload_mib: MayChange[int] = Field(4096, ge=1)
    """Largest upload in MiB; what is larger is stopped on its way."""

    max_cache_mib: MayChange[int] = Field(1024, ge=1)
    """Most MiB of previews and poster frames that are kept."""

    max_clients: MayChange[int] = Field(64, ge=1)
    """Most requests that are worked on at a time; further ones are asked to come again."""

    max_jobs: MayChange[int] = Field(8, ge=1)
    """Most narrations that wait for their turn; further ones are refused."""

    decode: MayChange[DecodeConfig] = _UPLOADED_VIDEOS
    """Limits of the video decoder, for clips that are shown and videos that are narrated. An example is read as the
    clips of the index were, for a feature depends on it."""

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, host: str) -> str:
        if not host or any(letter.isspace() or letter in "/@?#" for letter in host):
            raise ValueError(f"got {host!r}, wanted an address such as 127.0.0.1 or 0.0.0.0")
        return host

    @field_validator("hosts")
    @classmethod
    def _are_bare_names(cls, hosts: list[str]) -> list[str]:
        return [_bare_name(host) for host in hosts]

    @model_validator(mode="after")
    def _search_has_an_encoder(self) -> Self:
        if self.index is not None and self.run is None:
            raise ValueError("index needs run, the encoder that it was made by: words are searched with it")
        if self.run is None and (self.search != "exact" or self.cluster.num_replicas):
            name = "cluster" if self.cluster.num_replicas else "search"
            raise ValueError(f"{name} needs run, the encoder: without one nothing is searched")
        return self


def _bare_name(host: str) -> str:
    """Return a name or address as a Host header is compared with it; ValueError for what would never match one."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if _is_ip6(bare) or _NAME.fullmatch(host):
        return bare
    found = _HOST_OF_ADDRESS.match(host)
    likely = found[1].strip("[]") if found else "my.machine.example"
    raise ValueError(f"got {host!r}, wanted a bare name or address such as {likely}")


def _is_ip6(host: str) -> bool:
    try:
        return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False


def with_absolute_paths(job: AppJob) -> AppJob:
    """Name every place so that it is found from any working directory."""
    changes: dict = {"data": absolute_uri(job.data), "captions": [absolute_uri(table) for table in job.captions]}
    for name in ("shards", "index", "audit"):
        if getattr(job, name) is not None:
            changes[name] = absolute_uri(getattr(job, name))
    if job.run is not None:
        changes["run"] = absolute_source(job.run)
    if job.narrator not in (None, EMBEDDED) and job.narrator.startswith((".", "~", "/")):
        changes["narrator"] = absolute_uri(job.narrator)
    return job.model_copy(update=changes)
