"""``gcdis sweep``."""

from __future__ import annotations

import argparse
import os
import sys

from gcdis_ray.cli.configs import config_arguments
from gcdis_ray.cli.telling import json_argument, print_json, set_aside

HELP = "try many values of a config, keep the best (resumes)"
EXAMPLE = "gcdis sweep configs/sweep_class_count.yaml --plan"


def arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument("--plan", action="store_true", help="show what it would do; writes nothing")
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.run.checks import too_slow
    from gcdis_ray.run.progress import Reporter
    from gcdis_ray.sweeps.config import load_sweep, nodes_of
    from gcdis_ray.sweeps.progress import SweepReporter, table
    from gcdis_ray.sweeps.run import run_sweep
    from gcdis_ray.sweeps.study import Study
    from gcdis_ray.sweeps.summary import ORACLE, outline, summary
    from gcdis_ray.sweeps.trackers import open_trackers

    spec, base = load_sweep(args.config, args.set)
    reporter, stages = SweepReporter(), Reporter()
    try:
        study = Study(spec, base, reporter.show, stages)
    finally:
        stages.close()
    if args.plan:
        if args.json:
            print_json(summary(study))
        else:
            print(outline(study))
        return 0
    if slow := too_slow(base, nodes_of(study.goal, base)):
        raise slow
    os.environ["OMP_NUM_THREADS"] = str(base.compute.threads)  # as in a run
    print(outline(study), file=sys.stderr)
    trackers = open_trackers(spec.trackers, study.folder, spec.objective)
    reporter.show(study)
    study.listeners = [reporter.ended, *(tracker.ended for tracker in trackers)]
    try:
        with set_aside(True):  # Ray's remarks are not our results
            run_sweep(study, stages, reporter.draw)
        study.finish()
    finally:
        stages.close()
        reporter.close()
        report = study.folder.write_report() if study.trials else None
    if args.json:
        print_json(summary(study))
        return 0
    print(table(study))
    if study.goal.oracle:
        print(ORACLE)
    print(f"report: {report}")
    print(f"chosen config: {study.folder.uri}/best.yaml")
    print(f"run it with: gcdis run --from-sweep {study.folder.uri}")
    return 0
