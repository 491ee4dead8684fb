"""Run ids and places that lead elsewhere, or hold what must be seen nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hostile.case import SECRET, Case, Given, Place, Served, bad_data, bad_settings, plain
from hostile.data import table
from sasrec_tasks.naming import as_names, flat
from sasrec_tasks.pipeline import triggered_settings


def cases() -> Iterator[Case]:
    """All of this kind."""
    yield from _run_ids()
    yield from _places()
    yield from _secrets()
    yield from _triggers()


def _run_ids() -> Iterator[Case]:
    rule = "use at most 250 letters, digits and _ . ~ : + - only, no '.' at the beginning and no '::'"
    for run_id in ("", ".", "..", "../..", "../../etc", "/etc", "a/b", "a\\b", ".hidden", "a b", "a\nb", "a\0b",
                   "%2e%2e", "memory::x", "é", "👩", "a" * 251, "$HOME", "*", "<script>"):  # fmt: skip
        shown = run_id if len(run_id) < 50 else "aaa…"
        yield Case(
            what=f"run id `{shown}`" if run_id else "an empty run id",
            make=plain(run_id=run_id),
            gets=bad_settings(f"run id {run_id[:50]!r}"[:-1] + f"…: {rule}"),
            group="a run id that could lead out of the store, or that file systems take otherwise: `..`, `../..`, "
            "`/etc`, `a\\b`, `.hidden`, `a::b`, `%2e%2e`, blanks, NUL, line breaks, 251 characters, …",
            shown=f"`BadSettings` in `start`: run id VALUE: {rule}",
        )
    for run_id in ("manual__2026-01-01T00:00:00.000000+00:00", "a" * 200, "~root", "-rf", "CON", "a..b"):
        yield Case(
            what=f"run id `{run_id if len(run_id) < 50 else 'aaa… (200)'}`",
            make=plain(run_id=run_id),
            gets=Served("in a folder of that name in the store"),
        )


def _places() -> Iterator[Case]:
    yield Case(
        what="no table",
        make=plain(table=""),
        gets=bad_settings("table: not set: give it as a setting, or as SASREC_TABLE"),
    )
    yield Case(
        what="no store",
        make=plain(store=""),
        gets=bad_settings("store: not set: give it as a setting, or as SASREC_STORE"),
    )
    for setting in ("store", "table"):
        for sign in ("?", "#", "%20", "[", "\\"):
            place = f"FOLDER/a{sign}b"
            yield Case(
                what=f"`{setting}` with {sign} in its name",
                make=plain(**{setting: place}),
                gets=bad_settings(f"{setting}='…holds {sign!r}: Delta Lake takes a folder as a URL"),
            )
        yield Case(
            what=f"`{setting}` with NUL in its name",
            make=plain(**{setting: "FOLDER/a\0b"}),
            gets=bad_settings(
                f"{setting}='FOLDER/a\\x00b': holds a NUL character, which no place has: take it out"
            ),
        )
        yield Case(
            what=f"`{setting}` of no known kind",
            make=plain(**{setting: "gopher://host/x"}),
            gets=bad_settings(f"{setting}='gopher://host/x…"),
        )
        yield Case(
            what=f"`{setting}` outside the allowed roots by `..`",
            make=lambda place, setting=setting: {  # type: ignore[misc]
                **plain()(place),
                setting: f"{place.folder}/{setting}/../../elsewhere",
                "ingest.allowed_roots": [str(place.folder)],
            },
            gets=bad_settings(
                f"{setting}='FOLDER/{setting}/../../elsewhere': outside the allowed roots (FOLDER): use a place"
            ),
        )
    yield Case(
        what="`store` is a file",
        make=lambda place: {**plain()(place), "store": place.source},
        gets=bad_settings("store='FILE': is a file: name a folder for the runs"),
    )
    yield Case(
        what="`table` is a file",
        make=lambda place: {**plain()(place), "table": place.source},
        gets=bad_settings("table='FILE': is a file: name a folder for the table"),
    )
    for setting in ("export.eligible_items", "export.excluded_pairs"):
        yield Case(
            what=f"`{setting}` that is not there",
            make=plain(**{setting: "FOLDER/none.parquet"}),
            gets=bad_data(
                f"FOLDER/none.parquet: no such file or folder: check the setting `{setting}`", "start"
            ),
        )
    yield Case(
        what="a connection that nobody has made",
        make=plain(table="connection:nobody?table=x"),
        gets=bad_settings(
            "'connection:nobody?table=x': there is no connection 'nobody': make one in Airflow"
        ),
    )
    yield Case(
        what="a connection's name that is none",
        make=plain(table="connection:../x?table=x"),
        gets=bad_settings("name a connection by letters, digits, `_`, `.` and `-`"),
    )
    yield Case(
        what="a database whose table's name is SQL",
        make=plain(table="postgresql://localhost/db?table=x;drop table y"),
        gets=bad_settings("'x;drop table y' is no name of a table: letters, digits and _, at most 30"),
    )


def _secrets() -> Iterator[Case]:
    kept = "which would be kept in the run's settings: name a connection instead (connection:ID)"
    addresses = {
        "a password before the host": (f"postgresql://u:{SECRET}@host/db?table=t", "password"),
        "a password in the query": (f"postgresql://host/db?table=t&password={SECRET}", "password"),
        "a password in capitals": (f"postgresql://host/db?table=t&PASSWORD={SECRET}", "password"),
        "the password of a key (`sslpassword`)": (
            f"postgresql://host/db?table=t&sslpassword={SECRET}",
            "password",
        ),
        "a password beside a connection": (f"connection:db?table=t&password={SECRET}", "password"),
        "a key of S3": (f"s3://AKIA:{SECRET}@bucket/x", "password"),
        "a key in a chain of URLs": (f"simplecache::s3://AKIA:{SECRET}@bucket/x", "password"),
        "a password in a table of parquet": (f"parquet+s3://AKIA:{SECRET}@bucket/x", "password"),
        "a presigned URL": (f"https://host/x.parquet?X-Amz-Signature={SECRET}", "secret (X-Amz-Signature)"),
        "a shared access signature": (f"abfs://x@y.dfs.core.windows.net/x?sv=1&sig={SECRET}", "secret (sig)"),
        "a token": (f"https://host/x.parquet?access_token={SECRET}", "secret (access_token)"),
    }
    for what, (address, told) in addresses.items():
        for setting in ("source", "table"):
            yield Case(
                what=f"`{setting}` with {what}",
                make=plain(**{setting: address}),
                gets=bad_settings(f"{setting}: holds a {told}, {kept}"),
                group=f"{what}, in `source` or in `table`",
                shown=f"`BadSettings` in `start`: NAME: holds a {told}, {kept}",
            )
    yield Case(
        what="`store` with a password",
        make=plain(store=f"s3://AKIA:{SECRET}@bucket/runs"),
        gets=bad_settings(f"store: holds a password, {kept}"),
    )
    yield Case(
        what="a second table with a password",
        make=plain(table=f"FOLDER/table,postgresql://u:{SECRET}@host/db?table=t"),
        gets=bad_settings(f"table: holds a password, {kept}"),
    )
    yield Case(
        what="`export.eligible_items` with a password",
        make=plain(export__eligible_items=f"postgresql://u:{SECRET}@host/db?table=t"),
        gets=bad_settings(f"export.eligible_items: holds a password, {kept}"),
    )
    yield Case(
        what="a password in what is no URL",
        make=plain(source=f"http://u:{SECRET}@[::1/x.parquet"),
        gets=bad_settings("source='http://u:…@[::1/x.parquet': is no URL"),
    )
    yield Case(
        what="a password in a value of another type",
        make=plain(table=[f"postgresql://u:{SECRET}@host/db?table=t"]),
        gets=bad_settings("table=['postgresql://u:…@host/db?table=t']: input should be a valid string"),
    )


def _triggers() -> Iterator[Case]:
    def conf(values: Given) -> Callable[[Place], Callable[[], Given]]:
        """What a person triggers a run with, where the operator has set the places."""

        def make(place: Place) -> Callable[[], Given]:
            place.write(table())
            own = {"source": place.source, "store": place.store, "table": place.table}
            said = {
                name: value.replace("FOLDER", str(place.folder)) if isinstance(value, str) else value
                for name, value in values.items()
            }

            def settings() -> Given:
                from datetime import UTC, datetime

                # Airflow puts what came with the trigger among the Params, too
                made = triggered_settings(said, said, own.get, datetime(2026, 1, 1, tzinfo=UTC))
                return as_names(made)

            return settings

        return make

    only = "only the operator of this deployment can set it"
    for what, values, name in (
        ("`ingest.allowed_roots`", {"ingest.allowed_roots": None}, "ingest.allowed_roots"),
        ("`ingest.allowed_roots` in a group", {"ingest": {"allowed_roots": ["/"]}}, "ingest.allowed_roots"),
        ("`ingest.query` in a group", {"ingest": {"query": "DROP TABLE x"}}, "ingest.query"),
        ("`metrics.textfile` in a group", {"metrics": {"textfile": "FOLDER/x.prom"}}, "metrics.textfile"),
        ("`prune.keep_versions` in a group", {"prune": {"keep_versions": 2}}, "prune.keep_versions"),
        (
            "`validate.schema_file` in a group",
            {"validate": {"schema_file": "/etc/passwd"}},
            "validate.schema_file",
        ),
    ):
        yield Case(
            what=f"a trigger that names {what}",
            make=conf(values),
            gets=bad_settings(f"{name}: {only}"),
        )
    for setting in ("source", "store", "table"):
        yield Case(
            what=f"a trigger that names a `{setting}` elsewhere",
            make=conf({setting: "/etc/x"}),
            gets=bad_settings(f"{setting}='/etc/x': outside the allowed roots ("),
        )
    yield Case(
        what="a trigger that names an address of this network",
        make=conf({"source": "http://169.254.169.254/latest/meta-data"}),
        gets=bad_settings("source='http://169.254.169.254/latest/meta-data': outside the allowed roots ("),
    )
    yield Case(
        what="a trigger that names a connection of somebody else's",
        make=conf({"table": "connection:payments?table=x"}),
        gets=bad_settings("table='connection:payments?table=x': outside the allowed roots ("),
    )
    lies = "lies in a store, whose folders belong to runs: name another place"
    for what, chosen in (
        ("begins in another run's folder", {"store": "FOLDER/runs/other"}),
        ("publishes into another run's folder", {"table": "FOLDER/runs/other/export"}),
        ("reads another run's folder", {"source": "FOLDER/runs/other/ingest"}),
    ):
        ((setting, place),) = chosen.items()
        yield Case(
            what=f"a trigger that {what}",
            make=conf(chosen),
            gets=bad_settings(f"{setting}='{place}': {lies}"),
        )
    yield Case(
        what="a trigger that publishes among the files of the table",
        make=conf({"table": "FOLDER/table/part"}),
        gets=bad_settings("table='FOLDER/table/part': lies in the folder of a table: name the table itself"),
    )
    for what, secret_values in (
        ("in `source`", {"source": f"postgresql://u:{SECRET}@host/db"}),
        ("deep in it", {"ingest": {"columns": {f"https://host/x?token={SECRET}": "USER_ID"}}}),
    ):
        yield Case(
            what=f"a trigger with a password {what}",
            make=conf(secret_values),
            gets=bad_settings(
                f"conf: {next(iter(flat(secret_values)))!r}: holds an address with a password or another secret, which "
                "Airflow keeps with the run"
            ),
        )
    yield Case(
        what="a trigger with an unknown setting",
        make=conf({"train": {"epoch": 1}}),
        gets=bad_settings("conf: train.epoch: no such setting, did you mean train.epochs?"),
    )
