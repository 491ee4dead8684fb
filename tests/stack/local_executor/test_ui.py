"""Airflow's UI in Chromium, as somebody sees it who starts a night by hand and looks at what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest
from chromium import Locator, Page, expect, keep, sized
from stack_night import USERS, Night

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.naming import form
from sasrec_tasks.pipeline import LAST, REFIT, TASKS
from sasrec_tasks.tables import Recommendations

pytestmark = pytest.mark.stack

DAG = "sasrec_nightly"
TALL = 1100  # pixels that show a page within a page
BAD = {"train.epochs": 1, "train.learning_rate": 1e-9}  # a model that knows nothing


@pytest.fixture(scope="module")
def page(local: Night) -> Iterator[Page]:
    """A browser in which `admin` has logged in, who had mistyped the password first."""
    errors: list[str] = []
    with chromium.page(f"http://127.0.0.1:{local.stack.ports['8080']}") as page:
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"/dags/{DAG}")
        for password, then in (
            ("mistyped", page.get_by_text("Invalid credentials")),
            (local.env["AIRFLOW_ADMIN_PASSWORD"], page.get_by_role("heading", name=DAG)),
        ):
            page.get_by_label("Username").fill("admin")
            page.get_by_label("Password").fill(password)
            page.get_by_role("button", name="Sign in").click()
            expect(then.first).to_be_visible()
        yield page
    assert errors == []


@pytest.fixture
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go if SCREENSHOTS does not say so."""
    return tmp_path_factory.getbasetemp() / "screenshots"


def store_of(local: Night, run: str) -> RunStore:
    """A run's folder, which is a volume."""
    return RunStore.of(str(local.stack.folder / "volumes" / "runs"), run)


# The trigger form


class Form:
    """The trigger form, opened anew."""

    def __init__(self, page: Page) -> None:
        page.goto(f"/dags/{DAG}")
        page.get_by_role("button", name="Trigger Dag").click()
        self.page, self.dialog = page, page.get_by_role("dialog")
        self.submit = self.dialog.get_by_role("button", name="Trigger", exact=True)

    def open(self, section: str) -> None:
        """Unfold a section, and with it fold the one before."""
        heading = self.dialog.get_by_role("button", name=section, exact=True)
        heading.click()
        expect(heading).to_have_attribute("aria-expanded", "true")

    def row(self, title: str) -> Locator:
        """What the open section has on a setting: its title, what it is entered in, its help."""
        label = self.page.locator("label", has_text=re.compile(rf"^{re.escape(title)}\s*\*?\s*$"))
        return self.dialog.locator("[data-scope=field][data-part=root]:visible").filter(has=label)

    def number(self, title: str) -> Locator:
        """What a number is entered in."""
        return self.row(title).get_by_role("spinbutton")


@pytest.fixture
def opened(page: Page) -> Form:
    return Form(page)


SETTINGS = {name: (default, schema) for name, default, schema in form()}
SECTIONS = list(dict.fromkeys(schema["section"] for _, schema in SETTINGS.values()))


@pytest.mark.parametrize("section", SECTIONS)
def test_each_setting_is_in_its_section_with_help_default_and_bounds(opened: Form, section: str) -> None:
    opened.open(section)
    for default, schema in SETTINGS.values():
        if schema["section"] == section:
            row = opened.row(schema["title"])
            expect(row).to_contain_text(schema["description_md"].replace("`", ""))
            check_entry(opened, row, default, schema)


def check_entry(opened: Form, row: Locator, default: Any, schema: dict[str, Any]) -> None:
    """That a setting is entered in what its type asks for, and begins with its default."""
    kinds = {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])
    if "enum" in schema:
        expect(row).to_contain_text(default)
        row.get_by_role("combobox").click()
        options = opened.page.get_by_role("option")
        expect(options).to_have_text(schema["enum"])
        options.get_by_text(default, exact=True).click()
    elif "boolean" in kinds:
        expect(row.get_by_role("checkbox")).to_be_checked(checked=default)
    elif kinds & {"integer", "number"}:
        number = row.get_by_role("spinbutton")
        expect(number).to_have_value("" if default is None else f"{default:.15g}")
        for bound, attribute in (("minimum", "aria-valuemin"), ("maximum", "aria-valuemax")):
            if bound in schema:
                expect(number).to_have_attribute(attribute, f"{schema[bound]:.15g}")
    elif schema.get("format") == "date-time":
        expect(row.get_by_test_id("datetime-input")).to_be_visible()
    elif "object" in kinds:
        expect(row.locator(".monaco-editor")).to_be_visible()
    else:
        expect(row.get_by_role("textbox")).to_have_value(default or "")


