"""How many examples Hypothesis tries: a test names the full number, the profile says how much of it
is tried (see ``conftest``)."""

from __future__ import annotations

from hypothesis import settings

# profile -> examples of a test that names no number of its own; those of others go with it
PROFILES = {"few": 25, "full": 100, "many": 3000}


def examples(full: int) -> settings:
    """``full`` examples under the profile ``full``, its share of them under another."""
    return settings(max_examples=max(1, full * settings.default.max_examples // PROFILES["full"]))
