"""PostgreSQL: a role that may touch its own tables alone is enough, and no name of a table is more than a name."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.rollback import roll_back
from sasrec_tasks.sources import open_table
from sasrec_tasks.tables import Recommendations, open_tables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS
from sasrec_tasks.tables.retention import Keep
from sasrec_tasks.upsert import upsert

ROOT = Path(__file__).parents[2]
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
DENIED = "permission denied"


@dataclass(frozen=True)
class Shop:
    """A database of a shop, with the role and the schema of docs/deployment.md and the shop's own tables.

    Args:
        server: URL of its owner.
        role: of the pipeline; its schema has its name.
        reader: role of consumers.
    """

    server: str
    role: str
    reader: str

    def as_role(self, role: str) -> str:
        """URL of the database for a role."""
        return self.server.replace("postgres:@", f"{role}:{role}@")

    def ask(self, statement: str, role: str = "") -> list[tuple[Any, ...]]:
        """What a statement gives."""
        url = self.as_role(role) if role else self.server
        with dbapi.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            found: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
            connection.commit()
            return found


def grants(role: str, reader: str) -> list[str]:
    """The statements of the document, for roles of these names."""
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    block = re.sub(r"\bconsumers\b", reader, re.sub(r"\brecommender\b", role, block))
    lines = [line.partition("--")[0] for line in block.splitlines()]
    return [statement for part in " ".join(lines).split(";") if (statement := part.strip())]


@pytest.fixture
def shop(postgres: str) -> Shop:
    """One of the test's own names."""
    name = uuid.uuid4().hex[:8]
    shop = Shop(postgres, f"pipeline_{name}", f"reader_{name}")
    shop.ask(f"CREATE ROLE {shop.reader} LOGIN")
    for statement in grants(shop.role, shop.reader):
        shop.ask(statement)
    shop.ask(f"CREATE SCHEMA shop_{name}")
    shop.ask(f"CREATE TABLE shop_{name}.orders AS SELECT 1 AS id")
    shop.ask(f"CREATE TABLE shop_{name}.items AS SELECT 'a' AS item_id")
    return shop


def publish(url: str, run_id: str = "run", day: int = 1) -> None:
    as_of = MOMENT.replace(day=day)
    row = {"RANK": 1, "ITEM_ID": "a", "SCORE": 0.5, "ORIGIN": "model", "RUN_ID": run_id, "AS_OF": as_of}
    open_tables(url).publish(
        iter([pa.RecordBatch.from_pylist([{"USER_ID": "u", **row}], RECOMMENDATIONS)]),
        pa.Table.from_pylist([{**row, "ORIGIN": "popular"}], POPULAR),
        run_id=run_id,
        as_of=as_of,
        metadata={},
    )


def table_of(shop: Shop, role: str = "", name: str = "top") -> str:
    server = shop.as_role(role or shop.role)
    return f"{server}{'&' if '?' in server else '?'}table={shop.role}.{name}"


def test_the_documented_grants_are_enough_for_all_that_the_pipeline_does(shop: Shop) -> None:
    url = table_of(shop)
    for day in range(1, 4):
        publish(url, f"run {day}", day)
    roll_back(url, version=None, run_id="")
    pruned = open_tables(url).prune(Keep(versions=2, days=0))
    assert [len(each.removed) for each in pruned] == [1]
    assert next(open_tables(url).published()).run_id == "run 2"


def test_consumers_read_what_is_served_and_write_none_of_it(shop: Shop) -> None:
    publish(table_of(shop))
    assert Recommendations(table_of(shop, shop.reader)).users() == 1
    view = f'"{shop.role}"."top"'
    assert shop.ask(f'SELECT "USER_ID" FROM {view}', shop.reader) == [("u",)]
    for statement in (
        f"DROP VIEW {view}",
        f'DELETE FROM "{shop.role}"."top_versions"',
        f'CREATE TABLE "{shop.role}"."x" AS SELECT 1 AS id',
    ):
        with pytest.raises(Exception, match=f"{DENIED}|must be owner"):
            shop.ask(statement, shop.reader)
    with pytest.raises(OSError, match=DENIED):
        publish(table_of(shop, shop.reader), "another", 2)


