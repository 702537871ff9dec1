"""``gcdis``: init, plan, run, submit, sweep, status, report, evaluate, data, doctor, gc, track,
digits.

Exit status: 0 done, 2 a mistake the message explains, 130 interrupted, 1 anything else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcdis_ray import __version__
from gcdis_ray.errors import ConfigError, GcdisError

if TYPE_CHECKING:
    from gcdis_ray.config import RunConfig
    from gcdis_ray.data.sets.data_config import DataConfig
    from gcdis_ray.run.pipeline import Pipeline


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        return args.command(args)
    except GcdisError as error:
        print(f"gcdis: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ngcdis: interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gcdis",
        description="Find, mask and sort objects into known classes and the ones nobody has named.",
    )
    parser.add_argument("--version", action="version", version=f"gcdis {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, function: Any, text: str, config: str | None = None, below: Any = commands
    ):
        sub = below.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        if config is not None:
            sub.add_argument("config", nargs=config or None, help="YAML config file")
            sub.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="KEY=VALUE",
                help="override a config value, e.g. stages.discover.gcdis.training.steps=500",
            )
        return sub

    sub = command("init", _init, "look at a folder of images, write the config that fits it")
    sub.add_argument("folder", metavar="FOLDER", help="folder, or s3://bucket/prefix")
    sub.add_argument("--out", metavar="FILE", help="default: <name of the folder>.yaml, here")
    sub.add_argument("--force", action="store_true", help="write over a file that is there")
    sub = command("plan", _plan, "show what a run would do; writes nothing", "")
    sub.add_argument("--until", metavar="STAGE", help="last stage")
    sub.add_argument(
        "--rates",
        action="append",
        default=[],
        metavar="FILE",
        help="also the hours, by rates of benchmarks/gpu_smoke.py or estimates, as in "
        "benchmarks/rates_a100.yaml; of several files the later ones win",
    )
    sub.add_argument(
        "--price-per-hour",
        type=float,
        metavar="X",
        help="with --rates, also the cost: what all machines together cost an hour",
    )
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = command("run", _run, "run every stage that is not done yet (resumes by itself)", "?")
    sub.add_argument("--from-sweep", metavar="URI", help="run what this sweep has chosen")
    sub.add_argument("--from", dest="start", metavar="STAGE", help="first stage")
    sub.add_argument("--until", metavar="STAGE", help="last stage")
    text = "run it as a job of a Ray cluster, print what it prints (resumes by itself)"
    sub = command("submit", _submit, text, "")
    sub.add_argument("--address", metavar="URL", help="http://HEAD:8265 (RAY_API_SERVER_ADDRESS)")
    sub.add_argument("--from", dest="start", metavar="STAGE", help="first stage")
    sub.add_argument("--until", metavar="STAGE", help="last stage")
    sub.add_argument("--no-wait", action="store_true", help="only start it")
    sub = command("sweep", _sweep, "try many values of a config, keep the best (resumes)", "")
    sub.add_argument("--plan", action="store_true", help="show what it would do; writes nothing")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = command("status", _status, "show which stages are done, how far one is, the metrics", "")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = command("report", _report, "write the HTML report of what exists so far", "")
    sub.add_argument("--output", metavar="FILE", help="default: in the run's storage")
    sub = command("evaluate", _evaluate, "score a run, or COCO results against annotations", "?")
    sub.add_argument("--ground-truth", metavar="FILE", help="COCO or LVIS annotations")
    sub.add_argument("--results", metavar="FILE", help="COCO results")
    sub.add_argument("--known-classes", nargs="+", metavar="CLASS", help="names or category ids")
    sub.add_argument(
        "--areas",
        choices=("mask", "box"),
        help="whose areas say which detections are small, medium and large, of results that have "
        "both (default: the mask's for mask AP, the box's for box AP; pycocotools: box)",
    )
    sub.add_argument(
        "--mapping-source",
        choices=("split_val", "detections", "gt_crops", "train_gt"),
        help="the results' category ids are names of clusters: what they are mapped by",
    )
    sub.add_argument(
        "--mapping-scope",
        choices=("novel_only", "all"),
        help="novel_only (default): ids of known classes stand for themselves; all: every id is "
        "mapped",
    )
    sub.add_argument(
        "--mapping-drop",
        choices=("before_topk", "after_topk"),
        help="when ids that stand for no class leave: before or after (default) the cut to the "
        "best of an image",
    )
    sub.add_argument(
        "--max-per-image",
        type=int,
        metavar="N",
        help="with a mapping: detections scored per image (default 100, by LVIS's rules 300)",
    )
    sub.add_argument(
        "--images",
        metavar="FILE[:KEY]",
        help="score only the image ids in this JSON list, or list under KEY, as in splits.json:val",
    )
    sub.add_argument("--json", action="store_true", help="print JSON")
    actions = commands.add_parser("data", help="look at the data of a config").add_subparsers(
        required=True, metavar="ACTION"
    )
    text = "count images, annotations and classes beside the published numbers"
    sub = command("check", _data_check, text, "", below=actions)
    sub.add_argument("--json", action="store_true", help="print JSON")
    command("doctor", _doctor, "check this machine, the storage and Ray", "?")
    sub = command("gc", _gc, "remove files of unfinished attempts and finished trainings", "")
    sub.add_argument("--dry-run", action="store_true", help="only say what would go")
    sub.add_argument("--older-than-h", type=float, default=24.0, metavar="H", help="default 24")
    sub = command("track", _track, "write training curves for TensorBoard (extra: track)", "")
    sub.add_argument("--output", metavar="FOLDER", required=True)
    sub = command("digits", _digits, "write the handwritten-digit scenes of the quickstart")
    sub.add_argument("folder", help="where to write a COCO folder")
    sub.add_argument("--seed", type=int, default=0, help="0 or more")
    return parser


def _open(args: argparse.Namespace) -> Pipeline:
    from gcdis_ray.run.pipeline import Pipeline, load_config
    from gcdis_ray.run.progress import Reporter

    if (sweep := getattr(args, "from_sweep", None)) is None:
        config = load_config(args.config, args.set)
    else:
        from gcdis_ray.sweeps.chosen import load_chosen

        config = load_chosen(sweep, args.set)
    reporter = Reporter()
    try:
        pipeline = Pipeline(config, show=reporter)
    finally:
        reporter.close()
    pipeline.need_decisions(getattr(args, "until", None))
    return pipeline


def _init(args: argparse.Namespace) -> int:
    from gcdis_ray.starting.start import start

    found = start(args.folder)
    path = Path(args.out or f"{found.name}.yaml")
    found.write(path, args.force)
    print("\n".join(found.found))
    print(f"wrote {path}; next: gcdis plan {path}")
    return 0


def _plan(args: argparse.Namespace) -> int:
    from gcdis_ray.run.checks import before_run, too_slow
    from gcdis_ray.run.plan import bill_for_people, describe, rows_for_people
    from gcdis_ray.run.rates import bill, check_price, read_rates

    check_price(args.price_per_hour, args.rates)
    rates = read_rates(args.rates) if args.rates else None
    pipeline = _open(args)
    stages = pipeline.selected(None, args.until)
    before_run(pipeline.config, stages)
    entries = [entry for entry in describe(pipeline, rates) if entry["name"] in stages]
    due = bill(entries, args.price_per_hour) if rates else None
    if args.json:
        told = dict(hours=due.hours, without=due.without, cost=due.cost) if due else {}
        print(json.dumps({"stages": entries, **told}, indent=1))
    else:
        print(rows_for_people(entries))
        if rates and due:
            print(bill_for_people(due, rates, pipeline))
    todo = [entry["name"] for entry in entries if entry["action"] == "run"]
    if slow := too_slow(pipeline.config, todo):
        print(f"gcdis: run will refuse: {slow}", file=sys.stderr)
    return 0


def _run(args: argparse.Namespace) -> int:
    if (args.config is None) == (args.from_sweep is None):
        raise ConfigError("give either a config or --from-sweep URI", where="gcdis run")
    return _run_until(args, args.start, args.until)


def _run_until(
    args: argparse.Namespace, start: str | None, until: str | None, quiet: bool = False
) -> int:
    """Args: quiet: leave standard output to the caller."""
    from gcdis_ray.run.checks import before_run, too_slow
    from gcdis_ray.run.opened import note_run
    from gcdis_ray.run.progress import Reporter
    from gcdis_ray.runtime.choose import LazyRuntime

    pipeline = _open(args)
    before_run(pipeline.config, pipeline.selected(start, until))
    # Before torch is imported: sums in this process, too, must not depend on the machine's cores.
    os.environ["OMP_NUM_THREADS"] = str(pipeline.config.compute.threads)
    todo = [name for name in pipeline.selected(start, until) if not pipeline.manifest(name)]
    if slow := too_slow(pipeline.config, todo):
        raise slow
    if todo:
        pipeline.storage.check()
    note_run(pipeline)
    runtime, reporter = LazyRuntime(pipeline.config.compute), Reporter()
    try:
        pipeline.run(runtime, reporter, start, until)
    finally:
        reporter.close()
        runtime.close()
    if not todo:
        print("Nothing to do: everything is cached.", file=sys.stderr)
    from gcdis_ray.run.report import write_run_report  # loads matplotlib: not before it is needed

    report = write_run_report(pipeline, only_if_missing=not todo)
    with redirect_stdout(sys.stderr if quiet else sys.stdout):
        _print_summaries(pipeline)
        print(f"report: {report}")
    _print_warnings(pipeline)
    return 0


def _submit(args: argparse.Namespace) -> int:
    from gcdis_ray.submitting.submit import submit

    flags = {"--from": args.start, "--until": args.until}
    more = [text for flag, stage in flags.items() if stage for text in (flag, stage)]
    return submit(args.config, more, args.set, address=args.address, wait=not args.no_wait)


def _sweep(args: argparse.Namespace) -> int:
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
    study = Study(spec, base, reporter.show)
    if args.plan:
        print(json.dumps(summary(study)) if args.json else outline(study))
        return 0
    if slow := too_slow(base, nodes_of(study.goal, base)):
        raise slow
    os.environ["OMP_NUM_THREADS"] = str(base.compute.threads)  # as in a run
    print(outline(study), file=sys.stderr)
    trackers = open_trackers(spec.trackers, study.folder, spec.objective)
    reporter.show(study)
    study.listeners = [reporter.ended, *(tracker.ended for tracker in trackers)]
    try:
        with redirect_stdout(sys.stderr):  # Ray's remarks are not our results
            run_sweep(study, stages, reporter.draw)
        study.finish()
    finally:
        stages.close()
        reporter.close()
        report = study.folder.write_report() if study.trials else None
    if args.json:
        print(json.dumps(summary(study)))
        return 0
    print(table(study))
    if study.goal.oracle:
        print(ORACLE)
    print(f"report: {report}")
    print(f"chosen config: {study.folder.uri}/best.yaml")
    print(f"run it with: gcdis run --from-sweep {study.folder.uri}")
    return 0


def _status(args: argparse.Namespace) -> int:
    from gcdis_ray.run.pipeline import iter_status
    from gcdis_ray.words import duration, size

    pipeline = _open(args)
    stages, metrics = list(iter_status(pipeline)), _metrics(pipeline)
    if args.json:
        print(json.dumps({"name": pipeline.config.name, "stages": stages, "metrics": metrics}))
        return 0
    for s in stages:
        made = ""
        if s["state"] == "done":
            made = f"{s['rows']:>8,} rows  {size(s['bytes']):>9}  {duration(s['seconds'] or 0):>11}"
        elif far := s["progress"]:
            made = (
                f"{far['part']}: {far['done']:,}/{far['total']:,} {far['unit']}, "
                f"last written {duration(far['idle_s'])} ago"
            )
        print(f"{s['name']:<13}{s['state']:<12}{s['key']}  {made}".rstrip())
    _print_summaries(pipeline)
    _print_warnings(pipeline)
    return 0


def _metrics(pipeline: Pipeline) -> dict[str, Any] | None:
    """The document ``metrics`` of the last node that gives one, once it is made."""
    giver = pipeline.giver("metrics")
    artifact = pipeline.artifact(giver) if giver else None
    return artifact.json("metrics") if artifact and artifact.has("metrics") else None


def _print_summaries(pipeline: Pipeline) -> None:
    from gcdis_ray.run.summary import summaries

    lines = summaries(pipeline)
    print("".join(f"{line}\n" for line in lines), end="")
    if lines and pipeline.config.oracle:
        from gcdis_ray.sweeps.summary import ORACLE

        print(ORACLE)


def _print_warnings(pipeline: Pipeline) -> None:
    from gcdis_ray.run.summary import warnings

    for line in warnings(pipeline):
        print(line, file=sys.stderr)


def _report(args: argparse.Namespace) -> int:
    from gcdis_ray.run.report import write_run_report

    print(write_run_report(_open(args), args.output))
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    rule = _mapping(args)
    if args.ground_truth and args.results and not args.config:
        from gcdis_ray.evaluation.bare_files import score_files
        from gcdis_ray.metrics.files.file_scores import format_scores

        scores = score_files(
            Path(args.ground_truth),
            Path(args.results),
            known_classes=args.known_classes,
            images=args.images,
            mapping=rule,
            max_per_image=args.max_per_image,
            areas=args.areas,
        )
        print(json.dumps(scores) if args.json else format_scores(scores))
        return 0
    of_files = (args.ground_truth, args.results, args.known_classes, args.images, args.areas)
    if not args.config or any((*of_files, *rule.values(), args.max_per_image)):
        raise ConfigError(
            "give either a config alone, or both --ground-truth and --results",
            where="gcdis evaluate",
            fix="gcdis evaluate --ground-truth instances.json --results results.json",
        )
    until = _open(args).giver("metrics")
    if until is None:
        raise ConfigError("no stage of the recipe gives metrics", where="gcdis evaluate")
    status = _run_until(args, None, until, quiet=args.json)
    if args.json:
        print(json.dumps(_metrics(_open(args))))
    return status


def _mapping(args: argparse.Namespace) -> dict[str, str]:
    """What is given of the mapping."""
    parts = {name: getattr(args, f"mapping_{name}") for name in ("source", "scope", "drop")}
    return {name: value for name, value in parts.items() if value is not None}


def _data_check(args: argparse.Namespace) -> int:
    from gcdis_ray.data.sets.data_check import check_data
    from gcdis_ray.run.pipeline import load_config
    from gcdis_ray.run.progress import Line

    config, line = load_config(args.config, args.set), Line()
    try:
        report = check_data(_data_config(config), config.name, line.tell)
    finally:
        line.close()
    print(json.dumps(report.as_json()) if args.json else "\n".join(report.lines()))
    for problem in report.problems:
        print(f"gcdis: {problem}", file=sys.stderr)
    return 2 if report.problems else 0


def _data_config(config: RunConfig) -> DataConfig:
    """The part of a config that says what data set is read."""
    from gcdis_ray.data.sets.data_config import DataConfig

    for name in type(config.stages).model_fields:
        if isinstance(section := getattr(config.stages, name), DataConfig):
            return section
    raise ConfigError(
        f"recipe {config.recipe} has no stage that reads a data set", where="gcdis data check"
    )


def _doctor(args: argparse.Namespace) -> int:
    from gcdis_ray.run.checks import doctor

    config = None
    if args.config:
        from gcdis_ray.run.pipeline import load_config

        config = load_config(args.config, args.set)
    marks = {"ok": "✓", "warn": "!", "fail": "✗"}
    results = list(doctor(config))
    for check in results:
        print(f"{marks[check.state]} {check.name:<14} {check.detail}")
    return 2 if any(check.state == "fail" for check in results) else 0


def _track(args: argparse.Namespace) -> int:
    from gcdis_ray.report.tracking import write_curves

    print(f"{write_curves(_open(args).artifacts(), Path(args.output))} values in {args.output}")
    return 0


def _gc(args: argparse.Namespace) -> int:
    from gcdis_ray.run.garbage import collect
    from gcdis_ray.words import size

    pipeline = _open(args)
    freed = 0
    if args.older_than_h < 0:
        raise ConfigError("must not be negative", where="--older-than-h", fix="give hours, or 0")
    stages = dict.fromkeys(node.stage.ID for node in pipeline.nodes.values())
    found = collect(pipeline.storage, stages, args.older_than_h, delete=not args.dry_run)
    for folder, num_bytes in found:
        freed += num_bytes
        print(f"{'would remove' if args.dry_run else 'removed'} {folder}  {size(num_bytes)}")
    print(f"{size(freed)} {'to free' if args.dry_run else 'freed'}")
    return 0


def _digits(args: argparse.Namespace) -> int:
    from gcdis_ray.data.samples.digits import write_scenes

    if args.seed < 0:
        raise ConfigError("must not be negative", where="--seed", fix="use 0 or more")
    write_scenes(Path(args.folder), seed=args.seed)
    print(Path(args.folder).absolute())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
