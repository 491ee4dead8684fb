from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from sasrec_tasks.tables.delta_errors import cause


def test_a_tree_of_causes_is_one_line_without_colours() -> None:
    drawn = (
        "Generic error\n   \x1b[31m↳\x1b[0m Unable to rename file\n    \x1b[31m↳\x1b[0m Permission denied\n"
    )
    assert cause(OSError(drawn)) == "Generic error: Unable to rename file: Permission denied"


def test_so_is_what_the_library_says(tmp_path: Path) -> None:
    write_deltalake(tmp_path, pa.table({"a": [1]}))
    with pytest.raises((DeltaError, OSError)) as raised:
        DeltaTable(tmp_path, version=7)
    said = cause(raised.value)
    assert said
    assert not {"\n", "\x1b", "↳"} & set(said)
