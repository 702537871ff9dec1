"""What a stage is: a module that says what it takes and gives, and makes the one from the other.

Beyond the names of :class:`Stage`, a module may have ``EARLIER``: what it takes of the run that is
continued, a tuple like ``TAKES``. ``run`` finds these members among its inputs; the keys of the
artifacts that they lie in are its ``source``. And it may have any of these functions:

- ``source(config, show) -> str``: fingerprint of data it reads from outside the run; ``show`` is
  told its :class:`~gcdis_ray.training.plan.Progress`;
- ``check(config, givers)``: looks at what has to hold before anything starts, such as files, and
  raises :class:`~gcdis_ray.errors.ConfigError`. ``givers`` has the config of the stage that gives
  each member it takes;
- ``named(config, names) -> config``: its config, completed by what the classes of the run that is
  continued are called, by ``class_index``;
- ``decided(config, acts) -> config``: its config, completed by what people decided of the ``crops``
  that it takes (:mod:`gcdis_ray.curating.acts`), before its key is made;
- ``workload(config, inputs, made) -> Workload``: what has to be done, for a forecast of hours;
  ``inputs`` are as of :meth:`Stage.forecast`, ``made`` is the size of its own artifact. Sizes of
  images know their splits;
- ``summary(artifact) -> list[str]``: its lines at the end of ``gcdis run`` and ``gcdis status``;
- ``warning(artifact) -> str | None``: why its result should not be trusted, if so;
- ``objectives() -> Sequence[Objective]``: what a sweep may ask of its artifact;
- ``sections(view) -> Sequence[Section]``: its part of the report
  (:mod:`gcdis_ray.report.section`). ``view`` is the :class:`~gcdis_ray.report.view.RunView` of the
  run until this stage, which is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gcdis_ray.config import StageConfig
from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.members import Inputs, Member, Need


class Stage(Protocol):
    """What every stage says of itself.

    ``ID`` names its artifacts for good: it is in their keys, and they lie in a folder of this name.
    ``VERSION`` is raised when results change. ``TAKES`` and ``GIVES`` are the members of its inputs
    and of its artifact. ``SEEDED``: results depend on the run's seed.
    """

    @property
    def ID(self) -> str: ...
    @property
    def VERSION(self) -> int: ...
    @property
    def TAKES(self) -> tuple[str | Need, ...]: ...
    @property
    def GIVES(self) -> tuple[Member, ...]: ...
    @property
    def SEEDED(self) -> bool: ...
    @property
    def Config(self) -> type[StageConfig]: ...

    def forecast(self, config: Any, inputs: Mapping[str, Size]) -> Size:
        """How large the artifact will be.

        Args:
            inputs: of each member it takes, the size of the artifact that the member lies in.
        """
        ...

    def run(self, inputs: Inputs, config: Any, work: Any) -> None: ...


def offered(stage: Stage, name: str) -> Callable[..., Any] | None:
    """The stage's function of that name, if it has one of those that it need not have."""
    return getattr(stage, name, None)
