"""A file that only one may create is there as a whole or not at all."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from cosyflow import storage

LARGE = b"x" * 20_000_000


def test_one_of_many_creates_it_and_nobody_sees_a_part_of_it(tmp_path: Path) -> None:
    target = str(tmp_path / "claims" / "one.json")
    made: list[bool] = []
    seen: set[int] = set()
    begun = threading.Barrier(4)

    def create() -> None:
        begun.wait()
        made.append(storage.create(target, LARGE))

    def read() -> None:
        begun.wait()
        while not seen:
            if storage.exists(target):
                seen.add(storage.size(target))

    threads = [threading.Thread(target=work) for work in (read, create, create, create)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False, False, True]
    assert seen == {len(LARGE)}
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["one.json"]


def test_a_file_system_without_links_creates_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    target = str(tmp_path / "one.json")
    assert storage.create(target, b"first")
    assert not storage.create(target, b"second")
    assert storage.read_bytes(target) == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]
