"""How hypothesis runs here: a slow machine is no failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", deadline=None)
settings.register_profile("long", deadline=None, max_examples=20_000)
settings.load_profile("unit")
