"""All timestamps of a source in one unit: that of their types, the setting's, or the one that integers have by size."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import pyarrow as pa

from sasrec_tasks.config import Ingest
from sasrec_tasks.errors import BadData
from sasrec_tasks.timestamps import TICKS, of_another_unit, unit_of_integers, unit_of_type

log = logging.getLogger(__name__)


class OneUnit:
    """The unit, and the timestamps in it.

    Args:
        column: what the source calls them, for messages.
    """

    def __init__(self, config: Ingest, column: str) -> None:
        self.config, self.column = config, column
        self.unit = ""  # not known yet
        self.told_by = ""
        self._odd, self._example = 0, ""

    def settle(self, types: Iterable[tuple[str, pa.DataType]]) -> None:
        """Take the finest unit of date-time types, so that nothing is lost.

        Args:
            types: path and type of each part.
        """
        units = [(path, unit) for path, kind in types if (unit := unit_of_type(kind))]
        self.told_by, self.unit = max(units, key=lambda told: TICKS[told[1]], default=("", ""))

    def ticks(self, values: pa.Array, path: str) -> pa.Array:
        """Timestamps as int64; what is no time stays as it is, for `validate` to name.

        Raises:
            BadData: they are in another unit than those before.
            pyarrow.ArrowInvalid: int64 does not hold them.
        """
        kind = values.type
        if unit_of_type(kind):
            if pa.types.is_date(kind):
                values = values.cast(pa.timestamp("s" if pa.types.is_date32(kind) else "ms"))
            return values.cast(pa.timestamp(self.unit)).cast(pa.int64())
        if not pa.types.is_integer(kind):
            return values
        values = values.cast(pa.int64())
        chosen = self.config.timestamp_unit
        unit = self._told_by_size(values, path) if chosen == "auto" else chosen
        if self.unit and unit != self.unit:
            raise BadData(
                f"{path}: {self.column} looks like {unit!r}, but {self.unit!r} in "
                f"{self.told_by}: make them the same, or set ingest.timestamp_unit"
            )
        if not self.unit:
            self.unit, self.told_by = unit, path
        return values

    def _told_by_size(self, values: pa.Array, path: str) -> str:
        """The unit of most of them; those of another are counted."""
        unit = unit_of_integers(values)
        if unit is None:
            return self.unit or "s"
        odd = values.filter(of_another_unit(values, unit))
        if len(odd) and not self._odd:
            self._example = f"{odd[0].as_py()} (in {path}) looks like {unit_of_integers(odd[:1])!r}"
        self._odd += len(odd)
        return unit

    def require(self, rows: int, share: float) -> None:
        """Refuse integers of which too many are in another unit than the others: each would be a wrong time.

        Args:
            rows: how many were read.
            share: of them, how many may be.

        Raises:
            BadData: more are.
        """
        if not self._odd:
            return
        said = (
            f"{self.column}: {self._odd:,} of {rows:,} rows are in another unit than {self.unit!r}, as the others are: "
            f"{self._example}"
        )
        if self._odd > share * rows:
            raise BadData(f"{said}: make them the same, or set ingest.timestamp_unit to have all in one")
        log.warning("ingest: %s", said)
