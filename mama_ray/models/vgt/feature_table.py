"""Whether a table of features is what a model reads instead of pixels."""

from mama_ray.data.region_features.assemble import features_at
from mama_ray.errors import UserError
from mama_ray.models.dual_encoder import DualEncoderConfig
from mama_ray.models.vgt.model import VgtConfig


def regions_read(uri: str | None, config: DualEncoderConfig, *, option: str, num_frames: int | None = None) -> int:
    """Return how many regions of a frame a model of this config reads, 0 for one that reads pixels.

    `option` is by which name the user gives the table, `num_frames` of a model that is still to be built. Raises
    UserError where a model that reads features has none or others than its own, and where one has no use for them.
    """
    if not isinstance(config, VgtConfig):
        if uri is not None:
            got = "a model that reads pixels"
            raise UserError(
                f"{option} is for a model that reads features", got=got, wanted="VGT", remedy="leave it out"
            )
        return 0
    if uri is None:
        raise UserError("VGT reads features", got=f"no {option}", remedy="make a table with jobs/features.py")
    shape = features_at(uri).shape
    sizes = {name: (getattr(shape, name), getattr(config, name)) for name in ("num_clips", "frame_dim", "region_dim")}
    sizes["num_frames"] = shape.num_clips * shape.frames_per_clip, num_frames or config.num_frames
    if shape.num_regions < config.num_regions:
        sizes["num_regions"] = shape.num_regions, config.num_regions
    differing = {name: pair for name, pair in sizes.items() if name == "num_regions" or pair[0] != pair[1]}
    if differing:
        raise UserError(
            f"the features of {uri} are not the model's",
            got=", ".join(f"{name} {got}" for name, (got, _) in differing.items()),
            wanted=", ".join(f"{name} {wanted}" for name, (_, wanted) in differing.items()),
            remedy="set data.num_frames to clips times frames, or build the model with their sizes",
        )
    return config.num_regions
