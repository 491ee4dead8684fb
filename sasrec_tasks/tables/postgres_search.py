"""A search for users in the tables that hold recommendations in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sasrec_tasks.mentions import Mentions
from sasrec_tasks.traces import Searched

OF_JSON = "(SELECT json_array_elements_text($1::text::json))"
"""Users: one value, as a statement takes 65,535 at most; JSON, as the driver's arrays of no element have no type."""

COLUMNS = """
SELECT quote_ident(table_schema) || '.' || quote_ident(table_name) AS name, column_name::text AS column
FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_schema = coalesce(nullif($1, ''), current_schema()) AND table_type = 'BASE TABLE'
    AND table_name ~ $2 AND column_name IN ('USER_ID', 'metadata') ORDER BY 1
"""

STATISTICS = """
SELECT DISTINCT tablename::text AS name FROM pg_stats, json_array_elements_text($3::text::json) AS theirs(id)
WHERE schemaname = coalesce(nullif($1, ''), current_schema()) AND tablename ~ $2 AND attname = 'USER_ID'
    AND (id = ANY(most_common_vals::text::text[]) OR id = ANY(histogram_bounds::text::text[]))
"""


def as_json(users: Collection[str]) -> str:
    """Users as a value that a statement takes."""
    return json.dumps([user for user in users if "\0" not in user])  # which the server takes in no text


def in_tables(cursor: Any, name: str, mentions: Mentions) -> Searched:
    """Look through the rows of all publishes, what versions say of themselves, and the planner's statistics.

    Args:
        name: of the view that consumers read, with its schema if it has one.
    """
    schema, _, view = name.rpartition(".")
    users = as_json(mentions.users)
    cursor.execute(COLUMNS, parameters=(schema, f"^{view}_([0-9]+_[0-9a-f]+|versions)$"))
    columns = cursor.fetch_arrow_table().to_pylist()
    found = []
    for each in columns:
        if each["column"] == "USER_ID":
            cursor.execute(
                f'SELECT count(*) FROM {each["name"]} WHERE "USER_ID" IN {OF_JSON}', parameters=(users,)
            )
            theirs = cursor.fetchone()[0] > 0
        else:
            cursor.execute(f"SELECT metadata FROM {each['name']}")
            texts = cursor.fetch_arrow_table()["metadata"].to_pylist()
            theirs = any(mentions.named_in(text) for text in texts)
        found += [f"{each['name']}: column {each['column']}"] if theirs else []
    cursor.execute(STATISTICS, parameters=(schema, f"^{view}_[0-9]+_[0-9a-f]+$", users))
    found += [f"{row['name']}: the planner's statistics" for row in cursor.fetch_arrow_table().to_pylist()]
    return Searched(tables=len({each["name"] for each in columns}), found=tuple(found))