def test_a_moment_is_picked_in_a_calendar(opened: Form) -> None:
    opened.open("data")
    chosen = opened.row("As of").get_by_test_id("datetime-input")
    expect(chosen).to_have_text("Select date and time")
    chosen.click()
    calendar = opened.page.locator("[data-scope=popover][data-part=content]:visible")
    calendar.get_by_text("15", exact=True).click()
    expect(chosen).to_contain_text("15")


def test_zero_epochs_become_one_before_they_leave_the_form(opened: Form) -> None:
    opened.open("training")
    epochs = opened.number("Epochs")
    epochs.fill("0")
    epochs.press("Tab")
    expect(epochs).to_have_value("1")
    epochs.fill("0")
    submitted = f"**/dags/{DAG}/dagRuns"
    opened.page.route(submitted, lambda route: route.abort())
    with opened.page.expect_request(lambda request: request.method == "POST") as posted:
        opened.submit.click()
    assert posted.value.post_data_json["conf"]["train.epochs"] == 1
    opened.page.unroute(submitted)


def test_what_must_be_there_can_not_be_left_out(opened: Form) -> None:
    opened.open("training")
    opened.number("Epochs").fill("")
    expect(opened.row("Epochs")).to_contain_text("This field is required")
    expect(opened.submit).to_be_disabled()


def test_what_the_form_lets_through_the_server_refuses_with_a_sentence(local: Night, opened: Form) -> None:
    before = local.airflow.runs()
    opened.open("training")
    opened.number("Epochs").fill("2.5")
    opened.submit.click()
    expect(opened.dialog).to_contain_text(
        "Invalid input for param train.epochs: 2.5 is not of type 'integer'"
    )
    assert local.airflow.runs() == before


def test_rest_refuses_zero_epochs_with_a_sentence(local: Night) -> None:
    before = local.airflow.runs()
    body = {"logical_date": None, "conf": {"train.epochs": 0}}
    answer = local.airflow.api.post(f"/api/v2/dags/{DAG}/dagRuns", json=body)
    assert answer.status_code == 400
    assert "Invalid input for param train.epochs: 0 is less than the minimum of 1" in answer.json()["detail"]
    assert local.airflow.runs() == before


