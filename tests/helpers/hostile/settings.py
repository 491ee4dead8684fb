"""Settings that are unknown, said twice, at odds with each other, or written so that reading them does harm."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hostile.case import Case, Found, Given, Place, Served, bad_data, bad_settings, plain
from hostile.data import table
from sasrec_tasks.instances import Instance
from sasrec_tasks.naming import parse_assignments, read_yaml


def cases() -> Iterator[Case]:
    """All of this kind."""
    yield from _unknown()
    yield from _files()
    yield from _assignments()
    yield from _at_odds()
    yield from _extremes()


def _unknown() -> Iterator[Case]:
    for name, said in {
        "train.epoch": "train.epoch: no such setting, did you mean train.epochs?",
        "epochs": "epochs: no such setting, did you mean train.epochs?",
        "Train.Epochs": "Train.Epochs: no such setting",
        "train.epochs.": "train.epochs.: no such setting",
        "train.train.epochs": "train.train.epochs: no such setting, did you mean train.epochs?",
        "__class__": "__class__: no such setting",
        "train.__init__": "train.__init__: no such setting",
        "model_config": "model_config: no such setting",
        "validate_.max_rejected_share": "validate_.max_rejected_share: no such setting, did you mean validate.",
        "": ": no such setting",
        "train.epochs\0": "train.epochs\0: no such setting",
    }.items():
        yield Case(
            what=f"a setting named `{name}`" if name else "a setting without a name",
            make=lambda place, name=name: {name: 1},  # type: ignore[misc]
            gets=bad_settings(said),
        )
    yield Case(
        what="a setting whose name is a megabyte",
        make=lambda place: {"x" * 2**20: 1},
        gets=bad_settings("xxx…: no such setting"),
    )
    yield Case(
        what="a value of a megabyte",
        make=lambda place: {"train.loss": "x" * 2**20},
        gets=bad_settings("train.loss='xxx…: input should be 'auto'"),
    )
    yield Case(
        what="a number for a group (`train: 5`)",
        make=lambda place: {"train": 5},
        gets=bad_settings("train=5: is a group of settings: write train.<setting>"),
    )
    yield Case(
        what="a setting in a group and by its whole name",
        make=lambda place: {"train": {"epochs": 5}, "train.epochs": 6},
        gets=bad_settings("train.epochs: is set twice, to "),
    )


def _file(content: str | bytes) -> Callable[[Place], Callable[[], Given]]:
    """A YAML file with this content, read as `--config` is."""

    def make(place: Place) -> Callable[[], Given]:
        place.write(table())
        file = place.folder / "settings.yaml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return lambda: read_yaml(file)

    return make


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def _files() -> Iterator[Case]:
    not_yaml = "FOLDER/settings.yaml: can't be read as YAML: "
    for what, content, said in (
        ("a billion laughs (aliases of aliases)", LAUGHS, not_yaml + "found the alias *a: write its value out"),
        ("an alias to itself", "train: &a [*a]", not_yaml + "found the alias *a: write its value out"),
        ("a merge of an alias", "x: &x {epochs: 5}\ntrain:\n  <<: *x\n", not_yaml + "found the alias *x"),
        ("a tag that calls a function", "train: !!python/object/apply:os.system ['touch owned']",
         not_yaml + "could not determine a constructor for the tag"),
        ("20,000 brackets in each other", "train: " + "[" * 20_000, not_yaml + "nested too deeply"),
        ("a key twice", "train:\n  epochs: 5\n  epochs: 6\n", not_yaml + "found 'epochs' 2 times: leave one of them"),
        ("a setting in a group and by its whole name", "train:\n  epochs: 5\ntrain.epochs: 6\n",
         "train.epochs: is set twice, to 5 and to 6: leave one of them"),
        ("a list", "- train.epochs: 5", "FOLDER/settings.yaml: must hold settings, for instance `train: {epochs: 5}`"),
        ("a text", "train.epochs", "FOLDER/settings.yaml: must hold settings"),
        ("two documents", "train: {epochs: 5}\n---\ntrain: {epochs: 6}\n", not_yaml + "expected a single document"),
        ("a tab before a key", "train:\n\tepochs: 5\n", not_yaml + "while scanning for the next token"),
        ("NUL", b"train: {epochs: 5}\0", not_yaml + "unacceptable character #x0000"),
        ("bytes that are not UTF-8", b"source: \xff\xfe", not_yaml + "'utf-8' codec can't decode byte 0xff"),
        ("a bracket that stays open", "train: [", not_yaml + "while parsing a flow"),
        ("a day that is none", "as_of: 2026-02-30", not_yaml + "day is out of range for month"),
        ("a number of 5,000 digits", "train.epochs: " + "9" * 5000, not_yaml + "Exceeds the limit (4300 digits)"),
        ("a day as a number", "as_of: 20260101", "as_of=20260101: is a number: write the moment as in 2026-01-31"),
        ("a key that YAML takes for false (`no`)", "ingest.columns: {no: USER_ID}",
         "ingest.columns.…=False: input should be a valid string"),
        ("a key that is a number", "1: 2", "1: no such setting"),
    ):  # fmt: skip
        yield Case(what=f"a settings file with {what}", make=_file(content), gets=bad_settings(said))
    yield Case(
        what="a settings file that is a folder",
        make=lambda place: lambda: read_yaml(place.folder),
        gets=bad_settings("FOLDER: can't be read as YAML: …Is a directory"),
    )
    yield Case(
        what="a settings file that is not there",
        make=lambda place: lambda: read_yaml(place.folder / "none.yaml"),
        gets=bad_settings("FOLDER/none.yaml: can't be read as YAML: …No such file or directory"),
    )
    yield Case(
        what="a settings file that never ends (`/dev/zero`)",
        make=lambda place: lambda: read_yaml(Path("/dev/zero")),
        gets=bad_settings("/dev/zero: can't be read as YAML: is no file"),
    )
    yield Case(
        what="an empty settings file",
        make=_file(""),
        gets=Served("as without one"),
    )
    for what, text, said in (
        ("20,000 brackets in each other", "[" * 20_000, "…: is no JSON such as"),
        ("what is no JSON", "{'train.epochs': 5}", "…: is no JSON such as"),
        ("a list", "[1]", "…: is no JSON such as"),
        (
            "an unknown setting",
            '{"train.epoch": 5}',
            ": train.epoch: no such setting, did you mean train.epochs?",
        ),
    ):
        yield Case(
            what=f"SASREC_SETTINGS with {what}",
            make=lambda place, text=text: lambda: _of_environment(text),  # type: ignore[misc]
            gets=bad_settings(f"SASREC_SETTINGS{said}"),
        )


def _of_environment(text: str) -> Given:
    os.environ["SASREC_SETTINGS"] = text
    try:
        return dict(Instance("sasrec_nightly").settings)
    finally:
        del os.environ["SASREC_SETTINGS"]


def _assignments() -> Iterator[Case]:
    for text, said in {
        "train.epochs": "--set train.epochs: write it as name=value, for instance train.epochs=5",
        "train.epochs=[": "--set train.epochs=[: the value is not valid YAML",
        "train.epochs=*a": "--set train.epochs=*a: the value is not valid YAML: found the alias *a",
        "as_of=2026-02-30": "--set as_of=2026-02-30: the value is not valid YAML: day is out of range for month",
        "train.epochs=5; rm -rf /": "train.epochs='5; rm -rf /': input should be a valid integer",
        "train.epochs=": "train.epochs=None: input should be a valid integer",
        "=5": ": no such setting",
    }.items():
        yield Case(
            what=f"`--set '{text}'`",
            make=lambda place, text=text: lambda: parse_assignments([text]),  # type: ignore[misc]
            gets=bad_settings(said),
        )


def _at_odds() -> Iterator[Case]:
    for what, settings, said in (
        ("`train.hidden_units=10` and `train.num_heads=3`", {"train.hidden_units": 10, "train.num_heads": 3},
         "train.hidden_units=10 must be divisible by num_heads=3"),
        ("`train.positions=rotary` and heads of odd width", {"train.hidden_units": 6, "train.num_heads": 2},
         "train.positions='rotary' needs heads of even width: hidden_units=6 / num_heads=2 is 3"),
        ("`train.outcome=rating` and `train.loss=bce`", {"train.outcome": "rating", "train.loss": "bce"},
         'train.outcome="rating" is a regression: it needs loss="mse"'),
        ("`export.new_item_slots=10` and `export.top_k=10`",
         {"export.new_item_days": 5, "export.new_item_slots": 10, "export.top_k": 10},
         "export.new_item_slots=10 must be less than top_k=10"),
    ):  # fmt: skip
        yield Case(
            what=what,
            make=lambda place, settings=settings: settings,  # type: ignore[misc]
            gets=bad_settings(said),
        )
    yield Case(
        what="`{date}` in the source without a look-back",
        make=lambda place: {"source": f"{place.folder}/{{date}}.parquet"},
        gets=bad_settings("{date} stands for each day of the look-back: set ingest.lookback_days", "ingest"),
    )
    yield Case(
        what="a database as the source without `ingest.query`",
        make=lambda place: {"source": "postgresql://localhost/db"},
        gets=bad_settings(
            "ingest.query: not set: postgresql://localhost/db is a database, write the query", "ingest"
        ),
    )
    yield Case(
        what="`train.outcome=soft` with outcomes beyond 1",
        make=plain(train__outcome="soft"),
        gets=bad_data("FILE: OUTCOME goes from 1 to 5, but train.outcome='soft' takes labels", "train"),
    )
    yield Case(
        what="`split.memory_limit` of nothing",
        make=plain(split__memory_limit="0GB"),
        gets=bad_settings("split.memory_limit='0GB': too little for this source, raise it", "split"),
    )
    yield Case(
        what="`split.memory_limit` of a kilobyte",
        make=plain(split__memory_limit="1KB"),
        gets=bad_settings("split.memory_limit='1KB': too little for this source, raise it", "split"),
    )
    yield Case(
        what="`split.spill_folder` that is not there",
        make=plain(split__spill_folder="FOLDER/none"),
        gets=bad_settings(
            "split.spill_folder='FOLDER/none': no such folder: make it, or leave it unset", "split"
        ),
    )
    yield Case(
        what="`split.spill_folder` that is a file",
        make=plain(split__spill_folder="FOLDER/source.parquet"),
        gets=bad_settings("split.spill_folder='FOLDER/source.parquet': no such folder", "split"),
    )
    yield Case(
        what="`export.active_within_days` within which nobody was",
        make=plain(export__active_within_days=1),
        gets=bad_settings("export.active_within_days=1: none of the 20 users has an event since", "gate"),
    )
    for what, content, said in (
        ("that is not there", None, "…No such file or directory"),
        ("of aliases of aliases", LAUGHS, "…found the alias *a"),
        (
            "with an unknown check",
            "columns: [{name: A, type: str, checks: {eval: x}}]",
            "…not a table schema",
        ),
        (
            "with a tag that calls a function",
            "columns: !!python/object/apply:os.system [ls]",
            "…could not determine",
        ),
    ):
        yield Case(
            what=f"`validate.schema_file` {what}",
            make=lambda place, content=content: _schema(place, content),  # type: ignore[misc]
            gets=bad_settings(f"validate.schema_file: FOLDER/own.yaml: {said}"),
        )
    yield Case(
        what="`metrics.textfile` that does not end in `.prom`",
        make=plain(metrics__textfile="FOLDER/x.txt"),
        gets=Served("as without it, with a warning"),
    )


def _schema(place: Place, content: str | None) -> Given:
    if content is not None:
        place.write_bytes(content.encode(), "own.yaml")
    return {**plain()(place), "validate.schema_file": f"{place.folder}/own.yaml"}


def _extremes() -> Iterator[Case]:
    def all_served(found: Found) -> None:
        assert len(found.users) == 20

    for setting, value in (
        ("export.top_k", 1000),
        ("export.popular_items", 100_000),
        ("export.block_users", 1),
        ("evaluate.negatives", 100_000),
        ("train.max_len", 1),
        ("train.batch_slots", 1),
        ("train.num_negatives", 10_000),
        ("train.early_stopping_patience", 10**12),
        ("train.learning_rate", 1),
        ("train.warmup_epochs", 1000),
        ("gate.compared_users", 1),
        ("validate.max_rejected_share", 0),
    ):
        yield Case(
            what=f"`{setting}={value}`, as far as allowed",
            make=plain(**{setting.replace(".", "__"): value}),
            gets=Served("with as much as there is", all_served),
        )
