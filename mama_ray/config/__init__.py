"""Configs: classes of checked values that reach a job from a YAML file, the command line or a dict of overrides.

One spelling everywhere: YAML `optim: {lr: 1e-3}`, command line `--optim.lr 5e-4`, override `{"optim.lr": 5e-4}`. All
end in the same validation, strict about types, so a mistake is told in the same words wherever it was made. A config
class derives from `Config` and sits beside the code that reads it. `MayChange` marks the fields that a job which was
begun may have other values of, `Location` those that say where something lies, `AddedLater` those that earlier
versions have not had.
"""

from mama_ray.config.command_line import parse_config
from mama_ray.config.fields import (
    AddedLater,
    Location,
    MayChange,
    decisive_values,
    names_of_locations,
    names_that_may_change,
)
from mama_ray.config.mistakes import ConfigError
from mama_ray.config.schema import Config, config_to_yaml, load_config, with_overrides
from mama_ray.config.yaml_text import load_yaml

__all__ = [
    "AddedLater",
    "Config",
    "ConfigError",
    "Location",
    "MayChange",
    "config_to_yaml",
    "decisive_values",
    "load_config",
    "load_yaml",
    "names_of_locations",
    "names_that_may_change",
    "parse_config",
    "with_overrides",
]
