"""What deltalake's errors say: a tree of causes in colours, over several lines, and not of which table."""

from __future__ import annotations

import re

COLOUR = re.compile(r"\x1b\[\d*m")


def cause(error: Exception) -> str:
    """The whole tree in one line, as it is drawn from top to bottom."""
    lines = COLOUR.sub("", str(error)).replace("↳", "").splitlines()
    return ": ".join(line.strip() for line in lines if line.strip())
