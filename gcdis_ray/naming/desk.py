"""Where clusters are looked at and acts are taken: one run, its log, and what follows from both.

The log is the state: it is read anew whenever somebody looks, so that several pages, and commands
beside them, see the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import RLock

from gcdis_ray.curating.acts import Act, Merge, Name, Reject, Split, Undo, standing
from gcdis_ray.curating.log import append, read_log
from gcdis_ray.curating.replay import Curated, replay
from gcdis_ray.errors import CurationError
from gcdis_ray.naming.clusters import Cluster, Suggestion, Surroundings, clusters_of
from gcdis_ray.naming.crops import SortedCrops, read_crops_sorted
from gcdis_ray.naming.pictures import Pictures
from gcdis_ray.run.opened import OpenedRun
from gcdis_ray.words import counted, printed

_NOTHING_DONE = "nothing was done: say it in another way"


class Outdated(CurationError):
    """An act about clusters that are no longer what its author saw."""


@dataclass(frozen=True)
class Standing:
    """The clusters after the acts of a log.

    Args:
        acts: all of them, those that are taken back, too.
        clusters: that hold a crop, by number.
    """

    acts: tuple[Act, ...]
    curated: Curated
    clusters: list[Cluster]

    def holding(self, crop: int) -> Cluster | None:
        """The cluster that a crop is in; None if it is rejected."""
        return self._by_number.get(int(self.curated.cluster_N[crop]))

    @property
    def num_rejected(self) -> int:
        """Crops of rejected clusters."""
        return int((self.curated.cluster_N < 0).sum())

    @cached_property
    def _by_number(self) -> dict[int, Cluster]:
        return {cluster.number: cluster for cluster in self.clusters}


class Desk:
    """Safe to use from several threads.

    Raises:
        ConfigError: the run has not discovered anything yet.
    """

    def __init__(self, run: OpenedRun) -> None:
        self.run = run
        self.crops: SortedCrops = read_crops_sorted(run)
        self.pictures = Pictures(self.crops.pictures)
        self.surroundings = Surroundings(self.crops)
        self._log = run.storage, run.crops_key
        self.lock = RLock()
        self._last: Standing | None = None

    def look(self) -> Standing:
        """The clusters as the log has them now.

        Raises:
            CurationError: the log cannot be followed.
        """
        with self.lock:
            return self._at(tuple(read_log(*self._log)))

    def take(self, acts: Sequence[Act], seen: int | None = None) -> Standing:
        """Append acts to the log, all or none, and look again.

        Args:
            seen: how many acts their author had before him. An act is then taken only if what it
                is about is still as it was: of others an author need not know.

        Raises:
            CurationError: an act that cannot follow those before it. Outdated: see ``seen``.
        """
        acts = tuple(acts)

        def check(log: list[Act]) -> None:
            if seen is not None and seen != len(log) - len(acts):
                self._check_seen(acts, tuple(log[: -len(acts)]), seen)
            try:
                self._at(tuple(log))
            except CurationError as error:
                if error.where and error.where in {act.note.where for act in acts}:
                    raise error.at(error.where, _NOTHING_DONE) from None
                raise

        with self.lock:
            return self._at(tuple(append(*self._log, acts, check)))

    def suggestion(self, cluster: Cluster) -> Suggestion:
        """How a cluster would be split.

        Raises:
            CurationError: it does not clearly look like two.
        """
        with self.lock:
            found = self.surroundings.split(cluster)
        if found is None:
            raise CurationError(
                f"{printed(cluster.name)} does not clearly look like two",
                where="split",
                fix="say which crops leave it",
            )
        return found

    def _at(self, acts: tuple[Act, ...]) -> Standing:
        if self._last is None or self._last.acts != acts:
            self._last = self._after(acts)
        return self._last

    def _after(self, acts: tuple[Act, ...]) -> Standing:
        crops = self.crops
        curated = replay(acts, crops.index_N, crops.cluster_N, crops.classes, crops.label_N)
        return Standing(acts, curated, clusters_of(curated, crops))

    def _check_seen(self, acts: tuple[Act, ...], log: tuple[Act, ...], seen: int) -> None:
        """Args: log: before these acts."""
        if not 0 <= seen <= len(log):
            raise Outdated("the log is another one", where="act", fix="look again")
        then, now = self._after(log[:seen]), self._at(log)
        for act in acts:
            if isinstance(act, Undo) or any(
                _members(then, crop) != _members(now, crop) for crop in concerned(act)
            ):
                raise Outdated(
                    "somebody else has changed that meanwhile, so nothing was done",
                    where="act",
                    fix="look at it again, then say so again",
                )


def concerned(act: Act) -> tuple[int, ...]:
    """The crops that an act names."""
    if isinstance(act, Merge | Split):
        return act.crops
    return () if isinstance(act, Undo) else (act.crop,)


def in_words(act: Act) -> str:
    """``name zebra``, ``merge of 2 clusters``."""
    match act:
        case Name():
            return f"name {printed(act.name)}"
        case Merge():
            return f"merge of {counted(len(act.crops), 'cluster')}"
        case Split():
            return f"split of {counted(len(act.crops), 'crop')}"
        case Reject():
            return "reject"
        case Undo():
            return "undo"


def last_standing(acts: Sequence[Act]) -> Act | None:
    """The act that an undo would take back."""
    left = standing(acts)
    return left[-1] if left else None


def _members(standing: Standing, crop: int) -> bytes | None:
    if not 0 <= crop < len(standing.curated.cluster_N):
        return None
    cluster = standing.holding(crop)
    return cluster.digest if cluster else None
