"""The report of a run: what is there, so far as the run has come, whatever its ids look like."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from sasrec_tasks import pipeline, run_folders
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadData, GateRefused
from sasrec_tasks.item_age import age_name
from sasrec_tasks.pipeline import TASKS, run_task
from sasrec_tasks.report import content, nights, page
from sasrec_tasks.report.status import Scheduled, TaskState
from sasrec_tasks.tables import open_tables

HOSTILE = "<script>alert(1)</script>\"'&\u202e\u200f\x01{{ 7 * 7 }} "


def written(store: RunStore, scheduled: Scheduled | None = None) -> str:
    return page.run_page(content.read(store, scheduled), "nights")


def parsed(html: str) -> ElementTree.Element:
    """The page as XML: a parser that forgives nothing."""
    assert html.startswith("<!DOCTYPE html>\n")
    return ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>\n"))


def said(html: str) -> str:
    """What a reader sees, blanks made one."""
    body = parsed(html).find("body")
    assert body is not None
    return " ".join(" ".join(body.itertext()).split())


@pytest.fixture(scope="module")
def store(finished: Any) -> RunStore:
    return RunStore(f"{finished.store}/first")


@pytest.fixture(scope="module")
def html(store: RunStore) -> str:
    return written(store)


@pytest.fixture
def hostile(place: Any, chains: Any) -> RunStore:
    """A run in which every id, and the path of the source, is hostile."""
    events = chains()
    for column, name in ((0, "USER_ID"), (1, "ITEM_ID")):
        odd = pa.array([f"{HOSTILE}{value}" for value in events[name].to_pylist()])
        events = events.set_column(column, name, odd)
    bad = events.slice(0, 3).set_column(2, "OUTCOME", pa.array([float("nan")] * 3))
    place.source = str(place.folder / "<script>alert(2)</script>.parquet".replace("/", ":"))
    place.write(pa.concat_tables([events, bad]))
    run: RunStore = place.run("run")
    return run


def cells_of_rows(table: ElementTree.Element) -> list[int]:
    """How many columns each row has, with those that cells above reach down to."""
    widths: list[int] = []
    from_above: Counter[int] = Counter()
    for number, row in enumerate(table.iter("tr")):
        widths.append(len(row) + from_above[number])
        for cell in row:
            for below in range(1, int(cell.get("rowspan", "1"))):
                from_above[number + below] += 1
    return widths


# Content


def test_a_published_run_has_every_part(html: str, store: RunStore) -> None:
    text = said(html)
    sections = {section.get("id") for section in parsed(html).iter("section")}
    assert sections == {
        "gate", "metrics", "training", "lengths", "ages", "examples", "data", "tasks", "table", "settings",
    }  # fmt: skip
    assert "published Version 0 of" in text
    for rule in store.read_json("gate", "verdict.json")["rules"]:
        assert f"{rule['rule']} {rule['outcome']} {rule['reason'].removeprefix(rule['rule'] + ': ')}" in text
    for task in TASKS:
        marker = store.marker(task)
        assert marker
        assert f"{task} done {marker.seconds:,.1f} {marker.peak_rss_mb:,}" in text


def test_metrics_stand_with_their_intervals_beside_the_baselines(html: str, store: RunStore) -> None:
    text, metrics = said(html), store.read_json("evaluate", "metrics.json")
    for figures in (metrics, *metrics["baselines"].values()):
        for protocol in ("full", "full_with_seen", "sampled"):
            for metric in ("hr@10", "ndcg@10", "mrr"):
                low, high = figures[protocol]["ci95"][metric]
                assert f"{figures[protocol][metric]:.4f} {low:.4f}–{high:.4f}" in text


def test_the_champion_stands_beside_the_model(place: Any) -> None:
    place.run("first", {"as_of": "2024-02-01"})
    second = place.run("second", {"as_of": "2024-02-02"})
    champion = second.read_json("gate", "verdict.json")["champion"]
    figure = champion["metrics"]["full"]["ndcg@10"]
    html = written(second)
    assert f"champion first {champion['metrics']['full']['hr@10']:.4f}" in said(html)
    assert f">champion {figure:.4f}<" in html  # in the picture


def test_the_curve_marks_the_best_epoch(html: str, store: RunStore) -> None:
    training = store.marker("train")
    assert training
    best, value = training.summary["best_epoch"], training.summary["metric"]
    assert f"best {value:.4f}, epoch {best}" in said(html)
    assert f"{best} (best)" in said(html)


@pytest.fixture(scope="module")
def ages(new_items_every_day: RunStore) -> ElementTree.Element:
    """The section on the age of items, of a run with items of several ages."""
    (found,) = parsed(written(new_items_every_day)).findall(".//section[@id='ages']")
    return found


def test_what_becomes_of_new_items_is_told_beside_the_old_ones(
    ages: ElementTree.Element, new_items_every_day: RunStore
) -> None:
    metrics = new_items_every_day.read_json("evaluate", "metrics.json")
    buckets = [bucket for bucket in metrics["by_item_age"] if bucket["items"]]
    assert len(buckets) > 2
    rows = [[" ".join("".join(cell.itertext()).split()) for cell in row] for row in ages.iter("tr")][1:]
    names = [age_name(bucket["item_age_days"]) for bucket in buckets]
    assert [row[0] for row in rows] == [*names, "no training event"]
    for row, bucket in zip(rows, [*buckets, metrics["never_trained_on"]], strict=True):
        of = (bucket, bucket["baselines"]["recent_popularity"], bucket["baselines"]["popularity"])
        assert row[1:] == [
            f"{bucket['items']:,}",
            f"{bucket['share_of_catalogue']:.1%}",
            f"{bucket['share_of_recent_events']:.1%}",
            f"{bucket['share_of_recommendations']['model']:.1%}",
            f"{bucket['users']:,}",
            *(f"{each['full']['hr@10']:.4f}" if bucket["users"] else "" for each in of),
        ]


def test_of_what_is_recommended_each_place_that_is_not_the_model_s_is_marked(
    place: Any, new_items_every_day: RunStore
) -> None:
    place.source = new_items_every_day.settings().source
    store = place.run("run", {"export.new_item_days": 30, "gate.force_publish": True, "train.epochs": 1})
    origins = [row["origin"] for each in content.read(store, None).examples for row in each["served"]]
    marks = Counter(re.findall(r", (\w+)</small>", written(store)))
    assert marks == Counter(origin for origin in origins if origin != "model")
    assert marks["new"] > 0


def test_the_pictures_of_item_ages_show_what_the_table_says(
    ages: ElementTree.Element, new_items_every_day: RunStore
) -> None:
    metrics = new_items_every_day.read_json("evaluate", "metrics.json")
    shares, rates = ages.iter("svg")
    heights = {title.text or "": float(bar.get("height", "")) for bar, title in hinted(shares)}
    assert len(heights) == 3 * sum(bucket["items"] > 0 for bucket in metrics["by_item_age"])
    tallest = max(heights, key=heights.__getitem__)
    for bucket in metrics["by_item_age"]:
        if not bucket["items"]:
            continue
        name, share = age_name(bucket["item_age_days"]), 100 * bucket["share_of_recommendations"]["model"]
        height = heights[f"{name} days: top 10 lists {share:.1f}%"]
        highest = float(tallest.rpartition(" ")[2].rstrip("%"))
        assert height == pytest.approx(heights[tallest] * share / highest, abs=0.3)
    with_users = [bucket for bucket in metrics["by_item_age"] if bucket["users"]]
    assert {title.text for _, title in hinted(rates)} >= {
        f"{age_name(bucket['item_age_days'])} days: this run {bucket['full']['hr@10']:.4f}"
        for bucket in with_users
    }


def hinted(picture: ElementTree.Element) -> list[tuple[ElementTree.Element, ElementTree.Element]]:
    """Bars with what is shown where the pointer rests on them."""
    return [(bar, title) for bar in picture.iter("rect") if (title := bar.find("title")) is not None]


def test_a_run_whose_items_are_all_of_one_age_has_no_picture_of_it(html: str) -> None:
    (section,) = parsed(html).findall(".//section[@id='ages']")
    assert not list(section.iter("svg"))
    assert [row[0].text for row in section.iter("tr")][1:][0] == "90 and more"


def test_examples_are_what_is_served_after_what_was_done_last(
    html: str, store: RunStore, finished: Any
) -> None:
    report = content.read(store)
    assert report.examples_by == "export"
    assert len(report.examples) == 5
    lengths = [example["events"] for example in report.examples]
    assert lengths == sorted(lengths)
    source = pa.parquet.read_table(finished.source).to_pandas().sort_values("TIMESTAMP", kind="stable")
    for example in report.examples:
        rows = open_tables(finished.table).for_users([example["user"]]).to_pylist()
        assert [row["item"] for row in example["served"]] == [row["ITEM_ID"] for row in rows]
        own = source[example["user"] == source.USER_ID]
        assert example["recent"] == own.ITEM_ID.tolist()[-5:]
        assert example["events"] == len(own)
        assert example["user"] in said(html)


def test_the_snippets_read_the_version(html: str, finished: Any) -> None:
    snippets = ["".join(each.itertext()) for each in parsed(html).iter("pre")]
    assert len(snippets) == 2
    for snippet in snippets:
        assert f"{finished.table!r}, version=0" in snippet
        done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "ITEM_ID" in done.stdout


def test_settings_that_were_chosen_come_first(html: str) -> None:
    text = said(html)
    chosen = text[text.index("Settings that are not the default") : text.index("All settings")]
    assert "train.epochs 6" in chosen
    assert "train.dropout_rate" not in chosen


def test_rejected_rows_are_told_by_reason_and_example(hostile: RunStore) -> None:
    text = said(written(hostile))
    assert "OUTCOME is not a finite number 3" in text


def test_a_refitted_run_has_its_task_and_the_rows_of_the_refitted_model(place: Any) -> None:
    store = place.run("run", {"refit.enabled": True}, upto="gate")
    assert "Next is refit" in content.read(store).status.sentence
    run_task("refit", store.uri)
    run_task("export", store.uri)
    report = content.read(store)
    assert [task.name for task in report.tasks if task.state == "done"] == [*TASKS[:-1], "refit", "export"]
    for example in report.examples:
        rows = open_tables(place.table).for_users([example["user"]])
        assert [row["item"] for row in example["served"]] == rows["ITEM_ID"].to_pylist()


# Runs that were not published


def test_a_refused_run_shows_the_rule_and_what_would_have_been_served(place: Any, bad: Any) -> None:
    with pytest.raises(GateRefused):
        place.run("run", bad)
    store = RunStore(f"{place.store}/run")
    report, text = content.read(store), said(written(store))
    assert report.status.kind == "refused"
    assert "refused The table is left as it is. The run ended at gate." in text
    assert "is not better than popularity's" in text
    assert "These rows are not published." in text
    assert len(report.examples) == 5


def test_a_failed_run_has_what_is_there_and_the_reason(place: Any, chains: Any) -> None:
    events = chains()
    place.write(events.set_column(2, "OUTCOME", pa.array([float("nan")] * len(events))))
    with pytest.raises(BadData) as error:
        place.run("run")
    store = RunStore(f"{place.store}/run")
    text = said(written(store))
    assert content.read(store).status.kind == "failed"
    assert str(error.value) in text
    assert "OUTCOME is not a finite number" in text
    assert "train not begun" in text


def test_a_passing_fault_is_shown_until_a_task_succeeds(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.run("run", upto="ingest")

    def fails(*_: Any) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("sasrec_tasks.validate.run", fails)
        with pytest.raises(OSError, match="full"):
            run_task("validate", store.uri)
    assert "validate: the disk is full" in said(written(store))
    running = Scheduled(state="running", tasks={"validate": TaskState(state="up_for_retry", tries=1)})
    report = content.read(store, running)
    assert (report.status.kind, report.status.reason) == (
        "at work",
        "The last try failed. validate: the disk is full",
    )
    run_task("validate", store.uri)
    assert "the disk is full" not in said(written(store))


def test_a_failure_of_prune_is_none_of_the_run(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr("sasrec_tasks.prune.run", fails)
    store = place.start("run")
    pipeline.run_all(store)
    assert content.read(store).status.kind == "published"


@pytest.mark.parametrize("upto", TASKS[:-1])
def test_a_run_that_stopped_half_way_has_a_page(place: Any, upto: str) -> None:
    store = place.run("run", upto=upto)
    report = content.read(store)
    assert report.status.kind == "not finished"
    text = said(written(store))
    assert f"Next is {TASKS[TASKS.index(upto) + 1]}" in text
    killed = content.read(
        store, Scheduled(state="failed", tasks={"train": TaskState(state="failed", tries=4)})
    )
    assert killed.status.kind == "failed"
    assert killed.status.reason.startswith("train: no reason was written down")


ENDED = {
    "marked failed while it trained": {"train": "failed", "export": "skipped", "prune": "success"},
    "killed": {"train": "failed", "export": "upstream_failed", "prune": "success"},
    "marked a success": {"train": "success", "export": "success", "prune": "success"},
    "forgotten by Airflow's cleaning": {},
}


@pytest.mark.parametrize("state", ["success", "failed"])
@pytest.mark.parametrize("tasks", ENDED.values(), ids=ENDED)
def test_a_run_that_has_ended_in_airflow_is_told_so_whatever_airflow_calls_it(
    place: Any, state: str, tasks: dict[str, str]
) -> None:
    store = place.run("run", upto="split")
    scheduled = Scheduled(
        state=state, tasks={name: TaskState(state=each, tries=1) for name, each in tasks.items()}
    )
    report = content.read(store, scheduled)
    if "failed" in (state, *tasks.values()):
        assert report.status.kind == "failed"
        assert report.status.reason.startswith("train: no reason was written down")
    else:
        assert report.status.kind == "not finished"
        assert "Airflow calls the run a success, but train has not finished" in report.status.sentence
    assert "The table is left as it is" in said(written(store, scheduled))
    assert "can't be seen" not in said(written(store, scheduled))


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("", "train: ended from outside, or killed"),
        ("AirflowTaskTimeout: it ran past its time limit", "train: it ran past its time limit"),
        ("Terminated: it was ended by SIGTERM", "train: it was ended by SIGTERM"),
    ],
)
def test_a_failure_that_the_task_could_not_write_down_is_told_once_others_have(
    place: Any, reason: str, told: str
) -> None:
    store = place.run("run", upto="split")
    pipeline.record_failed(store.uri, {"prune": "OSError: no part of the run", "train": reason})
    report = content.read(
        store, Scheduled(state="success", tasks={"train": TaskState(state="failed", tries=4)})
    )
    assert report.status.kind == "failed"
    assert report.status.sentence == "The table is left as it is. The run ended at train."
    assert report.status.reason.startswith(told)
    run_task("train", store.uri)
    assert content.read(store).status.kind == "not finished"


def test_a_run_that_asks_waits(place: Any) -> None:
    place.run("first", {"as_of": "2024-02-01"})
    with pytest.raises(GateRefused):
        place.run("second", {"as_of": "2024-02-02", "train.random_state": 7, "gate.ask_overlap": 1.0})
    store = RunStore(f"{place.store}/second")
    report = content.read(store)
    assert report.status.kind == "waiting"
    assert "overlap" in report.status.reason
    asking = Scheduled(state="running", tasks={"approve": TaskState(state="awaiting_input", tries=1)})
    assert "Required Actions" in content.read(store, asking).status.sentence


def test_a_superseded_run_says_so(place: Any) -> None:
    place.run("february", {"as_of": "2024-02-01"})
    store = place.run("january", {"as_of": "2024-01-01"})
    assert content.read(store).status.kind == "superseded"
    assert "was left as it was" in said(written(store)) or "was left as it is" in said(written(store))


def test_a_run_whose_folder_was_pruned_says_so(place: Any) -> None:
    store = place.run("run", upto="ingest")
    run_folders.remove(store)
    report = content.read(store, Scheduled(state="success"))
    assert report.status.kind == "unknown"
    assert "old ones are pruned" in said(written(store, Scheduled(state="success")))


def test_a_damaged_file_is_left_out(place: Any) -> None:
    store = place.run("run")
    (Path(store.root) / "evaluate" / "metrics.json").write_text('{"full": 1}')
    assert content.read(store).metrics is None
    assert '<section id="metrics"' not in written(store)


def test_a_run_in_a_bucket_has_the_same_page(bucket: str, place: Any, finished: Any, html: str) -> None:
    store = RunStore(f"{finished.store}/first")
    remote = RunStore(f"{bucket}/runs/first")
    remote.fs.put(f"{store.root}/", f"{remote.root}/", recursive=True)
    assert written(remote).replace(remote.uri, store.uri) == html


# As HTML


@pytest.fixture(scope="module", params=["run", "nights", "message"])
def each_page(request: pytest.FixtureRequest, html: str, finished: Any) -> str:
    if request.param == "run":
        return html
    if request.param == "message":
        return page.message_page("No report", "There is none.")
    unfinished = [nights.Unfinished(run_id="second", at=None, state="running")]
    return page.nights_page(nights.read("dag", finished.table, finished.store, unfinished), "run/")


def test_a_page_is_well_formed_static_and_readable(each_page: str) -> None:
    root = parsed(each_page)
    tags = Counter(element.tag for element in root.iter())
    assert not {"script", "iframe", "object", "embed", "link", "base", "form", "img"} & tags.keys()
    assert root.get("lang") == "en"
    names = {meta.get("name") for meta in root.iter("meta")}
    assert {"viewport", "color-scheme"} <= names
    assert tags["title"] >= 1
    assert tags["h1"] == tags["main"] == 1
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert not [each for each, number in Counter(ids).items() if number > 1]
    for element in root.iter():
        assert not [name for name in element.attrib if name.startswith("on") or name == "style"]
        for reference in ("aria-labelledby", "href"):
            for each in element.get(reference, "").split():
                if reference != "href" or each.startswith("#"):
                    assert each.removeprefix("#") in ids, each


def test_headings_are_in_order(each_page: str) -> None:
    levels = [
        int(element.tag[1]) for element in parsed(each_page).iter() if re.fullmatch("h[1-6]", element.tag)
    ]
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


def test_every_picture_is_named_and_every_table_has_heads(each_page: str) -> None:
    root = parsed(each_page)
    for picture in root.iter("svg"):
        if picture.get("aria-hidden") == "true":
            continue
        assert picture.get("role") == "img"
        title, description = picture.find("title"), picture.find("desc")
        assert title is not None
        assert title.text
        assert description is not None
        assert description.text
    for table in root.iter("table"):
        assert table.find("caption") is not None
        heads = list(table.iter("th"))
        assert heads
        assert all(head.get("scope") for head in heads)
        assert len(set(cells_of_rows(table))) == 1, table.find("caption")
    for region in root.iter("div"):
        if region.get("class") == "scroll":
            assert region.get("tabindex") == "0"
            assert region.get("aria-label")


def test_a_hostile_id_is_text(hostile: RunStore, place: Any) -> None:
    report = nights.read(
        HOSTILE, place.table, place.store, [nights.Unfinished(run_id=HOSTILE, at=None, state="x")]
    )
    pages = [
        written(hostile),
        page.message_page(HOSTILE, HOSTILE),
        page.nights_page(report, "run/"),
        page.run_page(content.without_folder(HOSTILE, Scheduled(state="failed", failure=HOSTILE))),
    ]
    for html in pages:
        assert "<script" not in html.lower()
        assert not set(html) & set("\u202e\u200f\x01")
        assert "<script>alert(1)</script>\"'&\\u202e\\u200f\\x01{{ 7 * 7 }}" in said(html)
    assert "<script>alert(2)<:script>.parquet" in said(pages[0])


def test_the_policy_is_in_the_file_as_well(html: str) -> None:
    policy = next(
        meta.get("content")
        for meta in parsed(html).iter("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == page.POLICY
    assert page.POLICY.startswith("default-src 'none'")


# On the command line


def test_the_report_is_one_file(command: Any, finished: Any, tmp_path: Path, html: str) -> None:
    out = tmp_path / "report.html"
    ended = command("report", "--store", finished.store, "--run-id", "first", "--out", str(out))
    assert (ended.status, ended.out.strip()) == (0, f"published: {out}"), ended.err
    assert "All nights" not in out.read_text()
    assert said(out.read_text()) == said(html).replace("All nights ", "", 1)
    ended = command("report", "--store", finished.store, "--out", str(tmp_path / "newest.html"))
    assert ended.status == 0
    assert (tmp_path / "newest.html").read_text() == out.read_text()


@pytest.mark.parametrize(
    ("run_id", "out", "told"),
    [
        ("none", "report.html", "no run of this id"),
        ("../first", "report.html", "run id"),
        ("first", "no/such/folder/report.html", "--out"),
    ],
)
def test_what_can_not_be_written_says_why(
    command: Any, finished: Any, tmp_path: Path, run_id: str, out: str, told: str
) -> None:
    ended = command("report", "--store", finished.store, "--run-id", run_id, "--out", str(tmp_path / out))
    assert ended.status == 2
    assert told in ended.err
