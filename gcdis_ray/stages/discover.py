"""discover: which crops belong together?

A method learns from labeled and unlabeled crops, then says of every crop which known or novel class
it is in. Which method, and how it learns, is in its room of :mod:`gcdis_ray.methods`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
    model_validator,
)

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ArtifactError, ConfigError
from gcdis_ray.methods.assigning import AssignCrops, tables_to_assign
from gcdis_ray.methods.hold_out_config import HoldOutConfig, HoldOutOfTrials
from gcdis_ray.methods.method import Method, load_method, method_names
from gcdis_ray.methods.placing_config import PlacingConfig
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.pruning_config import PruneConfig
from gcdis_ray.methods.stored_method import StoredMethod, method_document
from gcdis_ray.methods.tables import AGREEMENT, PLACING_TRIALS
from gcdis_ray.stages.objective import Objective, Reading, TrialSection
from gcdis_ray.store.artifacts import Artifact, Size, Table, Workload
from gcdis_ray.store.members import Inputs, Member, document, optional, table, tensors, whole
from gcdis_ray.store.schemas import ASSIGNMENTS, PLACED

if TYPE_CHECKING:
    from gcdis_ray.methods.hold_out import HoldOut
    from gcdis_ray.report.section import Section
    from gcdis_ray.report.view import RunView
    from gcdis_ray.runtime.base import Work

ID = "discover"
VERSION = 7
TAKES = ("classes", "crops", optional(whole("embeddings")), "class_count")
SEEDED = True


class Discovery(StageConfig):
    """What all methods have in common; :data:`Config` adds a section for each of them."""

    method: str = Field("gcdis", description="which one discovers; its options are in its section")
    top_k: int = Field(5, ge=1, le=1000, description="probabilities kept per crop")
    hold_out: HoldOutConfig = HoldOutConfig.model_validate({})
    placing: PlacingConfig = PlacingConfig.model_validate({})
    prune: PruneConfig = PruneConfig.model_validate({})

    @property
    def options(self) -> Any:
        """Of the method."""
        return getattr(self, self.method)

    @model_validator(mode="before")
    @classmethod
    def _one_method(cls, data: Any) -> Any:
        """The chosen method has a section, if an empty one, and no other has."""
        if not isinstance(data, Mapping):
            return data
        name = data.get("method", "gcdis")
        load_method(str(name))
        others = [
            other for other in method_names() if other != name and data.get(other) not in (None, {})
        ]
        if others:
            raise ConfigError(
                f"options of {others[0]}, and the method is {name}",
                where=f"stages.discover.{others[0]}",
                fix=f"take them out, or set stages.discover.method: {others[0]}",
            )
        return {**data, name: {} if data.get(name) is None else data[name]}

    @model_validator(mode="after")
    def _method_can(self) -> Discovery:
        method = load_method(self.method)
        if self.prune.enabled and not method.SNAPSHOTS:
            raise ConfigError(
                f"{self.method} has no snapshots to prune outputs by",
                where="stages.discover.prune.enabled",
                fix="set it to false",
            )
        if self.hold_out.share and method.CHOOSES:
            raise ConfigError(
                f"{self.method} withholds labels itself to choose a method",
                where="stages.discover.hold_out.share",
                fix="set it to 0, or stages.discover.method to one of the methods",
            )
        if self.hold_out.every and not method.MEASURES:
            raise ConfigError(
                f"{self.method} measures a hold-out at the end only",
                where="stages.discover.hold_out.every",
                fix="set it to 0",
            )
        return self

    @model_serializer(mode="wrap")
    def _without_other_methods(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A config says nothing of methods that it does not use: they may not be installed where
        it is read."""
        others = {name for name in method_names() if name != self.method}
        return {name: value for name, value in plain(self).items() if name not in others}

    def key_fields(self) -> dict[str, Any]:
        shared = {"method", "top_k", "hold_out", "prune"}
        method = load_method(self.method)
        if method.starts_placed(self.options):
            shared.add("placing")
        return self.model_dump(mode="json", include=shared) | {
            "method_version": method.VERSION,
            self.method: self.options.key_fields(),
        }


def _config() -> type[Discovery]:
    for name in {*Discovery.model_fields, "options"} & set(method_names()):
        raise ConfigError(
            f"a method cannot be called {name!r}: the stage has an option of that name",
            where="stages.discover.method",
            fix="rename the entry point",
        )
    sections: dict[str, Any] = {
        name: (load_method(name).Config | None, None) for name in method_names()
    }
    return create_model("Config", __base__=Discovery, **sections)


