"""Every case, by kind."""

from __future__ import annotations

from hostile import addresses, bounds, files, schemas, settings, shapes, times, values
from hostile.case import Case

KINDS: dict[str, list[Case]] = {
    "Schemas": list(schemas.cases()),
    "Files": list(files.cases()),
    "Values": list(values.cases()),
    "Times": list(times.cases()),
    "Shapes": list(shapes.cases()),
    "Settings": list(settings.cases()),
    "Places, run ids and secrets": list(addresses.cases()),
    "Bounds of settings": list(bounds.cases()),
}
"""Heading in the document → cases."""