def test_the_role_of_the_pipeline_touches_no_other_table(shop: Shop) -> None:
    schema = shop.role.replace("pipeline", "shop")
    for statement in (
        f"SELECT * FROM {schema}.orders",
        f"DELETE FROM {schema}.orders",
        f"DROP TABLE {schema}.orders",
        f"CREATE TABLE {schema}.own AS SELECT 1 AS id",
        "CREATE TABLE public.own AS SELECT 1 AS id",
        f"CREATE VIEW {schema}.v AS SELECT 1 AS id",
    ):
        with pytest.raises(Exception, match=f"{DENIED}|must be owner"):
            shop.ask(statement, shop.role)
    server = shop.as_role(shop.role)
    for other in (f"{schema}.top", "public.top"):
        with pytest.raises(OSError, match=DENIED):
            publish(f"{server}{'&' if '?' in server else '?'}table={other}")
    assert shop.ask(f"SELECT * FROM {schema}.orders") == [(1,)]


def test_the_role_reads_of_the_shop_what_it_was_granted_and_changes_none_of_it(shop: Shop) -> None:
    schema = shop.role.replace("pipeline", "shop")
    shop.ask(f"GRANT USAGE ON SCHEMA {schema} TO {shop.role}")
    shop.ask(f"GRANT SELECT ON {schema}.items TO {shop.role}")
    server = shop.as_role(shop.role)

    def rows(name: str) -> list[Any]:
        source = open_table(
            f"{server}{'&' if '?' in server else '?'}table={name}",
            setting="export.eligible_items",
            as_of=MOMENT,
        )
        return [row for batch in source.batches(source.parts[0], ["item_id"]) for row in batch.to_pylist()]

    assert rows(f"{schema}.items") == rows(f"{schema}.ITEMS") == [{"item_id": "a"}]
    with pytest.raises(BadSettings, match=DENIED):
        rows(f"{schema}.orders")


def test_the_upsert_needs_no_more_than_that(shop: Shop, tmp_path: Path) -> None:
    publish(str(tmp_path / "table"))
    server = shop.as_role(shop.role)
    to = f"{server}{'&' if '?' in server else '?'}table=copied"
    assert upsert(str(tmp_path / "table"), to)["rows"] == 1
    assert shop.ask(f"SELECT user_id, item_id FROM {shop.role}.copied") == [("u", "a")]


RESERVED = ("user", "order", "select", "table", "Order", "all", "_", "a" * 30)
NO_NAMES = (
    "", " ", "a b", "a;b", "x; DROP TABLE guard", 'a"b', 'a"; DROP TABLE guard; --', "a'b", "a--b", "a/*b*/", "é",
    "a.b.c", ".a", "a.", "$1", "%s", "1a", "a" * 31, "a\0b", "a\nb", "a\\b", "a(b)", "pg_sleep(1)", "a,guard",
)  # fmt: skip


def addressed(server: str, name: str) -> str:
    return f"{server}{'&' if '?' in server else '?'}table={quote(name, safe='')}"


def database(server: str) -> str:
    """A new database of the server."""
    name = f"names_{uuid.uuid4().hex[:8]}"
    with dbapi.connect(server, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")


@pytest.mark.parametrize("name", RESERVED)
def test_a_name_that_is_a_word_of_sql_is_a_table_as_any_other(
    postgres: str, tmp_path: Path, name: str
) -> None:
    url = addressed(database(postgres), name)
    publish(url)
    assert Recommendations(url).users() == 1
    url = addressed(database(postgres), name.lower())
    publish(str(tmp_path / "table"))
    assert upsert(str(tmp_path / "table"), url)["rows"] == 1
    source = open_table(url, setting="export.eligible_items", as_of=MOMENT)
    assert "item_id" in source.schema(source.parts[0]).names


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_is_none_is_refused_before_it_reaches_the_database(
    postgres: str, tmp_path: Path, name: str
) -> None:
    publish(str(tmp_path / "table"))
    url = addressed(postgres, name)
    if name:  # without one it is called recommendations
        with pytest.raises(BadSettings, match="is no name of a table"):
            open_tables(url)
    if len(name) < 31 or not name.isalpha():  # of what is only too long, others take more
        with pytest.raises(BadSettings, match=r"name a table|is no name of a table"):
            upsert(str(tmp_path / "table"), url)
        with pytest.raises(BadSettings, match="is no name of a table"):
            open_table(url, setting="export.eligible_items", as_of=MOMENT)
