"""Small studies, and what Ray Tune would tell them."""

import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import TPESampler

from mama_ray.orchestration.sweep.database import StudyStore
from mama_ray.orchestration.sweep.search import StudySearch
from mama_ray.orchestration.sweep.values import STEP
from mama_ray.storage.places import Place

SPACE = {"objective.margin": FloatDistribution(0.0, 0.4)}
OBJECTIVES = {"val/t2v_R@1": "max"}
NUM_STEPS = 12


def store_at(folder, url: str | None = None) -> StudyStore:
    return StudyStore(url, "sweep", Place.of(str(folder)))


def opened(store: StudyStore, space=SPACE, objectives=OBJECTIVES, points=({"objective.margin": 0.1},), definition="{}"):
    return store.open_study(space, objectives, first_points=points, definition=definition)


def search_on(store: StudyStore, seed: int = 0) -> StudySearch:
    study = optuna.load_study(study_name=store.name, storage=store.storage, sampler=TPESampler(seed=seed))
    return StudySearch(store, study, SPACE, OBJECTIVES, num_samples=5)


def result(step: int, value: float | None, num_steps: int = NUM_STEPS) -> dict:
    return {STEP: step, "num_steps": num_steps, "throughput/step_s": 0.5, "val/t2v_R@1": value}
