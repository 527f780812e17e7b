"""Early stopping: the rule against naive twins, through Ray Tune's side of it, and over restarts."""

import ast
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from mama_ray.orchestration.sweep.database import StudyStore, requeue_unfinished
from mama_ray.orchestration.sweep.halving import RungPruner, StudyHalving, falls_behind
from mama_ray.orchestration.sweep.search import StudySearch
from mama_ray.orchestration.sweep.values import NUM_STEPS, STEP
from mama_ray.storage.places import Place

METRIC = "val/t2v_R@1"
SPACE = {"objective.margin": FloatDistribution(0.0, 0.4)}
LAST = 24
IN_MEMORY = "sqlite:///:memory:"
SWEEP = Path(__file__).resolve().parents[3] / "mama_ray/orchestration/sweep"


@dataclass
class TuneTrial:
    """What Ray Tune hands its scheduler, as far as it is looked at."""

    trial_id: str


class Halving:
    """A searcher and its scheduler on a store's study, as one start of a sweep has them."""

    def __init__(self, store: StudyStore, mode: str, *, grace: int, factor: float):
        study = store.open_study(SPACE, {METRIC: mode}, first_points=[])
        study.pruner = RungPruner(num_steps=LAST, grace=grace, factor=factor)
        self.study, self.search = study, StudySearch(store, study, SPACE, {METRIC: mode}, num_samples=99)
        self.scheduler = StudyHalving(self.search)
        self.known: set[str] = set()

    def stops(self, name: str, step: int, value: float) -> bool:
        """Report as Ray Tune does: the scheduler first, the searcher if the trial goes on or when it has ended."""
        if name not in self.known:
            self.known.add(name)
            self.search.suggest(name)
        told = {STEP: step, NUM_STEPS: LAST, METRIC: value}
        decision = self.scheduler.on_trial_result(None, TuneTrial(name), told)
        if decision == TrialScheduler.STOP or step >= LAST:
            self.search.on_trial_complete(name, told)
        else:
            self.search.on_trial_result(name, told)
        return decision == TrialScheduler.STOP


class NaiveHalving:
    """The rule in words: one list of values for each rung, in the order in which they came."""

    def __init__(self, mode: str, *, grace: int, factor: float):
        self.factor, self.sign = factor, 1 if mode == "max" else -1
        self.rungs = [grace * factor**k for k in range(99) if grace * factor**k <= LAST]
        self.values: dict[float, list[float]] = {rung: [] for rung in self.rungs}
        self.seen: set[tuple[str, float]] = set()

    def stops(self, name: str, step: int, value: float) -> bool:
        rung = None
        for one in self.rungs:
            if one <= step:
                rung = one
        if rung is None or (name, rung) in self.seen:
            return False
        self.seen.add((name, rung))
        ranked = sorted(self.values[rung])
        self.values[rung].append(self.sign * value)
        if not ranked or step >= LAST:
            return False
        place = (len(ranked) - 1) * (1 - 1 / self.factor)
        low, high = ranked[math.floor(place)], ranked[math.ceil(place)]
        return self.sign * value < low + (high - low) * (place - math.floor(place))


class RaysHalving:
    """Ray Tune's own scheduler."""

    def __init__(self, mode: str, *, grace: int, factor: float):
        options = {"grace_period": grace, "max_t": LAST, "reduction_factor": factor, "stop_last_trials": False}
        self.scheduler = ASHAScheduler(STEP, METRIC, mode, **options)
        self.known: set[str] = set()

    def stops(self, name: str, step: int, value: float) -> bool:
        if name not in self.known:
            self.known.add(name)
            self.scheduler.on_trial_add(None, TuneTrial(name))
        decision = self.scheduler.on_trial_result(None, TuneTrial(name), {STEP: step, METRIC: value})
        return decision == TrialScheduler.STOP and step < LAST


def reports(seed: int, *, every: int = 3, num_trials: int = 14) -> list[tuple[str, int, float]]:
    """Return validations of trials that run beside each other; few values, so that some are equal."""
    chance = random.Random(seed)
    steps = {f"trial-{number:04d}": every for number in range(num_trials)}
    told = []
    while steps:
        name = chance.choice(sorted(steps)[:4])
        told.append((name, steps[name], float(chance.randrange(20))))
        steps[name] += every
        if steps[name] > LAST:
            del steps[name]
    return told


def decide(halving, told: list[tuple[str, int, float]], stopped: dict[str, int] | None = None) -> dict[str, int]:
    """Return the step at which each stopped trial was stopped; nothing is heard of it after that."""
    stopped = {} if stopped is None else stopped
    for name, step, value in told:
        if name not in stopped and halving.stops(name, step, value):
            stopped[name] = step
    return stopped


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(("grace", "factor", "every"), [(6, 3.0, 3), (3, 2.0, 3), (4, 1.5, 3), (2, 3.0, 8)])
def test_trials_are_stopped_where_a_naive_twin_and_rays_own_scheduler_stop_them(tmp_path, mode, grace, factor, every):
    options = {"grace": grace, "factor": factor}
    for seed in range(2):
        told = reports(seed, every=every)
        with StudyStore(IN_MEMORY, "sweep", Place.of(str(tmp_path))) as store:
            stopped = decide(Halving(store, mode, **options), told)
        assert stopped == decide(NaiveHalving(mode, **options), told) == decide(RaysHalving(mode, **options), told)
        assert 0 < len(stopped) < 14


