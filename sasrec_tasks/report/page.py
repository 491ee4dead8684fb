"""The HTML of the reports: Jinja2 templates that escape whatever is not their own."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sasrec_tasks.item_age import age_name
from sasrec_tasks.listings import printable
from sasrec_tasks.report import figures, nights
from sasrec_tasks.report.content import RunReport
from sasrec_tasks.report.nights import NightsReport
from sasrec_tasks.roots import places

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""Content security policy of every page: no script, and nothing from elsewhere."""

PARQUET, CONNECTION, POSTGRES = "parquet+", "connection:", ("postgresql://", "postgres://")


def run_page(report: RunReport, nights_link: str = "") -> str:
    """The page of a run.

    Args:
        nights_link: where the page of its nights is, if there is one.
    """
    return (
        _environment()
        .get_template("run.html")
        .render(report=report, nights_link=nights_link, snippets=_snippets(report), figures=figures)
    )


def nights_page(report: NightsReport, run_link: str = "") -> str:
    """The page of the nights of a table.

    Args:
        run_link: what the link to a run's page begins with, if there are such pages; the run id follows.
    """
    return _environment().get_template("nights.html").render(report=report, run_link=run_link, figures=nights)


def message_page(title: str, sentence: str) -> str:
    """A page that only says something."""
    return _environment().get_template("message.html").render(title=title, sentence=sentence)


def prepare() -> None:
    """Compile the templates: the first page is then as fast as the others."""
    for name in ("run.html", "nights.html", "message.html"):
        _environment().get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("sasrec_tasks.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.globals |= {
        "policy": POLICY,
        "style": Markup(  # noqa: S704 - a file of the package
            files("sasrec_tasks.report").joinpath("templates/style.css").read_text("utf-8")
        ),
    }
    environment.filters |= {
        "whole": lambda value: f"{value:,}",
        "decimals": lambda value, digits=4: f"{value:.{digits}f}",
        "short_number": lambda value: f"{value:,.6g}",
        "duration": duration,
        "moment": moment,
        "as_json": lambda value: json.dumps(value, ensure_ascii=False),
        "events": figures.length,
        "days": age_name,
        "percent": lambda value: f"{value:.1%}",
        "metric_name": lambda name: figures.METRICS.get(name, name),
    }
    return environment


def _shown(value: Any) -> Any:
    """Text from outside on one line, without what does not print or turns the direction of what does."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(61.8), duration(3725)
    ('1 min 2 s', '1 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(value: str | datetime | None) -> str:
    """A moment to the minute, in UTC."""
    if value is None:
        return ""
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _snippets(report: RunReport) -> dict[str, str]:
    """What reads the version that a run published: title → Python."""
    if not report.export or not report.export["published"]:
        return {}
    version, table = report.export["version"], places(report.export["table"])[0]
    user = report.examples[0]["user"] if report.examples else "USER_ID"
    found = {
        "sasrec-tasks": "from sasrec_tasks.tables import Recommendations\n\n"
        f"recommendations = Recommendations({table!r}, version={version})\n"
        f"print(recommendations.for_user({user!r}))"
    }
    if not table.startswith((PARQUET, CONNECTION, *POSTGRES)):
        found["Delta Lake and pandas"] = (
            "from deltalake import DeltaTable\n\n"
            f"table = DeltaTable({table!r}, version={version})\n"
            f'print(table.to_pandas(filters=[("USER_ID", "=", {user!r})]).sort_values("RANK"))'
        )
    return found
