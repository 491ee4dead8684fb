"""Chromium, driven by Playwright: its own where that is installed, else the machine's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("playwright", reason="no Playwright: pip install playwright")

from playwright.sync_api import Locator, Page, expect, sync_playwright

__all__ = ["Locator", "Page", "expect", "keep", "page", "sized"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTH, HEIGHT = 1280, 800
PATIENCE = 60  # seconds, for a machine that does other things too


@contextmanager
def page(address: str, **how: Any) -> Iterator[Page]:
    """An empty page of a browser that is nobody's yet.

    Args:
        address: what paths that it goes to are relative to.
        how: of Playwright's `new_context`, what is not as usual.
    """
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        program = str(own) if own.exists() else next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            pytest.skip("no Chromium: playwright install chromium, or install Debian's package chromium")
        browser = playwright.chromium.launch(executable_path=program)
        usual: dict[str, Any] = {
            "viewport": {"width": WIDTH, "height": HEIGHT},
            "device_scale_factor": 1.5,
            "locale": "en-GB",
            "timezone_id": "UTC",
            "color_scheme": "light",
            "reduced_motion": "reduce",
        }
        context = browser.new_context(base_url=address, **{**usual, **how})
        context.set_default_timeout(1000 * PATIENCE)
        expect.set_options(timeout=1000 * PATIENCE)
        yield context.new_page()
        browser.close()


@contextmanager
def sized(page: Page, *, width: int = WIDTH, height: int = HEIGHT) -> Iterator[None]:
    """A window of another size, in CSS pixels."""
    page.set_viewport_size({"width": width, "height": height})
    try:
        yield
    finally:
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})


def keep(shown: Page | Locator, name: str, folder: Path) -> None:
    """A picture of a page, or of a part of it, where SCREENSHOTS says, else in a folder; in 256 colours.

    Args:
        name: of the file, without `.png`.
    """
    folder = Path(os.environ.get("SCREENSHOTS") or folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.png"
    shown.screenshot(path=file, animations="disabled", caret="hide")
    with Image.open(file) as picture:
        reduced = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    reduced.save(file, optimize=True)
