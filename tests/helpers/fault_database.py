"""A database of PostgreSQL whose state can be kept and put back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from adbc_driver_postgresql import dbapi


@dataclass
class Database:
    """A database of a server of its own name, made by copying another.

    Args:
        server: URL of the server.
    """

    server: str
    name: str = "night"
    copies: int = 0

    def __post_init__(self) -> None:
        self._execute(f"CREATE DATABASE {self.name}")

    @property
    def url(self) -> str:
        """Its URL."""
        return urlunsplit(urlsplit(self.server)._replace(path=f"/{self.name}"))

    def keep(self) -> SavedDatabase:
        """Keep it as it is now."""
        self.copies += 1
        saved = SavedDatabase(self, f"{self.name}_{self.copies}")
        self._execute(f"CREATE DATABASE {saved.name} TEMPLATE {self.name}")
        return saved

    def listing(self) -> list[str]:
        """Names of its tables and views, without what is drawn by lot."""
        with dbapi.connect(self.url) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT relname FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid"
                " WHERE nspname = 'public' AND relkind IN ('r', 'v')"
            )
            return sorted(re.sub(r"_[0-9a-f]{8}$", "_PLACE", name) for (name,) in cursor.fetchall())

    def _execute(self, statement: str) -> None:
        with dbapi.connect(self.server, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(statement)


@dataclass(frozen=True)
class SavedDatabase:
    """A copy."""

    of: Database
    name: str

    def restore(self) -> None:
        """Make the database what it was; who is still connected to it is thrown out."""
        self.of._execute(f"DROP DATABASE {self.of.name} WITH (FORCE)")
        self.of._execute(f"CREATE DATABASE {self.of.name} TEMPLATE {self.name}")

    def forget(self) -> None:
        """Keep it no longer."""
        self.of._execute(f"DROP DATABASE {self.name}")
