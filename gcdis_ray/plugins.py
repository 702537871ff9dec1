"""Parts that are found by name: ours by their file, those of other packages by entry point."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from gcdis_ray.errors import ConfigError


@dataclass(frozen=True)
class Plugins:
    """One kind of parts.

    Args:
        what: in words, for messages.
        package: ours are its modules.
        is_one: which of these modules are.
        group: of the entry points.
    """

    what: str
    package: str
    is_one: Callable[[pkgutil.ModuleInfo], bool]
    group: str

    def names(self) -> list[str]:
        return sorted({*self._own(), *self._plugged()})

    def load(self, name: str, own: Callable[[Any], Any], where: str) -> Any:
        """The part of that name.

        Args:
            own: our module of that name -> the part.
            where: the field that names it.

        Raises:
            ConfigError: there is none, or that of another package cannot be loaded.
        """
        if name in self._own():
            return own(importlib.import_module(f"{self.package}.{name}"))
        if (point := self._plugged().get(name)) is None:
            raise ConfigError(
                f"unknown {self.what} {name!r}", where=where, fix=f"use one of {self.names()}"
            )
        try:
            return point.load()
        except Exception as error:
            raise ConfigError(
                f"{self.what} {name}: {point.value} cannot be loaded "
                f"({type(error).__name__}: {error})",
                where=where,
                fix=f"mend or remove the package {point.dist.name if point.dist else 'it is in'}",
            ) from error

    def _own(self) -> list[str]:
        path = importlib.import_module(self.package).__path__
        return [module.name for module in pkgutil.iter_modules(path) if self.is_one(module)]

    def _plugged(self) -> dict[str, EntryPoint]:
        """Raises ConfigError: a name stands for two parts."""
        found: dict[str, EntryPoint] = {}
        own = self._own()
        for point in entry_points(group=self.group):
            earlier = found.setdefault(point.name, point)
            if point.name in own or earlier.value != point.value:
                raise ConfigError(
                    f"{self.what} {point.name!r} is there twice",
                    where=f"entry points {self.group}",
                    fix="rename one, or remove a package that brings it",
                )
        return found
