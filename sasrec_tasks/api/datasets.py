"""Tables that a notebook hands over: a CSV or parquet file, or a DataFrame."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pandera.errors import SchemaErrors

from sasrec_tasks.schema import arrow_type, build_schema, interactions_schema_file

DataLocation = str | Path | pd.DataFrame

IDS = ("USER_ID", "ITEM_ID")
EXAMPLES = 3


class _Dataset:
    """A table whose place is told once, and which is read when it is needed.

    Args:
        data_location: a CSV or parquet file, a folder of parquet files, or a DataFrame.
        client_schema_path: a YAML file in the dialect of `schemas/`. Its columns alone are read, as
            the types that it names. Without one, all columns are read as they are.
    """

    required: tuple[str, ...] = ()
    remedy = "rename its columns"

    def __init__(self, data_location: DataLocation, client_schema_path: str | Path | None = None) -> None:
        if not isinstance(data_location, str | Path | pd.DataFrame):
            raise TypeError(
                f"data_location must be a path or a pandas DataFrame, not {kind_of(data_location)}"
            )
        self.data_location = data_location
        self.client_schema_path = client_schema_path
        self.name = "the DataFrame" if isinstance(data_location, pd.DataFrame) else str(data_location)
        """What errors call the table."""

    def fetch_data(self, columns: tuple[str, ...] | None = None) -> pd.DataFrame:
        """The table.

        Args:
            columns: give these alone, of those that are required; others that a schema asks for may then
                be missing, or bad.

        Raises:
            ValueError: a required column is missing, or the table breaks its schema.
            FileNotFoundError: no such file.
        """
        if self.client_schema_path is None:
            frame = self._as_it_is()
            self._require(frame)
            return frame if columns is None else frame[list(columns)]
        file = Path(self.client_schema_path)
        schema = build_schema(file)
        if missing := [name for name in self.required if name not in schema.columns]:
            raise ValueError(
                f"{file}: no column {', '.join(missing)}, which is needed, so that it is not read from "
                f"{self.name}: add it to this schema, which has {', '.join(schema.columns)}"
            )
        if columns is not None:
            schema = schema.select_columns(list(columns))
        return self._by_schema(schema, file)

    def _require(self, frame: pd.DataFrame) -> None:
        twice = [name for name in self.required if list(frame.columns).count(name) > 1]
        if twice:
            raise ValueError(
                f"{self.name}: more than one column {', '.join(twice)}: rename or drop one of them"
            )
        if missing := [name for name in self.required if name not in frame.columns]:
            raise ValueError(
                f"{self.name}: no column {', '.join(missing)}: it has {', '.join(map(str, frame.columns))}; "
                f"{self.remedy}"
            )

    def _as_it_is(self) -> pd.DataFrame:
        if isinstance(self.data_location, pd.DataFrame):
            return self.data_location
        table = self._table(dict.fromkeys(IDS, pa.string()))
        for number, field in enumerate(table.schema):
            if pa.types.is_date(field.type):  # to pandas they would be Python objects
                table = table.set_column(number, field.name, table[number].cast(pa.timestamp("ms")))
        frame: pd.DataFrame = table.to_pandas()
        if self._is_csv():  # where a file does not say what is text, numbers are numbers
            for name in frame.columns.intersection(list(IDS)):
                frame[name] = _integers_where_nothing_is_lost(frame[name])
        return frame

    def _by_schema(self, schema: pandera.DataFrameSchema, file: Path) -> pd.DataFrame:
        types = {name: arrow_type(column) for name, column in schema.columns.items()}
        table = self._table(dict.fromkeys(types, pa.string()))  # so that all bad values are told, by column
        if missing := [name for name in types if name not in table.column_names]:
            raise ValueError(
                f"{self.name}: no column {', '.join(missing)}, which {file} asks for: "
                f"it has {', '.join(table.column_names)}"
            )
        problems = []
        for name, kind in types.items():
            column = table[name]
            if column.type == pa.string() != kind:
                column = pc.utf8_trim_whitespace(column)
            try:
                column = column.cast(kind)
            except pa.ArrowException as error:
                problems.append(f"{name} is not {kind}: {error}")
                continue
            table = table.set_column(table.column_names.index(name), name, column)
            checked = column.to_pandas(types_mapper=pd.ArrowDtype).to_frame(name)
            try:  # one column at a time: pandera puts the cases of several into one type
                pandera.DataFrameSchema({name: schema.columns[name]}).validate(checked, lazy=True)
            except SchemaErrors as errors:
                problems.append(_told(name, errors.failure_cases))
        if problems:
            raise ValueError(f"{self.name}: {'; '.join(problems)} ({file})")
        frame: pd.DataFrame = table.select(list(types)).to_pandas()
        return frame

    def _table(self, types: dict[str, pa.DataType]) -> pa.Table:
        """The file, CSV columns read as `types`."""
        given = self.data_location
        if not isinstance(given, pd.DataFrame) and not Path(given).exists():
            raise FileNotFoundError(f"{given}: no such file: check data_location")
        try:
            if isinstance(given, pd.DataFrame):
                return pa.Table.from_pandas(given, preserve_index=False)
            if not self._is_csv():
                return pq.read_table(given)
            # "NA" and "null" are ids as good as any; only an empty field is none
            options = pa_csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True)
            quoted = pa_csv.ParseOptions(newlines_in_values=True)
            return pa_csv.read_csv(given, parse_options=quoted, convert_options=options)
        except (pa.ArrowException, OSError) as error:
            is_parquet = not (isinstance(given, pd.DataFrame) or self._is_csv())
            hint = " (read as parquet: a CSV file is told by its ending .csv)" if is_parquet else ""
            raise ValueError(f"{self.name}: {error}{hint}") from error

    def _is_csv(self) -> bool:
        return re.search(r"\.csv(\.(gz|bz2|zst|lz4))?$", str(self.data_location), re.IGNORECASE) is not None


class InteractionsDataset(_Dataset):
    """Who did what and when: USER_ID, ITEM_ID, TIMESTAMP, and OUTCOME where it is trained on."""

    required = ("USER_ID", "ITEM_ID", "TIMESTAMP")
    remedy = f"rename its columns as in {interactions_schema_file().name}"


class ItemsDataset(_Dataset):
    """The catalogue: ITEM_ID; other columns are ignored."""

    required = ("ITEM_ID",)
    remedy = "rename its column of item ids to ITEM_ID"


def _integers_where_nothing_is_lost(texts: pd.Series) -> pd.Series:
    """Integers, if each text is how an integer is written: 7, but not 007."""
    if texts.isna().any():
        return texts
    try:
        numbers = texts.astype("int64")
    except (ValueError, OverflowError):
        return texts
    return numbers if (numbers.astype(str) == texts.astype(str)).all() else texts


def _told(column: str, cases: pd.DataFrame) -> str:
    cases = cases.drop_duplicates("index")
    shown = ", ".join(
        f"row {case['index']} ({case['failure_case']!r} fails {case['check']})"
        for case in cases.head(EXAMPLES).to_dict("records")
    )
    return f"{column}: {len(cases):,} bad values, for instance {shown}"


def kind_of(value: object) -> str:
    """The type's name, with its library's where there are others of the same name."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