@pytest.fixture(scope="module")
def by_form(local: Night, page: Page, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of two epochs that was started by the form, once it has ended."""
    opened = Form(page)
    opened.open("publishing")
    opened.row("Publish anyway").locator("[data-part=control]").click()
    opened.open("training")
    opened.number("Epochs").fill("2")
    opened.number("Epochs").blur()
    opened.dialog.get_by_role("button", name=SECTIONS[0], exact=True).evaluate(
        "each => each.scrollIntoView()"
    )
    keep(page, "form", tmp_path_factory.getbasetemp() / "screenshots")
    with page.expect_response(lambda response: response.request.method == "POST") as answer:
        opened.submit.click()
    run: str = answer.value.json()["dag_run_id"]
    local.airflow.succeeded(run)
    return run


def test_a_run_has_what_was_chosen_in_the_form(local: Night, page: Page, by_form: str) -> None:
    conf = local.airflow.ask("GET", f"dags/{DAG}/dagRuns/{by_form}")["conf"]
    assert conf == {name: default for name, (default, _) in SETTINGS.items()} | {
        "train.epochs": 2,
        "gate.force_publish": True,
    }
    store = store_of(local, by_form)
    assert store.marker("train").summary["epochs"] == 2  # type: ignore[union-attr]
    table = Recommendations(str(local.stack.folder / "volumes" / "table" / "recommendations"))
    assert (table.run_id, table.version, table.users()) == (by_form, 1, USERS)
    page.goto(f"/dags/{DAG}/runs")
    expect(page.locator(f'a[href$="{by_form}"]').first).to_be_visible()


# What a run and the nights look like


def test_the_graph_shows_every_task_and_what_became_of_it(local: Night, page: Page, pictures: Path) -> None:
    with sized(page, width=2000, height=300):  # room for a row of twelve
        page.goto(f"/dags/{DAG}/runs/{local.run}")
        page.get_by_role("button", name="Show Graph").click()
        graph = page.locator(".react-flow")
        for task, state in local.airflow.tasks(local.run).items():
            node = graph.locator(f'.react-flow__node[data-id="{task}"]')
            expect(node).to_contain_text(task)
            expect(node).to_contain_text(state, ignore_case=True)
        graph.locator(".react-flow__minimap").evaluate("each => each.style.display = 'none'")  # covers tasks
        keep(graph, "graph", pictures)
        page.get_by_role("button", name="Show Grid").click()


def test_what_a_task_hands_on_is_shown(local: Night, page: Page) -> None:
    page.goto(f"/dags/{DAG}/runs/{local.run}/tasks/ingest/xcom")
    for key in ("run", "return_value"):
        expect(page.get_by_role("cell", name=key, exact=True)).to_be_visible()
    folder = page.get_by_role("row").filter(has=page.get_by_role("cell", name="run", exact=True))
    expect(folder).to_contain_text(f"/{local.run}")


def test_the_dag_s_documentation_renders(page: Page) -> None:
    page.goto(f"/dags/{DAG}")
    page.get_by_role("button", name="Dag Docs").click()
    shown = page.get_by_role("dialog")
    expect(shown.get_by_role("heading", name="SASRec nightly")).to_be_visible()
    for task in (*TASKS, REFIT, LAST):  # a table, not its Markdown
        expect(shown.get_by_role("cell", name=task, exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    expect(shown).not_to_be_visible()


def test_the_report_of_a_run_is_a_click_away(local: Night, page: Page, pictures: Path) -> None:
    page.goto(f"/dags/{DAG}/runs/{local.run}")
    page.get_by_role("link", name="Report", exact=True).click()
    report = page.frame_locator("iframe[title=Report]")
    expect(report.locator(".status")).to_contain_text("published")
    expect(report.get_by_role("heading", level=1)).to_contain_text(local.run)
    metrics = store_of(local, local.run).read_json("evaluate", "metrics.json")
    expect(report.locator("#metrics")).to_contain_text(f"{metrics['full']['ndcg@10']:.4f}")
    for picture in report.locator("#metrics svg, #training svg").all():
        box = picture.bounding_box()
        assert box
        assert min(box["width"], box["height"]) > 50
    with sized(page, height=TALL):
        keep(page, "report", pictures)
    report.get_by_role("link", name="All nights").click()
    expect(report.get_by_role("heading", level=1)).to_contain_text(f"Nights of {DAG}")


def test_the_nights_are_a_click_away_refused_ones_with_their_reason(
    local: Night, page: Page, by_form: str, pictures: Path
) -> None:
    refused = local.airflow.trigger(BAD)
    assert local.airflow.ended(refused) == {refused: "failed"}
    page.goto(f"/dags/{DAG}")
    page.get_by_role("link", name="Nights", exact=True).click()
    nights = page.frame_locator("iframe[title=Nights]")
    for run, ending in ((local.run, "published"), (by_form, "published"), (refused, "refused")):
        expect(nights.locator("#runs tr").filter(has_text=run)).to_contain_text(ending)
    why = nights.locator("#refusals tr").filter(has_text=refused)
    expect(why).to_contain_text("not better than popularity")
    with sized(page, height=TALL):
        keep(page, "nights", pictures)
    why.get_by_role("link").click()
    expect(nights.get_by_role("heading", level=1)).to_contain_text(refused)


def test_source_and_table_are_in_the_assets_view(page: Page, by_form: str, pictures: Path) -> None:
    page.goto("/assets")
    expect(page.get_by_role("link", name="sasrec_interactions")).to_be_visible()
    page.get_by_role("link", name="sasrec_recommendations").click()
    for dag in (DAG, "sasrec_rollback", "recommendations_digest", "recommendations_upsert"):
        expect(page.locator(".react-flow__node").filter(has_text=dag)).to_be_visible()
    expect(page.get_by_text("2 Asset Events").first).to_be_visible()
    keep(page, "assets", pictures)
