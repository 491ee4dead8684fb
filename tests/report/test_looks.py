"""The pages in Chromium, as they are read: in the dark, on a phone, with a keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import chromium
import pytest
from chromium import Page

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.report import content, nights, page

pytestmark = pytest.mark.stack

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
READERS = {
    f"{name}, {scheme}": {**how, "color_scheme": scheme}
    for name, how in (("desk", {}), ("phone", PHONE))
    for scheme in ("light", "dark")
}

TEXTS = """
() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const linear = part => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = each => {
    for (; each; each = each.parentElement) {
      const colour = numbers(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const texts = [];
  for (const each of document.querySelectorAll("body *")) {
    const own = [...each.childNodes].filter(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const box = each.getBoundingClientRect(), style = getComputedStyle(each);
    if (!own.length || !box.width || box.right < 0 || style.visibility === "hidden") continue;
    const ink = numbers(each instanceof SVGElement ? style.fill : style.color);
    const [light, dark] = [luminance(ink), luminance(behind(each))].sort((a, b) => b - a);
    texts.push({text: own[0].data.trim().slice(0, 40), contrast: (light + 0.05) / (dark + 0.05)});
  }
  return texts;
}
"""
"""What is written on the page, each with its contrast as WCAG 2.1 defines it (there "relative luminance")."""

FOCUSABLE = """
[...document.querySelectorAll('a[href], summary, [tabindex="0"]')]
  .filter(each => each.checkVisibility() && (each.matches("summary") || !each.closest("details:not([open])")))
""".strip()
AT = f"""
() => {{
  const each = document.activeElement, style = getComputedStyle(each), box = each.getBoundingClientRect();
  return {{
    number: {FOCUSABLE}.indexOf(each),
    text: each.textContent.trim().slice(0, 40),
    marked: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    shown: box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight,
  }};
}}
"""
"""Which of them has the focus, and whether one sees it."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, finished: Any) -> dict[str, str]:
    """Page → its address: of a run, and of the nights."""
    folder = tmp_path_factory.mktemp("pages")
    waiting = nights.Unfinished(run_id="second", at=None, state="running")
    written = {
        "run": page.run_page(content.read(RunStore(f"{finished.store}/first"), None), "nights.html"),
        "nights": page.nights_page(nights.read("dag", finished.table, finished.store, [waiting])),
    }
    for name, html in written.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in written}


@pytest.fixture(scope="module", params=READERS)
def reader(request: pytest.FixtureRequest) -> Iterator[Page]:
    """A browser as somebody has it."""
    with chromium.page("file:///", **READERS[request.param]) as browser:
        yield browser


@pytest.mark.parametrize("name", ["run", "nights"])
def test_whatever_is_written_can_be_read(reader: Page, pages: dict[str, str], name: str) -> None:
    reader.goto(pages[name])
    texts = reader.evaluate(TEXTS)
    assert len(texts) > 20
    assert [each for each in texts if each["contrast"] < 4.5] == []  # WCAG 2.1, level AA


@pytest.mark.parametrize("name", ["run", "nights"])
def test_it_is_dark_where_the_reader_s_system_is(reader: Page, pages: dict[str, str], name: str) -> None:
    reader.goto(pages[name])
    dark = reader.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    paper = reader.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(paper) < 64) if dark else (min(paper) > 192)


@pytest.mark.parametrize("name", ["run", "nights"])
def test_nothing_sticks_out_to_the_side(reader: Page, pages: dict[str, str], name: str) -> None:
    reader.goto(pages[name])
    width, shown = reader.evaluate(
        "[document.scrollingElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert width <= shown


@pytest.mark.parametrize("name", ["run", "nights"])
def test_tab_reaches_everything_in_order_and_shows_where_it_is(
    reader: Page, pages: dict[str, str], name: str
) -> None:
    reader.goto(pages[name])
    seen = []
    for _ in range(reader.evaluate(f"{FOCUSABLE}.length")):
        reader.keyboard.press("Tab")
        seen.append(reader.evaluate(AT))
    assert [each["number"] for each in seen] == list(range(len(seen)))
    assert len(seen) >= 3
    assert [each for each in seen if not (each["marked"] and each["shown"])] == []


def test_the_keyboard_skips_to_the_content_and_moves_a_wide_table(
    reader: Page, pages: dict[str, str]
) -> None:
    reader.goto(pages["run"])
    reader.keyboard.press("Tab")
    reader.keyboard.press("Enter")
    assert reader.url.endswith("#content")
    wide = [
        each
        for each in reader.locator(".scroll").all()
        if each.evaluate("each => each.scrollWidth > each.clientWidth")
    ]
    for each in wide[:1]:
        each.focus()
        reader.keyboard.press("ArrowRight")
        reader.wait_for_function("each => each.scrollLeft > 0", arg=each.element_handle())
    viewport = reader.viewport_size
    assert wide or (viewport and viewport["width"] > 1000)
