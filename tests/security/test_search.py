"""The search for planted secrets finds them in whatever form: what it does not find is not there."""

from __future__ import annotations

import base64
import gzip
import sqlite3
import zlib
from pathlib import Path

import planted_secrets as search
import pyarrow as pa
import pyarrow.parquet as pq
from planted_secrets import Secrets


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    secrets = Secrets()
    secret = secrets.new("here")
    other = secrets.new("in two parts", "{}/{}")
    (tmp_path / "deep" / "down").mkdir(parents=True)
    (tmp_path / "deep" / "down" / "log.txt").write_text(f"x{secret}y")
    (tmp_path / "encoded").write_bytes(base64.b64encode(f"user:{secret}@host".encode()))
    pq.write_table(pa.table({"a": ["x" * 1000, secret]}), tmp_path / "rows.parquet", compression="zstd")
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"k": other}), tmp_path / "meta.parquet")
    (tmp_path / secret).write_text("")
    (tmp_path / "packed").write_bytes(gzip.compress(other.encode()))
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("CREATE TABLE t (a, b)")
        connection.execute("INSERT INTO t VALUES (?, ?)", ("x", zlib.compress(secret.encode())))
    names = {name for _, name in search.in_folder(secrets, tmp_path)}
    assert names >= {"deep/down/log.txt", "encoded", "rows.parquet", "meta.parquet", secret, "packed"}
    assert search.in_sqlite(secrets, tmp_path / "x.db") == {("t", "b"): {"here"}}
    assert secrets.within(b"nothing") == set()
    for before in range(4):
        assert secrets.within(base64.b64encode(b"u" * before + secret.encode() + b"@host")) == {"here"}
