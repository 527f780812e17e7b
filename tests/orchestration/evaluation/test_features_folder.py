"""The folder of an evaluation's features: gone with the evaluation, or with the next one where it was killed."""

from mama_ray.orchestration.evaluation.features_folder import features_folder
from mama_ray.storage.lease import LEASE_NAME
from mama_ray.storage.places import Place
from tests.storage.lease_holder import hold


def test_features_of_a_killed_evaluation_are_removed_and_those_of_a_live_one_are_not(tmp_path):
    dead, alive = tmp_path / ".features-000000000000", tmp_path / ".features-000000000001"
    processes = []
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "part.parquet").touch()
        processes.append(hold(Place.of(f"{folder}{LEASE_NAME}"), 1.0))
    processes[0].kill()
    processes[0].wait()
    (tmp_path / "embedded.json").touch()
    with features_folder(Place.of(tmp_path)) as uri:
        Place.of(uri).make_folder()
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {"embedded.json", alive.name, f"{alive.name}{LEASE_NAME}"} | {
            Place.of(uri).name,
            f"{Place.of(uri).name}{LEASE_NAME}",
        }
    processes[1].communicate("end\n")
    assert {path.name for path in tmp_path.iterdir()} == {"embedded.json", alive.name}