def test_halving_goes_on_after_a_restart_as_if_there_had_been_none(tmp_path):
    options = {"grace": 3, "factor": 2.0}
    told = reports(5)
    whole = decide(NaiveHalving("max", **options), told)
    for cut in range(5, len(told) - 4, 25):
        with StudyStore(IN_MEMORY, "sweep", Place.of(str(tmp_path))) as store:
            before = Halving(store, "max", **options)
            stopped = decide(before, told[:cut])
            ended = {name for name, step, _ in told[:cut] if step == LAST} | set(stopped)
            begun = [name for name in dict.fromkeys(name for name, *_ in told[:cut]) if name not in ended]
            assert requeue_unfinished(before.study) == len(begun)
            after = Halving(store, "max", **options)
            assert [after.search.suggest(name)["run"] for name in begun] == sorted(
                f"trial-{list(dict.fromkeys(n for n, *_ in told[:cut])).index(name):04d}" for name in begun
            )
            after.known |= set(begun) | ended
            assert decide(after, told[cut:], stopped) == whole


def test_halving_remembers_the_trials_of_earlier_starts(tmp_path):
    options = {"grace": 3, "factor": 3.0}
    with StudyStore(IN_MEMORY, "sweep", Place.of(str(tmp_path))) as store:
        before = Halving(store, "max", **options)
        for name, value in (("a", 30.0), ("b", 40.0), ("c", 50.0)):
            before.stops(name, 3, value)
        after = Halving(store, "max", **options)
        assert after.stops("late", 3, 39.0)
        assert not after.stops("last", LAST, 0.0)
    with StudyStore(IN_MEMORY, "sweep", Place.of(str(tmp_path))) as store:
        assert not Halving(store, "max", **options).stops("late", 3, 39.0)


def test_a_trial_that_reports_a_step_twice_is_not_judged_by_what_came_between(tmp_path):
    with StudyStore(IN_MEMORY, "sweep", Place.of(str(tmp_path))) as store:
        halving = Halving(store, "max", grace=3, factor=3.0)
        assert not halving.stops("a", 3, 10.0)
        for number in range(5):
            halving.stops(f"better {number}", 3, 50.0 + number)
        assert not halving.stops("a", 3, 10.0), "its node was lost, it validates from its checkpoint on"
        assert halving.stops("late", 3, 10.0)


def test_a_value_that_is_no_number_is_neither_kept_nor_judged(tmp_path):
    with StudyStore(IN_MEMORY, "sweep", Place.of(str(tmp_path))) as store:
        halving = Halving(store, "max", grace=3, factor=3.0)
        halving.stops("a", 3, 10.0)
        assert not halving.stops("b", 3, math.nan)
        assert halving.study.trials[1].intermediate_values == {}
        assert halving.stops("b", 6, 5.0), "its first value at this rung"


def test_the_best_share_goes_on():
    others = list(range(12))
    assert [falls_behind(value, others, share=1 / 3) for value in (7, 8)] == [True, False]
    assert not falls_behind(0, [], share=1 / 3)
    assert not falls_behind(5, [5, 5, 5], share=0.5)
    assert falls_behind(0.49, [0, 1], share=0.5) and not falls_behind(float(np.median([0, 1])), [0, 1], share=0.5)


def test_several_objectives_stop_nothing(tmp_path):
    objectives = {METRIC: "max", "throughput/step_s": "min"}
    with StudyStore(IN_MEMORY, "sweep", Place.of(str(tmp_path))) as store:
        study = store.open_study(SPACE, objectives, first_points=[])
        study.pruner = RungPruner(num_steps=LAST, grace=3, factor=3.0)
        search = StudySearch(store, study, SPACE, objectives, num_samples=2)
        for name, value in (("a", 30.0), ("b", 1.0)):
            search.suggest(name)
            told = {STEP: 3, NUM_STEPS: LAST, METRIC: value, "throughput/step_s": 1.0}
            assert StudyHalving(search).on_trial_result(None, TuneTrial(name), told) == TrialScheduler.CONTINUE
            search.on_trial_complete(name, told | {STEP: LAST})
        assert [trial.state for trial in study.trials] == [optuna.trial.TrialState.COMPLETE] * 2
        assert study.trials[0].values == [30.0, 1.0]


def test_the_sweep_stands_on_what_ray_and_optuna_publish():
    """Nothing with a leading underscore is read but an object's own, and no such module or name is imported."""
    found = []
    for path in sorted(SWEEP.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
                names = [node.attr]
            elif isinstance(node, ast.ImportFrom):
                names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [part for alias in node.names for part in alias.name.split(".")]
            private = [name for name in names if name.startswith("_") and not name.endswith("__")]
            found += [(path.name, ast.unparse(node)) for _ in private]
    assert not found
