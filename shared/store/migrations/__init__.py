"""Alembic migrations, run in-process at each open. ``HEAD`` is what this version writes."""

HEAD = "0016"
