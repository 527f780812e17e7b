"""What a study has still to run, and for about how long: told without running anything.

Minutes are a forecast: seconds of a step, an evaluated clip and a generated clip, as the smallest models take on one
core. Where results are kept, their steps say how much faster or slower this machine is.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mama_ray.experiments.study.cell import CellConfig, pictures_of
from mama_ray.experiments.study.clip_arrays import FRAMES_NAME
from mama_ray.experiments.study.inputs import StudyInputs
from mama_ray.experiments.study.job import StudyJob
from mama_ray.experiments.study.kept_results import KeptResults
from mama_ray.experiments.study.plan import plan_runs
from mama_ray.experiments.study.tuning import tune, tuning_of, val_recall

# CPU seconds of a core, of the study's model and its batch of 64, level full.
_STEP_S, _BATCH = 0.042, 64
_META_SHARE = 1.6  # of a step's cost, for each meta step
_EVALUATED_CLIP_S, _START_S = 0.0003, 2.0
_GENERATED_CLIP_S, _PRETRAINING_STEP_S = 0.007, 0.065


@dataclass
class _Part:
    name: str
    num_runs: int = 0
    num_kept: int = 0
    seconds: float = 0.0
    started: set[str] = field(default_factory=set)


class _NotRunYet(Exception):
    """A run of the tuning has no result yet, so nobody knows what is chosen."""


def describe_plan(job: StudyJob, storage: Path, kept: KeptResults) -> str:
    """Return a table of the study's parts: runs, kept results, minutes left; equal runs count once, where they come
    first. `kept` is what counts as run beside the storage's own.
    """
    forecast = _Forecast(job, storage, kept)
    tuned = [trial.cell for trial in tuning_of(job).plan()]
    parts = [forecast.add("tuning, without widening", tuned)] if tuned else []
    runs = plan_runs(job.cell, job.asked, job.methods, job.take_over(forecast.chosen()), job.seeds)
    for name in job.asked:
        parts.append(forecast.add(name, [run.cell for run in runs if run.experiment == name]))
    cores = job.num_parallel or os.cpu_count() or 1
    speed, made = forecast.speed(), forecast.seconds_of_inputs()
    rows = [("inputs", "", "", made / 60 / cores)]
    rows += [(part.name, str(part.num_runs), str(part.num_kept), part.seconds * speed / 60 / cores) for part in parts]
    rows.append(
        ("all", str(sum(p.num_runs for p in parts)), str(sum(p.num_kept for p in parts)), sum(r[3] for r in rows))
    )
    width = max(len(row[0]) for row in rows)
    lines = [f"{'part':{width}}  runs  kept  minutes left on {cores} cores"]
    lines += [f"{name:{width}}  {runs:>4}  {kept:>4}  {minutes:7.1f}" for name, runs, kept, minutes in rows]
    return "\n".join(lines)


class _Forecast:
    def __init__(self, job: StudyJob, storage: Path, kept: KeptResults):
        self._job, self._cells, self._kept = job, storage / "cells", kept
        self._inputs = StudyInputs(job, storage)
        self._seen: set[str] = set()
        self._ratios: list[float] = []
        self._missing: list[CellConfig] = []

    def add(self, name: str, cells: Sequence[CellConfig]) -> _Part:
        part = _Part(name)
        keys = [self._inputs.name_of(cell) for cell in cells]
        if self._kept.has(name, keys):  # of its runs none is kept by itself, for another experiment
            part.num_runs = part.num_kept = len(keys)
            return part
        for key, cell in zip(keys, cells, strict=True):
            if key in self._seen:
                continue
            self._seen.add(key)
            part.num_runs += 1
            if key in self._kept.tuning:
                part.num_kept += 1
                continue
            result = self._read(key)
            if result is None:
                part.seconds += _seconds_of(cell)
                self._missing.append(cell)
                continue
            part.num_kept += 1
            if result.get("step_s"):
                self._ratios.append(result["step_s"] / _step_seconds(cell))
        return part

    def chosen(self) -> dict[str, dict[str, Any]]:
        """Return what the tuning has chosen, where all of it is kept; else nothing: it changes no number of runs."""

        def score(cells: Sequence[CellConfig]) -> list[float]:
            return [self._val_of(self._inputs.name_of(cell)) for cell in cells]

        try:
            return tune(tuning_of(self._job), score, num_widenings=self._job.tuning_widenings)[0]
        except _NotRunYet:
            return {}

    def _val_of(self, key: str) -> float:
        result = self._read(key)
        if key not in self._kept.tuning and result is None:
            raise _NotRunYet
        return self._kept.tuning[key] if key in self._kept.tuning else val_recall(result)

    def speed(self) -> float:
        """Return the median seconds of a kept run's steps over what was forecast for them."""
        return float(np.median(self._ratios)) if self._ratios else 1.0

    def seconds_of_inputs(self) -> float:
        """Return the seconds of the pictures and of the pretrained model that are not there yet."""
        source, seconds = self._job.pretraining, 0.0
        corpora = {self._inputs.folder_of(cell.seeded_corpus): cell.seeded_corpus for cell in self._missing}
        if self._missing and not self._inputs.is_pretrained:
            seconds += source.num_steps * _PRETRAINING_STEP_S * source.batch_size / _BATCH
            corpora[self._inputs.folder_of(source.corpus)] = source.corpus
        absent = [pictures_of(corpus) for folder, corpus in corpora.items() if not (folder / FRAMES_NAME).exists()]
        return seconds + _GENERATED_CLIP_S * sum(sum(corpus.num_clips.values()) for corpus in absent)

    def _read(self, key: str) -> dict[str, Any] | None:
        try:
            return json.loads((self._cells / f"{key}.json").read_text())
        except (FileNotFoundError, ValueError):
            return None


def _step_seconds(cell: CellConfig) -> float:
    meta = _META_SHARE / cell.meta.meta_every if cell.is_meta_learned else 0.0
    return _STEP_S * cell.batch_size / _BATCH * (1 + meta)


def _seconds_of(cell: CellConfig) -> float:
    num_clips = cell.corpus.num_val * (len(cell.evaluated_steps) if cell.num_steps else 1)
    if cell.tests:
        num_clips += cell.corpus.num_test * (len(cell.tested_steps) if cell.num_steps else 1)
    return _START_S + cell.num_steps * _step_seconds(cell) + num_clips * _EVALUATED_CLIP_S
