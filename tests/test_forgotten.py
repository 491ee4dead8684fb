"""The list of those who are left out, which names nobody."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pyarrow as pa
import pytest

from sasrec_tasks import forgotten
from sasrec_tasks.errors import BadSettings


def users_of(listed: forgotten.Forgotten, ids: pa.Array) -> list[object]:
    batch = pa.RecordBatch.from_arrays([ids], names=["USER_ID"])
    left: list[object] = listed.without(batch).column("USER_ID").to_pylist()
    return left


@pytest.fixture(params=["on a disk", "on S3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.getfixturevalue('bucket') if request.param == 'on S3' else tmp_path}/runs"


def test_who_is_on_it_is_left_out_and_nobody_else(store: str) -> None:
    assert users_of(forgotten.read(store), pa.array(["a", "b"])) == ["a", "b"]
    assert forgotten.add(store, ["b", "42"]) == 2
    assert forgotten.add(store, ["b", "c"]) == 1
    listed = forgotten.read(store)
    assert users_of(listed, pa.array(["a", "b", None, "42", "c", "a"])) == ["a", None, "a"]
    assert users_of(listed, pa.array(["b", "a"], pa.large_string())) == ["a"]
    assert users_of(listed, pa.array([41, 42, None])) == [41, None]
    assert users_of(listed, pa.array([42.0])) == [42.0]  # no id: `validate` says so
    assert users_of(listed, pa.array([], pa.string())) == []


def test_it_holds_no_id_and_two_stores_hold_other_hashes(tmp_path: Path) -> None:
    for store in ("one", "other"):
        forgotten.add(str(tmp_path / store), ["ann@example.com"])
    one, other = (forgotten.read(str(tmp_path / store)) for store in ("one", "other"))
    assert "ann" not in (tmp_path / "one" / forgotten.FILE).read_text()
    assert one.holds("ann@example.com")
    assert other.holds("ann@example.com")
    assert one.hashes.keys().isdisjoint(other.hashes)


def test_its_first_ones_tell_it_from_others_however_long_it_grows(tmp_path: Path) -> None:
    store, other = str(tmp_path / "one"), str(tmp_path / "other")
    hashes = []
    for users in (["a", "b"], ["c"]):
        forgotten.add(store, users)
        listed = forgotten.read(store)
        hashes.append(listed.hash_of_first(2))
    assert hashes[0] == hashes[1] != listed.hash_of_first(3)
    forgotten.add(other, ["a", "b"])
    assert forgotten.read(other).hash_of_first(2) != hashes[0]
    assert forgotten.read(str(tmp_path / "none")).hash_of_first(2) != hashes[0]


def test_nobody_is_lost_of_two_who_write_at_once(store: str) -> None:
    def add(user: str) -> None:
        while True:
            try:
                forgotten.add(store, [user])
                return
            except OSError:  # on S3: try again
                continue

    threads = [Thread(target=add, args=(f"user {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listed = forgotten.read(store)
    assert all(listed.holds(f"user {number}") for number in range(4))


def test_a_damaged_list_stops_what_would_read_past_it(tmp_path: Path) -> None:
    forgotten.add(str(tmp_path), ["a"])
    file = tmp_path / forgotten.FILE
    file.write_text(file.read_text().replace('"key": "', '"key": "0'))
    for use in (lambda: forgotten.read(str(tmp_path)), lambda: forgotten.add(str(tmp_path), ["b"])):
        with pytest.raises(BadSettings, match=r"\.forgotten\.json: damaged: its checksum"):
            use()


def test_who_was_forgotten_meanwhile_is_noticed(tmp_path: Path) -> None:
    before = forgotten.read(str(tmp_path))
    check = forgotten.unchanged(str(tmp_path), before)
    check()
    forgotten.add(str(tmp_path), ["a"])
    with pytest.raises(OSError, match="a user was forgotten since"):
        check()
