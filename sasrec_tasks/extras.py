"""What is installed only if asked for: `pip install 'sasrec-tasks[train]'`."""

from __future__ import annotations

EXTRAS = {
    "torch": ("PyTorch", "train"),
    "safetensors": ("safetensors", "train"),
    "pandera": ("pandera", "contract"),
    "yaml": ("PyYAML", "contract"),
    "adbc_driver_manager": ("PostgreSQL's driver", "postgres"),
    "adbc_driver_postgresql": ("PostgreSQL's driver", "postgres"),
    "s3fs": ("s3fs", "s3"),
    "ray": ("Ray", "ray"),
    "matplotlib": ("matplotlib", "pictures"),
}
"""Module → what people call it, and the extra that installs it."""


def needs(module: str) -> str:
    """What to tell somebody who lacks a module; "" of one that no extra installs.

    >>> needs("torch.nn")
    "needs PyTorch: pip install 'sasrec-tasks[train]'"
    >>> needs("yaml")
    "needs PyYAML: pip install 'sasrec-tasks[contract]', or [train] if it shall train, too"
    """
    called, extra = EXTRAS.get(module.partition(".")[0], ("", ""))
    more = ", or [train] if it shall train, too" if extra == "contract" else ""
    return called and f"needs {called}: pip install 'sasrec-tasks[{extra}]'{more}"
