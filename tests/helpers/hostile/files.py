"""Places and files that are not what a source should be."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
from deltalake import write_deltalake

from hostile.case import Case, Given, Place, Refused, Served, bad_data, bad_settings
from hostile.data import rows, table

AS_IT_IS = Served("as the plain data")
NOT_PARQUET = "FILE: can't be read as parquet, it is empty, truncated or damaged: write it again"


def cases() -> Iterator[Case]:
    """All of this kind."""
    yield from _contents()
    yield from _names()
    yield from _links()
    yield from _that_change()
    yield from _many()
    yield from _delta()


def _bytes(spoil: Callable[[bytes], bytes], **how: Any) -> Callable[[Place], None]:
    """The plain data's file with other bytes."""

    def make(place: Place) -> None:
        place.write_bytes(spoil(Path(place.write(table(), **how)).read_bytes()))

    return make


def _written(write: Callable[[pa.Table, Any], None]) -> Callable[[Place], None]:
    """The plain data as what another writer makes of it, under the name of parquet."""

    def make(place: Place) -> None:
        out = io.BytesIO()
        write(table(), out)
        place.write_bytes(out.getvalue())

    return make


def _contents() -> Iterator[Case]:
    broken: list[tuple[str, Callable[[Place], Any]]] = [
        ("an empty file", _bytes(lambda content: b"")),
        ("a file cut off in the middle", _bytes(lambda content: content[: len(content) // 2])),
        ("a file whose last byte is missing", _bytes(lambda content: content[:-1])),
        ("a file of the four letters PAR1", _bytes(lambda content: b"PAR1")),
        ("zeros in place of the footer", _bytes(lambda content: content[:-200] + bytes(200))),
        (
            "a footer that claims to be longer than the file",
            _bytes(lambda c: c[:-8] + b"\xff\xff\xff\x7fPAR1"),
        ),
        (
            "zeros in place of the first pages",
            _bytes(lambda content: content[:4] + bytes(400) + content[404:]),
        ),
        ("random bytes", _bytes(lambda content: bytes((7 * n * n + n) % 251 for n in range(5000)))),
        ("a CSV named .parquet", _written(lambda events, out: pyarrow.csv.write_csv(events, out))),
        (
            "a page of HTML named .parquet",
            _bytes(lambda content: b"<!doctype html><h1>403 Forbidden</h1>" * 50),
        ),
        (
            "an Arrow file named .parquet",
            _written(lambda events, out: pyarrow.feather.write_feather(events, out)),
        ),
        ("an ORC file named .parquet", _written(lambda events, out: pyarrow.orc.write_table(events, out))),
        ("a gzipped parquet", _bytes(gzip.compress)),
        ("parquet that is encrypted, footer too", lambda place: _encrypted(place, plaintext_footer=False)),
        ("parquet whose columns are encrypted", lambda place: _encrypted(place, plaintext_footer=True)),
    ]
    for what, make in broken:
        yield Case(what=what, make=make, gets=bad_data(NOT_PARQUET, "ingest"))
    yield Case(
        what="one bit of a page is another one, and the writer kept checksums",
        make=_bytes(_one_bit, write_page_checksum=True, compression="none", use_dictionary=False),
        gets=bad_data(NOT_PARQUET, "ingest"),
    )
    yield Case(
        what="no rows",
        make=lambda place: place.write(table([])),
        gets=bad_data("FILE: no rows in 1 file(s): there is nothing to learn from", "ingest"),
    )
    yield Case(
        what="no row groups",
        make=_no_row_groups,
        gets=bad_data("FILE: no rows in 1 file(s): there is nothing to learn from", "ingest"),
    )
    yield Case(
        what="a folder of a file with rows and one without",
        make=lambda place: _folder(place, {"data/a.parquet": table([]), "data/b.parquet": table()}),
        gets=AS_IT_IS,
    )
    yield Case(
        what="a folder of a good file and an empty one",
        make=lambda place: _beside(place, lambda file: file.write_bytes(b"")),
        gets=bad_data("FOLDER/data/b.parquet: can't be read as parquet", "ingest"),
    )
    for compression in ("none", "gzip", "brotli", "lz4", "zstd"):
        yield Case(
            what=f"compressed by {compression}",
            make=lambda place, how=compression: place.write(table(), compression=how),  # type: ignore[misc]
            gets=AS_IT_IS,
        )
    yield Case(
        what="a row group for each row",
        make=lambda place: place.write(table(), row_group_size=1),
        gets=AS_IT_IS,
    )
    yield Case(
        what="pages of version 2",
        make=lambda place: place.write(table(), data_page_version="2.0", version="2.6"),
        gets=AS_IT_IS,
    )
    yield Case(
        what="metadata of 1 MB that another engine keeps in the footer",
        make=lambda place: place.write(table().replace_schema_metadata({"pandas": "x" * 10**6})),
        gets=AS_IT_IS,
    )


def _one_bit(content: bytes) -> bytes:
    at = content.index(b"user 07") + 6
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _no_row_groups(place: Place) -> None:
    with pq.ParquetWriter(place.source, table().schema):
        pass


class _Kms(pe.KmsClient):  # type: ignore[misc]
    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return key_bytes.hex().encode()

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return bytes.fromhex(wrapped_key.decode())


def _encrypted(place: Place, *, plaintext_footer: bool) -> None:
    factory = pe.CryptoFactory(lambda config: _Kms())
    how = pe.EncryptionConfiguration(
        footer_key="footer",
        column_keys={"columns": ["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"]},
        plaintext_footer=plaintext_footer,
    )
    keys = factory.file_encryption_properties(pe.KmsConnectionConfig(), how)
    with pq.ParquetWriter(place.source, table().schema, encryption_properties=keys) as writer:
        writer.write_table(table())


def _folder(place: Place, files: dict[str, pa.Table], source: str = "data") -> Given:
    for name, events in files.items():
        place.write(events, name)
    return {"source": f"{place.folder}/{source}"}


def _at(source: str) -> Callable[[Place], Given]:
    """A source of this name, with nothing made."""
    return lambda place: {"source": source.replace("FOLDER", str(place.folder))}


def _names() -> Iterator[Case]:
    yield Case(
        what="no such file",
        make=_at("FOLDER/none.parquet"),
        gets=bad_data("FILE: no such file or folder: check the setting `source`", "ingest"),
    )
    yield Case(
        what="no source",
        make=_at(""),
        gets=bad_settings("source: not set: give it as a setting, or as SASREC_SOURCE"),
    )
    yield Case(
        what="a glob that nothing matches",
        make=_at("FOLDER/*.parquet"),
        gets=bad_data(
            "FILE: no parquet file (.parquet, .parq, .pq) in it: check the setting `source`", "ingest"
        ),
    )
    yield Case(
        what="a folder of CSV files",
        make=lambda place: str(Path(place.write_bytes(b"a,b", "data/a.csv")).parent),
        gets=bad_data("FILE: no parquet file (.parquet, .parq, .pq) in it", "ingest"),
    )
    yield Case(
        what="only what engines leave beside (`_x.parquet`, `.x.parquet`)",
        make=lambda place: _folder(place, {"data/_x.parquet": table(), "data/.x.parquet": table()}),
        gets=bad_data("FILE: no parquet file (.parquet, .parq, .pq) in it", "ingest"),
    )
    yield Case(
        what="what engines leave beside good files, all damaged",
        make=_beside_good,
        gets=AS_IT_IS,
    )
    yield Case(
        what="a folder named x.parquet with files in it",
        make=lambda place: _folder(place, {"x.parquet/part-0.parquet": table()}, "x.parquet"),
        gets=AS_IT_IS,
    )
    yield Case(
        what="a folder with a folder named x.parquet in it",
        make=lambda place: _folder(place, {"data/x.parquet/part-0.parquet": table()}),
        gets=AS_IT_IS,
    )
    yield Case(
        what="an empty folder named x.parquet",
        make=_empty_folder,
        gets=bad_data("FILE: no parquet file (.parquet, .parq, .pq) in it", "ingest"),
    )
    for what, name in (
        ("blanks and quotes", 'it\'s "a" file.parquet'),
        ("emoji", "🙂/👩‍👩‍👧.parquet"),
        ("a line break", "a\nb.parquet"),
        ("signs of URLs", "a%20b#c?d.parquet"),
        ("signs of globs", "a[1]*.parquet"),
        ("the separators of tables", "a,b;c.parquet"),
    ):
        yield Case(
            what=f"a file whose name holds {what}",
            make=lambda place, name=name: _folder(place, {f"data/{name}": table()}),  # type: ignore[misc]
            gets=AS_IT_IS,
        )
    yield Case(
        what="a folder whose name claims to be a day of arrival and is none (`date=9999-99-99`)",
        make=lambda place: _folder(place, {"data/date=9999-99-99/a.parquet": table()}),
        gets=AS_IT_IS,
    )
    yield Case(
        what="a folder of the last day there is (`date=9999-12-31`)",
        make=lambda place: _folder(place, {"data/date=9999-12-31/a.parquet": table()}),
        gets=bad_data("FILE: no date=… of a day that had ended by as_of", "ingest"),
    )
    yield Case(
        what="a column in the path that is no number (`OUTCOME=high`)",
        make=lambda place: _folder(place, {"data/OUTCOME=high/a.parquet": table(OUTCOME=None)}),
        gets=bad_data(
            "FOLDER/data/OUTCOME=high/a.parquet: OUTCOME: …high…: rename the folder, or put the column into the file",
            "ingest",
        ),
    )
    yield Case(
        what="NUL in the name",
        make=_at("FOLDER/a\0b.parquet"),
        gets=bad_settings("source='FOLDER/a\\x00b.parquet': holds a NUL character"),
    )
    yield Case(
        what="a name longer than the file system takes",
        make=_at("FOLDER/" + "x" * 300),
        gets=bad_data("…: no such file or folder: check the setting `source`", "ingest"),
    )
    yield Case(
        what="a URL of no known kind",
        make=_at("gopher://host/x.parquet"),
        gets=bad_settings("source='gopher://host/x.parquet': Protocol not known: gopher", "ingest"),
    )
    yield Case(
        what="a URL that is none (`http://[::1/x.parquet`)",
        make=_at("http://[::1/x.parquet"),
        gets=bad_settings("source='http://[::1/x.parquet': is no URL: Invalid IPv6 URL"),
    )
    yield Case(
        what="an unknown field in braces",
        make=_at("FOLDER/{ds}/x.parquet"),
        gets=bad_settings(
            "source='FOLDER/{ds}/x.parquet': {ds} is unknown: there are {date}, {as_of}", "ingest"
        ),
    )
    yield Case(
        what="a field that reads an attribute (`{as_of.__class__}`)",
        make=_at("FOLDER/{as_of.__class__}/x.parquet"),
        gets=bad_settings("{as_of.__class__} is unknown: there are {date}, {as_of}", "ingest"),
    )
    yield Case(
        what="a device that never ends (`/dev/zero`)",
        make=_at("/dev/zero"),
        gets=bad_data(
            "/dev/zero: is no file: name a file of parquet, or take it out of the source", "ingest"
        ),
    )
    yield Case(
        what="a named pipe that nobody writes to",
        make=_pipe,
        gets=bad_data("FILE: is no file: name a file of parquet, or take it out of the source", "ingest"),
    )
    yield Case(
        what="a named pipe among good files",
        make=lambda place: _beside(place, os.mkfifo),
        gets=bad_data(
            "FOLDER/data/b.parquet: is no file: name a file of parquet, or take it out of the source",
            "ingest",
        ),
    )


def _beside(place: Place, make: Callable[[Path], object]) -> Given:
    """A folder of a good file, and what is made beside."""
    given = _folder(place, {"data/a.parquet": table()})
    make(place.folder / "data" / "b.parquet")
    return given


def _pipe(place: Place) -> None:
    os.mkfifo(place.source)


def _empty_folder(place: Place) -> str:
    folder = place.folder / "x.parquet"
    folder.mkdir()
    return str(folder)


def _beside_good(place: Place) -> Given:
    for name in ("_SUCCESS", "_metadata", ".part-0.parquet.crc", "_temporary/0/part-0.parquet", "notes.txt"):
        place.write_bytes(b"not parquet", f"data/{name}")
    return _folder(place, {"data/part-0.parquet": table()})


def _inside(place: Place, given: Given | None = None) -> Given:
    """Settings of an operator who allows what lies in `data/` alone."""
    allowed = [f"{place.folder}/{name}" for name in ("data", "runs", "table")]
    return {"source": f"{place.folder}/data", **(given or {}), "ingest.allowed_roots": allowed}


OUTSIDE = "outside the allowed roots (FOLDER/data, FOLDER/runs, FOLDER/table)"
ASK = "use a place under one of them, or have the operator add it to SASREC_ALLOWED_ROOTS"


def _links() -> Iterator[Case]:
    def linked(link: str, to: str) -> Callable[[Place], Given]:
        def make(place: Place) -> Given:
            place.write(table(), "secret/x.parquet")
            place.write(table(), "data/a.parquet")
            Path(place.folder / link).symlink_to(to.replace("FOLDER", str(place.folder)))
            return _inside(place)

        return make

    yield Case(
        what="a link to a file outside the allowed roots",
        make=linked("data/b.parquet", "FOLDER/secret/x.parquet"),
        gets=bad_settings(f"source='FOLDER/data/b.parquet': {OUTSIDE}: {ASK}", "ingest"),
    )
    yield Case(
        what="a link to a folder outside the allowed roots, in a folder",
        make=linked("data/b", "../secret"),
        gets=AS_IT_IS,
    )
    yield Case(
        what="a link to a folder outside the allowed roots, as the source",
        make=lambda place: {**linked("data/b", "../secret")(place), "source": f"{place.folder}/data/b"},
        gets=bad_settings(f"source='FOLDER/data/b': {OUTSIDE}"),
    )
    yield Case(
        what="a link to itself",
        make=linked("data/b.parquet", "FOLDER/data/b.parquet"),
        gets=bad_data(
            "FOLDER/data/b.parquet: is a link to what is not there (Too many levels of symbolic links): mend the link",
            "ingest",
        ),
    )
    yield Case(
        what="a link to what is gone",
        make=linked("data/b.parquet", "FOLDER/data/none.parquet"),
        gets=bad_data(
            "FOLDER/data/b.parquet: is a link to what is not there (No such file or directory): mend the link",
            "ingest",
        ),
    )
    yield Case(
        what="a link within the allowed roots",
        make=_linked_inside,
        gets=AS_IT_IS,
    )
    for source in ("FOLDER/data/../secret/x.parquet", "/etc/passwd", "file:///etc/passwd", "~root/x.parquet",
                   "simplecache::file:///etc/passwd", "FOLDER/data/%2e%2e/secret/x.parquet",
                   "FOLDER/database"):  # fmt: skip
        yield Case(
            what=f"`{source}`, where `FOLDER/data` is allowed",
            make=lambda place, source=source: _inside(place, _at(source)(place)),  # type: ignore[misc]
            gets=bad_settings(f"source='FILE': {OUTSIDE}: {ASK}"),
        )


def _linked_inside(place: Place) -> Given:
    kept = Path(place.write(table(), "data/.kept/a.parquet"))
    (place.folder / "data" / "b.parquet").symlink_to(kept)
    return _inside(place)


def _that_change() -> Iterator[Case]:
    def two(place: Place) -> Given:
        return _folder(place, {"data/a.parquet": table(rows()[:80]), "data/b.parquet": table(rows()[80:])})

    def appended(place: Place) -> None:
        with Path(f"{place.folder}/data/b.parquet").open("ab") as file:
            file.write(b"more")

    changed = "FOLDER/data/b.parquet: was written to after the source was listed: try again once it is whole"
    for what, meanwhile in (
        ("grows", appended),
        ("is begun anew", lambda place: place.write_bytes(b"", "data/b.parquet")),
        (
            "is overwritten by other rows",
            lambda place: place.write(table(rows()[90:]), "data/b.parquet"),
        ),
    ):
        yield Case(
            what=f"a file that {what} while the source is read",
            make=two,
            meanwhile=meanwhile,
            gets=Refused(OSError, changed, "ingest"),
        )
    yield Case(
        what="a file that is removed while the source is read",
        make=two,
        meanwhile=lambda place: Path(f"{place.folder}/data/b.parquet").unlink(),
        gets=Refused(
            OSError, "FOLDER/data/b.parquet: was removed after the source was listed: try again", "ingest"
        ),
    )
    yield Case(
        what="a file that comes while the source is read",
        make=two,
        meanwhile=lambda place: place.write(table(rows()[:9]), "data/c.parquet"),
        gets=Served("without it: the next run reads it"),
    )


def _many() -> Iterator[Case]:
    for count, slow in ((300, False), (10_000, True)):
        yield Case(
            what=f"{count:,} files of a row or none each",
            make=lambda place, count=count: _a_file_for_each(place, count),  # type: ignore[misc]
            gets=AS_IT_IS,
            slow=slow,
        )


def _a_file_for_each(place: Place, count: int) -> Given:
    events = table()
    for number in range(count):
        place.write(events.slice(number, 1), f"data/{number // 1000:03d}/{number:06d}.parquet")
    return {"source": f"{place.folder}/data"}


def _without_log(folder: Path) -> None:
    for file in (folder / "_delta_log").iterdir():
        file.unlink()


def _delta() -> Iterator[Case]:
    def delta(spoil: Callable[[Path], object]) -> Callable[[Place], Given]:
        def make(place: Place) -> Given:
            folder = place.folder / "delta"
            write_deltalake(str(folder), table(rows()[:80]))
            write_deltalake(str(folder), table(rows()[80:]), mode="append")
            spoil(folder)
            return {"source": str(folder)}

        return make

    log = "_delta_log/{:020d}.json".format
    yield Case(what="a Delta table", make=delta(lambda folder: None), gets=AS_IT_IS)
    yield Case(
        what="a Delta table without its log's files",
        make=delta(_without_log),
        gets=bad_data("FILE: can't be read as a Delta table", "ingest"),
    )
    yield Case(
        what="a Delta table whose log is cut off",
        make=delta(lambda folder: (folder / log(1)).write_bytes((folder / log(1)).read_bytes()[:300])),
        gets=bad_data("FILE: can't be read as a Delta table", "ingest"),
    )
    yield Case(
        what="a Delta table whose log is not JSON",
        make=delta(lambda folder: (folder / log(0)).write_text("<html>")),
        gets=bad_data("FILE: can't be read as a Delta table", "ingest"),
    )
    yield Case(
        what="a Delta table that lost a file",
        make=delta(lambda folder: next(folder.glob("*.parquet")).unlink()),
        gets=bad_data(
            "FILE/…: is gone, though version 1 holds it: the table was vacuumed too early, restore the file",
            "ingest",
        ),
    )
    yield Case(
        what="a Delta table of which a file is damaged",
        make=delta(lambda folder: next(folder.glob("*.parquet")).write_bytes(b"PAR1")),
        gets=bad_data("FILE/…: can't be read as parquet, it is empty, truncated or damaged", "ingest"),
    )
    yield Case(
        what="a Delta table's files by a glob",
        make=lambda place: {**delta(lambda folder: None)(place), "source": f"{place.folder}/delta/*.parquet"},
        gets=bad_data(
            "is a Delta table, whose files hold replaced rows too: name the table alone as source", "ingest"
        ),
    )
    yield Case(
        what="a folder with a Delta table in it",
        make=lambda place: {**delta(lambda folder: None)(place), "source": str(place.folder)},
        gets=bad_data(
            "is a Delta table, whose files hold replaced rows too: name the table alone as source", "ingest"
        ),
    )
    yield Case(
        what="a Delta table all of whose rows were deleted",
        make=delta(lambda folder: write_deltalake(str(folder), table([]), mode="overwrite")),
        gets=bad_data("FILE: …holds no rows", "ingest"),
    )
