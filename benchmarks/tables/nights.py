"""What became of many nights, as Markdown."""

from __future__ import annotations

from pathlib import Path

from tables.markdown import RESULTS, read_report, table


def nights(folder: Path = RESULTS) -> str:
    """What the simulation's nights came to, in a sentence."""
    report = read_report(folder / "simulate.json")
    if not report:
        return ""
    reader = report["reader"]
    return (
        f"{report['nights']} nights in {report['seconds'] / 60:.0f} minutes ({report['date']}, "
        f"{report['machine']}): {report['published']} publishes, {len(report['refused'])} refusals; "
        f"the consumer read the table {reader['reads']:,} times and saw {reader['versions']} versions, "
        f"{len(reader['errors'])} errors, {len(reader['torn'])} half tables, {len(reader['stale'])} stale ones."
    )


def session(folder: Path = RESULTS) -> str:
    """What was typed at the simulation's table, and what it answered."""
    blocks = []
    for each in read_report(folder / "simulate.json").get("session", []):
        prompt = "$ " if each["kind"] == "shell" else ""
        language = "python" if each["kind"] == "python" else "console"
        if language == "python":
            blocks.append(f"```python\n{each['typed']}\n```\n\n```\n{each['answer']}\n```")
        else:
            blocks.append(f"```{language}\n{prompt}{each['typed']}\n{each['answer']}\n```")
    return "\n\n".join(blocks)


TRIALS = (
    ("kills of a step, before its changes to files and at random moments", "kill_points_tried", "survived"),
    ("connections cut, to S3 and to PostgreSQL", "cuts_tried", "cuts_survived"),
    ("inputs, settings and addresses ([input.md](input.md))", "inputs_tried", "as_documented"),
)
"""What is tried, and the counts of it: how often, and how often it ended as promised."""


def faults(folder: Path = RESULTS) -> str:
    """What was tried to break a night, how often, and how often it held."""
    report = read_report(folder / "faults.json")
    rows = [
        [what, f"{report[tried]:,}", f"{report[held]:,}"] for what, tried, held in TRIALS if tried in report
    ]
    if planted := report.get("secrets_planted"):
        hidden = planted - report["secrets_found"] - report["secrets_kept_by_airflow"]
        rows.append(
            ["passwords planted, and looked for in all that was written", f"{planted:,}", f"{hidden:,}"]
        )
    found = table(["tried", "times", "ended as promised"], rows)
    of_points = "every point" if report["one_point_in"] == 1 else f"one point in {report['one_point_in']}"
    about = f"Of one whole run of `make test-faults`, {report['date']}; of the points of a step {of_points} was tried."
    return f"{found}\n\n{about}"
