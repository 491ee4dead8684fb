"""`sasrec-tasks forget`: what is asked, and what is printed of it."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from sasrec_tasks.cli_table import AsJson, TableUrl
from sasrec_tasks.errors import BadSettings

stdout = Console()


def forget(
    user: Annotated[list[str], typer.Option(help="USER_ID; may be repeated.")],
    store: Annotated[
        str, typer.Option(envvar="SASREC_STORE", help="Folder or fsspec URL that holds a folder per run.")
    ] = "",
    table: TableUrl = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing, print where they stand.")
    ] = False,
    new_list: Annotated[
        bool,
        typer.Option(
            "--new-list",
            help="The list of forgotten users that the table names is lost: begin another. Name all who were on it.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take users out of the table, its older versions and the runs' folders, and leave them out from now on.

    Exit status 1 if a search over all files that are left finds them still, and where; the same command goes on.
    """
    from sasrec_tasks import forget as forgetting
    from sasrec_tasks.listings import listed_forgotten

    for name, value in (("store", store), ("table", table)):
        if not value:
            raise BadSettings(f"{name}: not set: give it as --{name}, or as SASREC_{name.upper()}")
    report = forgetting.forget(user, table=table, store=store, dry_run=dry_run, new_list=new_list)
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        stdout.print(listed_forgotten(report))
    if report.searched.found and not dry_run:
        raise typer.Exit(1)
