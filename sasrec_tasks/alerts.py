"""What people are told of a night that went wrong: why, where to look, and what is served meanwhile."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sasrec_tasks.errors import GateRefused
from sasrec_tasks.failures import UNKNOWN
from sasrec_tasks.naming import masked
from sasrec_tasks.roots import places
from sasrec_tasks.tables import open_tables

SHOWN = 2000
"""Characters of a reason; the task's log has all of it."""

UNKNOWN_TABLE = (
    "the table is not known where this was sent: name it in SASREC_TABLE there, too, as Airflow shows no Variable to "
    "what it calls for a deadline"
)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """A message, for whatever carries it."""

    subject: str  # one line
    facts: Mapping[str, str]  # what it is → text of one or several lines

    def as_text(self) -> str:
        """For Slack and what understands its webhooks: there `&`, `<` and `>` have a meaning."""
        lines = [self.subject, *(f"{name}: {text}" for name, text in self.facts.items())]
        return "\n".join(html.escape(line, quote=False) for line in lines)

    def as_html(self) -> str:
        """For e-mail; addresses are links."""
        rows = [
            f"<p><b>{html.escape(name)}</b><br>{_linked(html.escape(text)).replace(chr(10), '<br>')}</p>"
            for name, text in self.facts.items()
        ]
        return "\n".join([f"<h3>{html.escape(self.subject)}</h3>", *rows])


def failed(dag: str, run_id: str, reasons: Mapping[str, str], *, table: str, report: str) -> Alert:
    """Of a run that ended without a publish.

    Args:
        reasons: failed task → class and text of its exception; "" if that is not known.
        table: as the setting `table`; "" if it is not known.
        report: address of the run's report.
    """
    refused = all(reason.startswith(GateRefused.__name__) for reason in reasons.values())
    what = "refused" if refused else f"failed in {', '.join(reasons)}"
    return _alert(
        f"{dag}: {what}, {run_id}",
        "\n".join(f"{task}: {(reason or UNKNOWN)[:SHOWN]}" for task, reason in reasons.items()),
        table=table,
        report=report,
    )


def late(dag: str, run_id: str, state: str, after: timedelta, *, table: str, report: str) -> Alert:
    """Of a run that has not ended in time."""
    hours = after.total_seconds() / 3600
    return _alert(
        f"{dag}: late, {run_id}",
        f"has not ended {hours:g} h after it was queued: it is {state}; a task is at work, or waits for a person",
        table=table,
        report=report,
    )


def served(table: str) -> str:
    """What a table serves now, a line for each if there are several; never an error."""
    return "\n".join(_served(place) for place in places(table)) or UNKNOWN_TABLE


def _alert(subject: str, reason: str, *, table: str, report: str) -> Alert:
    facts = {"Why": reason, "Report": report, "Still served": served(table)}
    return Alert(subject=" ".join(subject.split())[:200], facts=facts)


def _served(place: str) -> str:
    shown = masked(place)  # one with a password is refused to runs, and told all the same
    try:
        newest = next(open_tables(place).published(), None)
    except Exception as error:  # whatever is wrong with the table, the alert goes out
        return f"{shown}: can't be read from here: {masked(str(error))}"
    if newest is None:
        return f"{shown}: nothing, no run has published yet"
    hours = (datetime.now(UTC) - newest.as_of).total_seconds() / 3600
    when = f"{hours:,.0f} h ago" if hours >= 0 else f"{-hours:,.0f} h ahead of this machine's clock"
    return (
        f"{shown}: version {newest.version} of run {newest.run_id}, events before "
        f"{newest.as_of:%Y-%m-%d %H:%M} UTC ({when})"
    )


def _linked(text: str) -> str:
    return f'<a href="{text}">{text}</a>' if text.startswith(("http://", "https://")) else text
