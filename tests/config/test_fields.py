"""Which fields may change between two starts: marked on the field, read off the class."""

from pydantic import Field

from mama_ray.config import AddedLater, Config, MayChange, decisive_values, names_that_may_change, parse_config
from mama_ray.config.fields import config_class_of, find_field


class Inner(Config):
    """A group."""

    depth: int = 1
    width: AddedLater[int] = Field(2, ge=1)


class Sample(Config):
    """A config with fields of both kinds."""

    lr: float = 0.1
    inner: Inner = Inner()
    log_every: MayChange[int] = Field(10, ge=1)
    place: MayChange[Inner] = Inner()
    folder: MayChange[str | None] = None
    later: AddedLater[Inner] = Inner()


def test_only_marked_fields_may_change():
    assert names_that_may_change(Sample) == {"log_every", "place", "folder"}
    assert names_that_may_change(Inner) == set()


def test_decisive_values_are_those_of_all_other_fields_as_json_has_them():
    assert decisive_values(Sample(log_every=3, folder="x")) == {"lr": 0.1, "inner": {"depth": 1}}


def test_what_was_added_later_decides_where_it_is_not_as_it_was_before():
    before = {"lr": 0.1, "inner": {"depth": 1}}
    assert decisive_values(Sample(inner=Inner(width=3))) == {"lr": 0.1, "inner": {"depth": 1, "width": 3}}
    assert decisive_values(Sample(later=Inner(depth=2))) == before | {"later": {"depth": 2}}


def test_a_mark_changes_nothing_else_about_a_field():
    assert find_field(Sample, "log_every").annotation is int
    assert find_field(Sample, "place.depth").annotation is int
    assert config_class_of(Sample.model_fields["place"].annotation) is Inner
    job = parse_config(Sample, ["--log_every", "7", "--place.depth", "3", "--folder", "a"])
    assert (job.log_every, job.place.depth, job.folder) == (7, 3, "a")
