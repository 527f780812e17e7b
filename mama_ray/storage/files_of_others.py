"""What lies in a folder before a job makes it its own."""

from collections.abc import Collection

from mama_ray.errors import UserError
from mama_ray.storage.places import Place


def refuse_others(output: Place, names: Collection[str]) -> None:
    """Raise UserError where a folder that is not ours yet has files that would be written over: another job's, or a
    person's."""
    found = sorted(file.name for file in output.files() if file.name in names) if output.exists() else []
    if found:
        raise UserError(
            "the folder holds files of others, which would be written over",
            got=f"{', '.join(found)} in {output}",
            wanted="a folder of its own",
            remedy="choose another --output",
        )
