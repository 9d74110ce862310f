"""The same promises on a local folder and on a real S3 server."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

import pytest

from cosyflow import storage
from cosyflow.errors import CosyFlowError


def test_what_is_written_is_read_back(folder: str) -> None:
    uri = storage.join(folder, "some folder", "ä file.bin")
    storage.write_bytes(uri, b"content")
    assert storage.read_bytes(uri) == b"content"
    assert storage.size(uri) == 7
    assert storage.digest(uri) == hashlib.sha256(b"content").hexdigest()
    assert storage.exists(uri)
    assert storage.exists(storage.parent(uri))


@pytest.mark.parametrize("ending", ["gz", "bz2", "zst"])
def test_the_ending_of_a_name_changes_no_bytes(folder: str, ending: str) -> None:
    uri = storage.join(folder, f"archive.{ending}")
    storage.write_bytes(uri, b"packed already")
    assert storage.size(uri) == 14
    assert storage.read_bytes(uri) == b"packed already"


def test_a_write_replaces_the_file(folder: str) -> None:
    uri = storage.join(folder, "file")
    storage.write_text(uri, "old and longer")
    storage.write_text(uri, "new")
    assert storage.read_text(uri) == "new"


def _write_half(stream: BinaryIO) -> None:
    stream.write(b"half")
    raise RuntimeError("interrupted")


def test_nothing_appears_when_writing_fails(folder: str) -> None:
    new, old = storage.join(folder, "new"), storage.join(folder, "old")
    storage.write_text(old, "good")
    for uri in (new, old):
        with pytest.raises(RuntimeError, match="interrupted"), storage.open_write(uri) as stream:
            _write_half(stream)
    assert not storage.exists(new)
    assert storage.read_text(old) == "good"
    assert [file.path for file in storage.list_files(folder)] == ["old"]


def test_nothing_appears_before_the_end_of_writing(folder: str) -> None:
    uri = storage.join(folder, "file")
    with storage.open_write(uri) as stream:
        stream.write(b"all")
        assert not storage.exists(uri)
        assert storage.list_files(folder) == []
    assert storage.read_bytes(uri) == b"all"


def test_a_stream_can_seek(folder: str) -> None:
    uri = storage.join(folder, "big")
    content = bytes(range(256)) * 12_000  # three buffers
    storage.write_bytes(uri, content)
    with storage.open_read(uri) as stream:
        stream.seek(2_000_001)
        assert stream.read(5) == content[2_000_001:2_000_006]
        stream.seek(-3, 2)
        assert stream.read() == content[-3:]
        stream.seek(0)
        assert stream.read() == content


def test_list_is_recursive_sorted_and_relative(folder: str) -> None:
    for path, text in {"b": "22", "a/c": "333", "a/b/x": "1"}.items():
        storage.write_text(storage.join(folder, path), text)
    assert storage.list_files(folder) == [
        storage.FileInfo("a/b/x", 1),
        storage.FileInfo("a/c", 3),
        storage.FileInfo("b", 2),
    ]
    assert storage.list_files(storage.join(folder, "nothing here")) == []


def test_remove_takes_files_and_trees_and_is_repeatable(folder: str) -> None:
    for path in ("keep/a", "tree/a", "tree/b/c"):
        storage.write_text(storage.join(folder, path), "x")
    for _ in range(2):
        storage.remove(storage.join(folder, "tree"))
        storage.remove(storage.join(folder, "keep/nothing"))
    assert not storage.exists(storage.join(folder, "tree"))
    assert [file.path for file in storage.list_files(folder)] == ["keep/a"]


def test_trees_travel_up_and_down(folder: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for path in ("x.txt", "deep/er/y z.txt"):
        storage.write_text(str(source / path), path)
    up = storage.upload_tree(source, folder)
    down = storage.download_tree(folder, tmp_path / "copy")
    assert up == down == storage.list_files(str(tmp_path / "copy"))
    assert (tmp_path / "copy/deep/er/y z.txt").read_text() == "deep/er/y z.txt"


def test_local_copy_of_a_file_and_of_a_folder(folder: str) -> None:
    storage.write_text(storage.join(folder, "model", "weights.pt"), "w")
    with storage.local_copy(storage.join(folder, "model", "weights.pt")) as file:
        assert file.name == "weights.pt"
        assert file.read_text() == "w"
    with storage.local_copy(storage.join(folder, "model")) as directory:
        assert (directory / "weights.pt").read_text() == "w"
    assert directory.exists() == (not storage.is_remote(folder))


def test_json_and_its_errors(folder: str) -> None:
    good, bad = storage.join(folder, "good.json"), storage.join(folder, "bad.json")
    storage.write_json(good, {"b": [1, 2.5], "a": "ü"})
    assert storage.read_json(good) == {"b": [1, 2.5], "a": "ü"}
    storage.write_text(bad, '{"a":\n 1,,}')
    with pytest.raises(CosyFlowError, match=r"bad\.json:2: not JSON"):
        storage.read_json(bad)


def test_text_that_is_not_utf8_is_named_by_line_and_byte(folder: str) -> None:
    uri = storage.join(folder, "text")
    storage.write_bytes(uri, "good\nalso good\nna\u00efve".encode("latin-1"))
    with pytest.raises(CosyFlowError, match=r"text:3: byte 0xef \(offset 17\) is not UTF-8"):
        storage.read_text(uri)


@pytest.mark.parametrize("action", [storage.read_bytes, storage.size, storage.digest])
def test_a_missing_file_is_named(folder: str, action: object) -> None:
    uri = storage.join(folder, "missing.bin")
    with pytest.raises(CosyFlowError, match=r"missing\.bin does not exist"):
        action(uri)  # type: ignore[operator]
    with pytest.raises(CosyFlowError, match=r"missing\.bin does not exist"), storage.local_copy(uri):
        pass


@pytest.mark.parametrize(
    ("uri", "parts", "joined", "above", "last"),
    [
        ("s3://bucket/a/", ["b", "c.txt"], "s3://bucket/a/b/c.txt", "s3://bucket/a/b", "c.txt"),
        ("s3://bucket", ["a/b"], "s3://bucket/a/b", "s3://bucket/a", "b"),
        ("/data/x", ["y", "z"], "/data/x/y/z", "/data/x/y", "z"),
        ("exp", ["z"], "exp/z", "exp", "z"),
        ("file:///data", ["z"], "/data/z", "/data", "z"),
    ],
)
def test_parts_of_a_uri(uri: str, parts: list[str], joined: str, above: str, last: str) -> None:
    result = storage.join(uri, *parts)
    assert result == joined
    assert storage.parent(result) == above
    assert storage.name(result) == last


@pytest.mark.parametrize("uri", ["gs://bucket/x", "https://host/x", "s3://", "s3:///"])
def test_addresses_that_are_not_understood(uri: str) -> None:
    with pytest.raises(CosyFlowError, match=uri):
        storage.exists(uri)
