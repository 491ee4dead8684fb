"""Tables that narrow an export, batch by batch as their contracts in `schemas/` want them.

Unlike interactions, of which a few bad ones are set aside, one bad row refuses the whole table: an item that is
missed here would be recommended, or not be, without anyone noticing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
from pandera.errors import SchemaErrors

from sasrec_tasks.config import NARROWING_TABLES, Settings
from sasrec_tasks.errors import BadData
from sasrec_tasks.naming import shown
from sasrec_tasks.schema import NAMES, arrow_type, build_schema, reason, schema_file
from sasrec_tasks.sources import Part, Source, open_table
from sasrec_tasks.timestamps import unit_of_type


def named(settings: Settings) -> dict[str, str]:
    """Setting → the table that it names, for each that names one."""
    found = {name: getattr(settings.export, name) for name in NARROWING_TABLES}
    return {f"export.{name}": url for name, url in found.items() if url}


def check(settings: Settings, as_of: datetime) -> None:
    """That the tables are there and have their columns.

    Raises:
        BadData, BadSettings: they are not, or have not.
    """
    for setting in named(settings):
        table = NarrowingTable(setting, settings, as_of)
        for part in table.source.parts:
            table.columns(part)


@dataclass
class NarrowingTable:
    """One of these tables, as it was at `as_of` if it knows."""

    setting: str  # export.…
    settings: Settings
    as_of: datetime

    @property
    def url(self) -> str:
        """Where it is."""
        return named(self.settings)[self.setting]

    @cached_property
    def source(self) -> Source:
        """What it is read by."""
        return open_table(
            self.url,
            setting=self.setting,
            as_of=self.as_of,
            data_interval_start=self.settings.data_interval_start,
            allowed_roots=self.settings.ingest.allowed_roots,
        )

    @cached_property
    def contract(self) -> pandera.DataFrameSchema:
        """Its columns, as the file in `schemas/` says."""
        return build_schema(schema_file(self.setting.rpartition(".")[2]))

    def columns(self, part: Part) -> dict[str, str]:
        """Column of the contract → its name in the part, which may be in lower case.

        Raises:
            BadData: a column is missing, there twice, or of a type that can't be taken.
        """
        schema = self.source.schema(part)
        found: dict[str, str] = {}
        for name, column in self.contract.columns.items():
            same = [other for other in schema.names if other.lower() == name.lower()]
            if len(same) > 1:
                raise BadData(
                    f"{part.path}: more than one column {name} ({', '.join(same)}): leave one in the table that "
                    f"{self.setting} names"
                )
            if same:
                self._require_type(part, name, schema.field(same[0]).type, arrow_type(column))
                found[name] = same[0]
            elif column.required:
                raise BadData(
                    f"{part.path}: missing column {name}: it has {', '.join(schema.names) or 'no columns'}; "
                    f"the table that {self.setting} names needs {', '.join(self._required())}"
                )
        return found

    def _required(self) -> list[str]:
        return [name for name, column in self.contract.columns.items() if column.required]

    def _require_type(self, part: Part, name: str, kind: pa.DataType, wanted: pa.DataType) -> None:
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_null(kind):  # a column of missing values alone
            return
        if wanted == pa.string():
            if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
                return
            if pa.types.is_integer(kind) and self.settings.ingest.cast_ids:
                return
            integers = pa.types.is_integer(kind)
            remedy = "set ingest.cast_ids=true to take integers as text" if integers else "make it text"
        else:
            if unit_of_type(kind):
                return
            remedy = "make it a date or a date-time"
        raise BadData(f"{part.path}: column {name} is {kind}, must be {NAMES[wanted]}: {remedy}")

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, with the columns of the contract that are there, in its types.

        Raises:
            BadData: a row that breaks the contract.
        """
        for part in self.source.parts:
            columns = self.columns(part)
            first = 0
            for batch in self.source.batches(part, list(columns.values())):
                yield self._in_contract(batch, columns, part, first)
                first += len(batch)

    def _in_contract(
        self, batch: pa.RecordBatch, columns: dict[str, str], part: Part, first: int
    ) -> pa.RecordBatch:
        arrays = []
        for name, own in columns.items():
            values = batch.column(own)
            if pa.types.is_dictionary(values.type):
                values = values.dictionary_decode()
            try:
                values = values.cast(arrow_type(self.contract.columns[name]), safe=False)
                values.validate(full=True)  # text that is not UTF-8
            except pa.ArrowInvalid as error:
                raise BadData(
                    f"{part.path}: {name}: {error}: mend these values in the table that {self.setting} names"
                ) from error
            arrays.append(values)
        taken = pa.RecordBatch.from_arrays(arrays, names=list(columns))
        try:
            self.contract.validate(taken.to_pandas(types_mapper=pd.ArrowDtype), lazy=True)
        except SchemaErrors as errors:
            raise BadData(self._said(errors.failure_cases, taken, part, first)) from errors
        return taken

    def _said(self, cases: pd.DataFrame, batch: pa.RecordBatch, part: Part, first: int) -> str:
        found = []
        for name, of_column in cases.drop_duplicates(["column", "index"]).groupby("column", sort=False):
            row, check = of_column.iloc[0][["index", "check"]]
            value = batch.column(str(name))[int(row)].as_py()
            found.append(
                f"{name} {reason(str(name), check)} ({len(of_column):,} row(s), for instance row {first + int(row)}: "
                f"{shown(value)})"
            )
        return f"{part.path}: {'; '.join(found)}: mend or leave out these rows of the table that {self.setting} names"
