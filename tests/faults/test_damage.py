"""Each file of a run's folder in turn cut, flipped or gone before the next task: an error that says what to do, or the
work is done again. Never a wrong table."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_state
import pytest
from fault_checks import differences, listed, not_whole
from fault_figures import EVERY, some
from fault_night import START, Night

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut": lambda content: content[: len(content) // 2],
    "bit": lambda content: flipped(content, len(content) // 2, 1 << 3),
    "digit": lambda content: flipped(content, digit(content), 1),
    "gone": lambda content: None,
}
CLEAR = re.compile(
    r"run `?\w+`? again|run it first|start the run again|restore|is to be run again|begin with `ingest`"
)


def flipped(content: bytes, place: int, bits: int) -> bytes:
    return content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]


def digit(content: bytes) -> int:
    """Place of a digit in the last third, or of the byte that stands there: JSON stays JSON, of another number."""
    found = re.search(rb"\d", content[2 * len(content) // 3 :])
    return 2 * len(content) // 3 + (found.start() if found else 0)


def files_of(night: Night) -> set[str]:
    """Files of tonight's run, that hold anything."""
    run = night.run_folder()
    return {
        str(file.relative_to(run)) for file in run.rglob("*") if file.is_file() and file.stat().st_size > 0
    }


def cases(night: Night) -> list[tuple[str, str]]:
    """A step, and a file that the step before it has written; and all of them before the last."""
    found, known = [], set[str]()
    for step in night.tasks:
        night.restore(step)
        found += [(step, file) for file in sorted(files_of(night) - known)]
        known |= files_of(night)
    last = night.tasks[-1]
    found += [(last, file) for file in sorted(known) if (last, file) not in found]
    return [*some(found)]


def harmed(night: Night, step: str, file: str, damage: str, *, mend: bool) -> list[str]:
    """Damage a file, do the next step: what is wrong then. Where it fails, all is run again, if it is to be mended."""
    night.restore(step)
    before = night.served()
    path = night.run_folder() / file
    content = DAMAGES[damage](path.read_bytes())
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    after = night.step(step, watch=None)
    wrong = list(not_whole(night, before, night.after[step]["served"]))
    if after.error:
        if not {"OSError", "BadSettings", "BadData"} & set(after.kinds) or not CLEAR.search(after.error):
            wrong.append(f"unclear: {after.error}")
        if mend:
            night.well(START, watch=None)
            again = night.call("fault_calls:run_from", str(night.run_folder()), "ingest", watch=None)
            if again.error:
                wrong.append(f"run again: {again.error}")
            states = (night.state(last=True), night.after["export"])
            wrong += differences(*map(but_for_the_table_of_runs, states))
    elif after.status != 0:
        wrong.append(f"ended with {after.status}: {after.log[-2000:]}")
    else:
        # what was damaged may stay so, if nobody has read it
        found, expected = (
            {**state, "files": Counter[str](), "artifacts": {"tonight": without(state, file)}}
            for state in (night.state(last=True), night.after[step])
        )
        wrong += differences(found, expected)
    return [f"{damage} {file} before {step}: {problem}" for problem in wrong]


def but_for_the_table_of_runs(state: fault_state.State) -> fault_state.State:
    """Which has one version more where it was told that the run had failed."""
    kept = {file: times for file, times in state["files"].items() if not file.startswith("table_runs/")}
    return {**state, "files": Counter(kept)}


def without(state: fault_state.State, file: str) -> dict[str, Any]:
    return {name: value for name, value in state["artifacts"]["tonight"].items() if name != file}


@pytest.mark.faults
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_never_leads_to_a_wrong_table(night: Night, damage: str) -> None:
    tried = cases(night)
    if os.environ.get(EVERY, "1") == "1":
        assert {Path(file).parts[0] for _, file in tried} >= {"settings.json", *night.tasks[:-1]}
    problems = [
        problem for step, file in tried for problem in harmed(night, step, file, damage, mend=damage == "cut")
    ]
    assert not problems, listed(problems, len(tried))
