"""A sweep in words, and as JSON for scripts."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from gcdis_ray.sweeps.study import Study

ORACLE = "ORACLE: chosen by ground truth; its scores on that data say nothing about new data"


def summary(study: Study) -> dict[str, Any]:
    """name, key, uri, kind, objective, direction, oracle, shared stages, total and ended trials,
    best (a trial) and config (where the chosen config lies), null while no trial is done."""
    best = study.best()
    return {
        "name": study.spec.name,
        "key": study.key,
        "uri": study.folder.uri,
        "kind": study.goal.kind,
        "objective": study.goal.name,
        "direction": study.goal.direction,
        "oracle": study.goal.oracle,
        "shared_stages": study.shared_stages(),
        "total": study.total,
        "trials": dict(Counter(trial.state for trial in study.trials.values())),
        "best": asdict(best) if best else None,
        "config": f"{study.folder.uri}/best.yaml" if best else None,
    }


def outline(study: Study) -> str:
    """What will be done, in a few lines."""
    spec, shared = study.spec, study.shared_stages()
    missing = [name for name in shared if study.base.manifest(name) is None]
    probe, last = study.goal.objective.probe, study.goal.node
    each = f"runs {study.first} to {last}" if study.first != last else f"runs {study.first}"
    each = probe.does if probe else each
    seeds = f", for each of {len(study.seeds)} seeds" if len(study.seeds) > 1 else ""
    lines = [
        f"sweep {spec.name}: {study.total} trials ({spec.searcher}), "
        f"{study.goal.direction}imum of {study.goal.name}: {study.goal.objective.meaning}",
        f"  a trial {each}{seeds}; {len(study.trials)} have ended earlier",
        f"  made once before: {', '.join(missing) or 'nothing, all cached'}",
        f"  results: {study.folder.uri}",
    ]
    if study.goal.oracle:
        lines.append(f"  {ORACLE}")
    return "\n".join(lines)
