"""What is tried, with its options. No torch: ``plan`` reads this."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, create_model, model_validator

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.method import load_method

TRAINED = ("simgcd", "uno", "gcdis")
PLACED = "linkage"  # the method of the placed clusters alone
_WHERE = "stages.discover.auto"


class Auto(StageConfig):
    """:data:`Config` adds a section with the options of each candidate."""

    candidates: tuple[str, ...] = Field(
        TRAINED,
        max_length=20,
        description="methods that are trained to see whether they are better than linkage alone: "
        f"of {', '.join(TRAINED)}",
    )
    share: float = Field(
        1 / 3, gt=0, le=0.9, description="of the known classes, hidden whole to choose by"
    )
    withheld: float = Field(
        1 / 3, ge=0, le=0.9, description="of the labels of each other known class"
    )

    def options(self, name: str) -> Any:
        """Of a candidate."""
        if name == PLACED:
            return load_method(PLACED).Config.model_validate({})
        return getattr(self, name)

    def key_fields(self) -> dict[str, Any]:
        shared = {"candidates", "share", "withheld"}
        return self.model_dump(mode="json", include=shared) | {
            name: self.options(name).key_fields() | {"version": load_method(name).VERSION}
            for name in (PLACED, *self.candidates)
        }

    @model_validator(mode="after")
    def _can_be_compared(self) -> Self:
        strangers = [name for name in self.candidates if name not in TRAINED]
        if strangers or len(set(self.candidates)) < len(self.candidates):
            raise ConfigError(
                f"{strangers[0]} is no method that auto trains" if strangers else "named twice",
                where=f"{_WHERE}.candidates",
                fix=f"name some of {', '.join(TRAINED)}, each once",
            )
        seen = [load_method(name).sees_through(self.options(name)) for name in self.candidates]
        different = [n for n, s in zip(self.candidates, seen, strict=True) if s != seen[0]]
        if different:
            raise ConfigError(
                f"{different[0]} sees crops otherwise than {self.candidates[0]}: what is compared "
                "is then not the method",
                where=f"{_WHERE}.{different[0]}",
                fix="give them equal encoder, augment and cache_px",
            )
        return self


def _config() -> type[Auto]:
    sections: dict[str, Any] = {}
    for name in TRAINED:
        options = load_method(name).Config
        sections[name] = (options, options.model_validate({}))
    return create_model("Config", __base__=Auto, **sections)


Config = _config()