def _gives() -> tuple[Member, ...]:
    """What every method gives through this stage, then what each leaves by itself."""
    found = {
        member.name: member
        for member in (
            document("method"),
            document("discovered_classes"),
            table("assignments", ASSIGNMENTS),
            document("holdout", optional=True),
            table("placed", PLACED, optional=True),
            document("placing", optional=True),
            table("placing_trials", PLACING_TRIALS, optional=True),
            tensors("placing_points", optional=True),
            table("agreement", AGREEMENT, optional=True),
            document("pruning", optional=True),
        )
    }
    for name in method_names():
        found |= {member.name: member for member in load_method(name).GIVES}
    return tuple(found.values())


Config = _config()
GIVES = _gives()


def check(config: Discovery, givers: Mapping[str, StageConfig]) -> None:
    method = load_method(config.method)
    placed = method.starts_placed(config.options)
    if (method.USES_EMBEDDINGS or placed) and "embeddings" not in givers:
        raise ConfigError(
            f"{config.method} works on embeddings, and the recipe has none",
            where="stages.discover.method",
            fix="choose another method or recipe, or let it start at random if it can",
        )
    method.check(config.options, givers)


def objectives() -> Sequence[Objective]:
    return (
        Objective(
            "holdout_accuracy",
            "max",
            "accuracy on crops whose labels discovery did not see: the mean of that on hidden "
            "classes and that on the others",
            read=_holdout_accuracy,
            member="holdout",
            live="holdout_accuracy",
            section=TrialSection("hold_out", HoldOutOfTrials, chosen={"share": 0.0}),
        ),
        Objective(
            "training_loss",
            "min",
            "total loss at the end of discovery; comparable only while the space leaves the loss "
            "itself alone (its weights and temperatures)",
            read=_training_loss,
            member="history",
            live="loss",
        ),
    )


def _holdout_accuracy(artifact: Artifact) -> Reading:
    found = artifact.json("holdout")
    curve = tuple((int(point["step"]), float(point["accuracy"])) for point in found["curve"])
    return Reading(found["accuracy"], curve, {"hidden_classes": found["hidden_classes"]})


def _training_loss(artifact: Artifact) -> Reading:
    rows = [row for row in artifact.table("history").read().to_pylist() if row["name"] == "total"]
    curve = tuple((int(row["step"]), float(row["value"])) for row in rows)
    return Reading(curve[-1][1] if curve else None, curve)


def forecast(config: Discovery, inputs: Mapping[str, Size]) -> Size:
    """An assignment for every crop, and what the method leaves."""
    rows, crops = inputs["crops"].rows, inputs["crops"].bytes
    left = load_method(config.method).forecast(config.options, inputs)
    size = 500 * rows + left.bytes
    return Size(max(rows, left.rows), size, crops + left.read_bytes, left.weight_bytes)


def workload(config: Discovery, inputs: Mapping[str, Size], made: Size) -> Workload:
    """Crops to train on, as the method says, and all of them to assign."""
    crops, seen = inputs["crops"].rows, getattr(load_method(config.method), "num_seen", None)
    return Workload(seen(config.options, crops) if seen else 0, crops)


def sections(view: RunView) -> Sequence[Section]:
    """The classes, and how they came about."""
    from gcdis_ray.report.class_sections import class_sections
    from gcdis_ray.report.diagnostics import diagnostics_section
    from gcdis_ray.report.placing_section import placing_section

    return [placing_section(view), *class_sections(view), diagnostics_section(view)]


def summary(artifact: Artifact) -> list[str]:
    """Which method withheld labels found best, if several were tried."""
    if not artifact.has("candidates"):
        return []
    rows = artifact.json("candidates")["candidates"]
    told = ", ".join(
        f"{row['method']} {row['score']:.3f}{' (chosen)' if row['chosen'] else ''}" for row in rows
    )
    return [f"on withheld labels     {told}"]


def warning(artifact: Artifact) -> str | None:
    """That training lost what placing had, as far as withheld labels tell."""
    if not artifact.has("holdout"):
        return None
    found = artifact.json("holdout")
    end, start = found["accuracy"], found.get("placed_accuracy")
    if end is None or start is None or end >= start:
        return None
    return (
        f"discovery ended below its start on withheld labels: {end:.3f} after training, "
        f"{start:.3f} placed"
    )


def run(inputs: Inputs, config: Discovery, work: Work) -> None:
    from gcdis_ray.methods.hold_out import choose_hidden
    from gcdis_ray.methods.placing import place

    crops = inputs.table("crops")
    classes = sorted(inputs.json("classes"), key=lambda row: row["class_index"])
    num_known = len(classes)
    num_classes = int(inputs.json("class_count")["num_classes"])
    if num_classes < num_known:
        raise ArtifactError(
            f"{num_classes} classes in all, but {num_known} are known", where="class_count"
        )
    labels = crops.read(["class_index"])["class_index"].to_numpy()
    try:
        hold_out = choose_hidden(labels, num_known, config.hold_out)
    except ConfigError as error:
        raise error.at("stages.discover.hold_out.share") from error
    problem = Problem(
        crops=crops,
        space=inputs.beside("embeddings") if inputs.has("embeddings") else None,
        num_known=num_known,
        num_outputs=config.prune.num_outputs(num_known, num_classes),
        seed=work.seed,
        hold_out=hold_out,
        measure_every=config.hold_out.every if hold_out else 0,
        placing=config.placing,
    )
    known, named = classes, {row["class_index"]: row for row in classes}
    if hold_out is not None:  # outputs of visible classes come first, all others are free
        known = [{**named[c], "class_index": v} for v, c in enumerate(hold_out.visible)]
    method: Method = load_method(config.method)
    if method.starts_placed(config.options):
        problem = replace(problem, placed_N=place(problem, work))
    fitted = method.fit(problem, config.options, work)
    stored = StoredMethod.of(fitted.method or config.method, fitted, work.tensor_file)
    embeddings = inputs.table("embeddings") if inputs.has("embeddings") else None
    tables = tables_to_assign(stored, crops, embeddings)
    num_clusters = problem.num_outputs
    if config.prune.enabled:
        stored = _pruned(work, tables, stored, len(known), config.prune)
        num_clusters = len(stored.groups or ())
    work.write_json("method", method_document(stored.name, fitted, stored.groups))
    work.write_json("discovered_classes", class_table(known, num_clusters))
    work.map_shards(AssignCrops(stored, config.top_k), tables, gives=["assignments"])
    if hold_out is not None:
        _score_hold_out(hold_out, labels, named, problem.placed_N, work)


def _score_hold_out(
    hold_out: HoldOut,
    labels: np.ndarray,
    named: Mapping[int, Mapping[str, Any]],
    placed_N: np.ndarray | None,
    work: Work,
) -> None:
    """Write document ``holdout``."""
    cluster_N = work.table("assignments").read(["cluster_id"])["cluster_id"].to_numpy()
    found = hold_out.score_all(cluster_N, labels)
    measured = work.has("holdout_curve")
    score = dict(
        hidden_classes=[named[index]["name"] for index in hold_out.hidden],
        accuracy=found.mean,
        known_accuracy=found.known,
        novel_accuracy=found.novel,
        placed_accuracy=None if placed_N is None else hold_out.score_all(placed_N, labels).mean,
        curve=work.table("holdout_curve").read().to_pylist() if measured else [],
    )
    work.write_json("holdout", score)


def _pruned(
    work: Work, tables: Sequence[Table], stored: StoredMethod, num_known: int, config: PruneConfig
) -> StoredMethod:
    """The method with its outputs joined to clusters; writes table ``agreement`` and JSON
    ``pruning``."""
    from gcdis_ray.methods.pruning import CompareSnapshots, prune_outputs

    told = work.map_shards(CompareSnapshots(stored), tables, gives=["agreement"])
    prototypes_KF = stored.open("cpu").prototypes_KF()
    pruned = prune_outputs(prototypes_KF, num_known, told["agreement"].read(), config)
    work.write_json("pruning", pruned.report)
    return stored.grouped(pruned.groups)


def class_table(known: list[dict[str, Any]], num_classes: int) -> list[dict[str, Any]]:
    """Known classes by name, then "novel 1", "novel 2", ... without a category."""
    rows = [
        dict(
            class_index=row["class_index"],
            name=row["name"],
            known=True,
            category_id=row["category_id"],
        )
        for row in known
    ]
    for index in range(len(known), num_classes):
        name = f"novel {index - len(known) + 1}"
        rows.append(dict(class_index=index, name=name, known=False, category_id=None))
    return rows
