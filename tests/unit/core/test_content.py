"""Files are known by content: no edit hides behind a remembered digest, and a second look reads no file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from cosyflow import content, storage
from cosyflow.content import Digests, combine
from cosyflow.errors import CosyFlowError
from cosyflow.storage.local import LocalFiles
from cosyflow.storage.s3 import S3Objects


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of files whose content is opened, but for those of the memory."""
    opened: list[str] = []
    for kind in (LocalFiles, S3Objects):
        original = kind.open_read

        def open_read(self: object, path: str, original=original) -> BinaryIO:
            if not path.endswith(content.ENDING):
                opened.append(path)
            return original(self, path)

        monkeypatch.setattr(kind, "open_read", open_read)
    return opened


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as old enough to be remembered at once; the clock of this file system ticks every few ms."""
    monkeypatch.setattr(content, "SETTLED_NS", -(10**12))


@pytest.fixture
def cache(folder: str) -> str:
    return storage.join(folder, "memory of digests")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    (root / "b").mkdir(parents=True)
    (root / "a.wav").write_bytes(b"first")
    (root / "b" / "c.wav").write_bytes(b"second")
    (root / "empty").write_bytes(b"")
    return root


CONTENT = {"a.wav": sha256(b"first"), "b/c.wav": sha256(b"second"), "empty": sha256(b"")}


def wait_a_tick() -> None:
    time.sleep(0.02)


def memories(cache: Path) -> list[Path]:
    return sorted(cache.glob(f"*{content.ENDING}"))


def test_a_second_look_reads_no_file(corpus: Path, cache: str, reads: list[str], settled: None) -> None:
    assert Digests(cache).tree(str(corpus)) == CONTENT
    assert len(reads) == 3
    assert list(Digests(cache).tree(f"{corpus}/")) == sorted(CONTENT)
    assert len(reads) == 3
    assert len(storage.list_files(cache)) == 1


def test_within_a_process_no_place_is_needed(corpus: Path, reads: list[str], settled: None) -> None:
    digests = Digests()
    assert digests.tree(str(corpus)) == digests.tree(str(corpus)) == CONTENT
    assert len(reads) == 3


@pytest.mark.usefixtures("settled")
def test_an_edit_of_equal_size_is_noticed_even_with_its_old_date(corpus: Path, tmp_path: Path) -> None:
    cache, file = str(tmp_path / "cache"), corpus / "a.wav"
    Digests(cache).tree(str(corpus))
    status = file.stat()
    wait_a_tick()
    with file.open("r+b") as stream:
        stream.write(b"FIRST")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size
    assert Digests(cache).tree(str(corpus)) == CONTENT | {"a.wav": sha256(b"FIRST")}


@pytest.mark.usefixtures("settled")
def test_a_copy_that_keeps_the_date_is_noticed(corpus: Path, tmp_path: Path) -> None:
    cache, file, other = str(tmp_path / "cache"), corpus / "a.wav", tmp_path / "other"
    other.write_bytes(b"OTHER")
    shutil.copystat(file, other)
    Digests(cache).tree(str(corpus))
    wait_a_tick()
    before = file.stat()
    shutil.copy2(other, file)  # cp -p: same path, size, inode and date of modification
    after = file.stat()
    assert (after.st_size, after.st_ino, after.st_mtime_ns) == (before.st_size, before.st_ino, before.st_mtime_ns)
    assert Digests(cache).tree(str(corpus))["a.wav"] == sha256(b"OTHER")
    other.replace(file)
    assert Digests(cache).file(str(file)) == sha256(b"OTHER")


def test_a_file_that_has_just_changed_is_not_remembered(corpus: Path, cache: str, reads: list[str]) -> None:
    assert Digests(cache).tree(str(corpus)) == CONTENT
    assert Digests(cache).tree(str(corpus)) == CONTENT
    assert len(reads) == 6
    assert storage.list_files(cache) == []


def test_a_clock_that_is_ahead_lets_nothing_be_remembered(
    corpus: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: now)
    digests = Digests()
    digests.tree(str(corpus))
    digests.tree(str(corpus))
    assert len(reads) == 6


def test_links_to_files_and_folders_are_followed_but_not_in_circles(corpus: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "d.wav").write_bytes(b"third")
    (corpus / "link.wav").symlink_to(outside / "deep" / "d.wav")
    (corpus / "linked").symlink_to(outside)
    (corpus / "again").symlink_to(outside)
    (corpus / "b" / "up").symlink_to("..")
    (outside / "back").symlink_to(outside)
    third = sha256(b"third")
    links = {"link.wav": third, "linked/deep/d.wav": third, "again/deep/d.wav": third}
    assert Digests().tree(str(corpus)) == CONTENT | links


@pytest.mark.usefixtures("settled")
def test_what_a_link_leads_to_is_looked_at(corpus: Path, tmp_path: Path) -> None:
    targets = [tmp_path / "one", tmp_path / "two"]
    for target in targets:
        target.write_bytes(target.name.encode())
    link = corpus / "link"
    digests = Digests(str(tmp_path / "cache"))
    for target in targets:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert digests.file(str(link)) == sha256(target.name.encode())
    wait_a_tick()
    targets[1].write_bytes(b"TWO")
    assert digests.file(str(link)) == sha256(b"TWO")


@pytest.mark.parametrize("look", ["tree", "file"])
def test_a_dangling_link_is_named(corpus: Path, look: str) -> None:
    link = corpus / "b" / "gone.wav"
    link.symlink_to("nowhere")
    with pytest.raises(CosyFlowError, match=r"b/gone\.wav is a symlink to nowhere: No such file.*; correct the link"):
        Digests().tree(str(corpus)) if look == "tree" else Digests().file(str(link))
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(CosyFlowError, match=r"b/gone\.wav is a symlink"):
        Digests().tree(str(corpus)) if look == "tree" else Digests().file(str(link))


def test_what_is_missing_or_of_another_kind_is_named(corpus: Path, folder: str) -> None:
    storage.write_text(storage.join(folder, "inner", "file"), "text")
    digests = Digests()
    with pytest.raises(CosyFlowError, match="no such does not exist"):
        digests.tree(storage.join(folder, "no such"))
    with pytest.raises(CosyFlowError, match="no such does not exist"):
        digests.file(storage.join(folder, "no such"))
    many = [storage.join(folder, "inner", name) for name in ("file", *map(str, range(20)))]
    with pytest.raises(CosyFlowError, match="inner/0 does not exist"):
        digests.files(many)
    with pytest.raises(CosyFlowError, match="folder"):
        digests.tree(storage.join(folder, "inner", "file"))
    with pytest.raises(CosyFlowError, match="inner"):
        digests.file(storage.join(folder, "inner"))
    os.mkfifo(corpus / "pipe")
    with pytest.raises(CosyFlowError, match="pipe is neither a file nor a folder"):
        digests.tree(str(corpus))
    with pytest.raises(CosyFlowError, match="pipe is neither a file nor a folder"):
        digests.file(str(corpus / "pipe"))


def test_an_empty_folder_has_no_files(tmp_path: Path) -> None:
    assert Digests().tree(str(tmp_path)) == {}


@pytest.mark.usefixtures("settled")
def test_an_unreadable_file_is_named_and_the_others_are_remembered(
    corpus: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "BATCH_FILES", 1)
    original, forbidden = Path.open, True

    def refuse(self: Path, *args: str) -> object:
        if self.name == "c.wav" and forbidden:
            raise PermissionError(13, "Permission denied")
        return original(self, *args)

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, who may read everything
    with pytest.raises(CosyFlowError, match=r"b/c\.wav: Permission denied; give the right to read it"):
        Digests(str(tmp_path / "cache")).tree(str(corpus))
    forbidden = False
    reads.clear()
    assert Digests(str(tmp_path / "cache")).tree(str(corpus)) == CONTENT
    assert str(corpus / "b" / "c.wav") in reads


def test_a_file_that_changes_while_it_is_read_is_read_again(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = corpus / "a.wav"
    original, changes = storage.digest, iter([b"longer than it was"])

    def digest(uri: str) -> str:
        found = original(uri)
        for data in changes:
            file.write_bytes(data)
            break
        return found

    monkeypatch.setattr(storage, "digest", digest)
    assert Digests().file(str(file)) == sha256(b"longer than it was")
    changes = iter([b"x" * length for length in range(1, 20)])
    with pytest.raises(CosyFlowError, match=r"a\.wav changes while it is read; look again when nothing writes"):
        Digests().file(str(file))


@pytest.mark.usefixtures("settled")
def test_nothing_is_written_when_nothing_changed_and_what_is_gone_is_dropped(corpus: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    Digests(str(cache)).tree(str(corpus))
    (memory,) = memories(cache)
    before = memory.stat()
    Digests(str(cache)).tree(str(corpus))
    Digests(str(cache)).files([str(corpus / "a.wav"), str(corpus / "b" / "c.wav")])  # the same nearest folder
    assert memory.stat().st_ino == before.st_ino
    (corpus / "a.wav").unlink()
    Digests(str(cache)).tree(str(corpus))
    assert b"a.wav" not in memory.read_bytes()
    assert b"c.wav" in memory.read_bytes()


def test_a_part_of_the_files_keeps_the_memory_of_the_others_that_are_there(
    folder: str, cache: str, reads: list[str], settled: None
) -> None:
    uris = [storage.join(folder, "wavs", str(number % 2), f"{number}.wav") for number in range(24)]
    for number, uri in enumerate(uris):
        storage.write_text(uri, str(number))
    expected = {uri: sha256(str(number).encode()) for number, uri in enumerate(uris)}
    assert Digests(cache).files(uris[:20]) == {uri: expected[uri] for uri in uris[:20]}
    storage.remove(uris[0])
    assert Digests(cache).files(uris[18:]) == {uri: expected[uri] for uri in uris[18:]}
    assert len(reads) == 24
    (memory,) = storage.list_files(cache)
    text = storage.read_bytes(storage.join(cache, memory.path)).decode()
    assert '"0/0.wav"' not in text
    assert Digests(cache).files(uris[1:]) == {uri: expected[uri] for uri in uris[1:]}
    assert len(reads) == 24


@pytest.mark.medium
def test_addresses_of_many_kinds_at_once(
    corpus: Path, s3_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_text(storage.join(s3_folder, "x.wav"), "x")
    monkeypatch.chdir(tmp_path)
    first, x = sha256(b"first"), sha256(b"x")
    addresses = {
        f"{s3_folder}/x.wav": x,
        "corpus/a.wav": first,
        f"{corpus}/a.wav": first,
        f"file://{corpus}/b/../a.wav": first,
        f"/{corpus}//a.wav": first,
    }
    assert Digests().files(list(addresses)) == addresses
    assert Digests().files([]) == {}
    with pytest.raises(CosyFlowError, match="two slashes"):
        Digests().file(f"{s3_folder}//x.wav")


def test_objects_are_known_by_their_tags(s3_folder: str, reads: list[str], tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    for name in ("a", "b/c"):
        storage.write_text(storage.join(s3_folder, name), f"text {name}")
    expected = {"a": sha256(b"text a"), "b/c": sha256(b"text b/c")}
    assert Digests(cache).tree(s3_folder) == expected
    assert len(reads) == 2
    assert Digests(cache).tree(f"{s3_folder}/") == expected
    assert Digests(cache).file(f"{s3_folder}/a") == expected["a"]
    assert len(reads) == 2
    storage.write_text(storage.join(s3_folder, "a"), "TEXT a")
    assert Digests(cache).tree(s3_folder) == expected | {"a": sha256(b"TEXT a")}
    assert len(reads) == 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-10],
        lambda data: data.replace(sha256(b"first").encode(), sha256(b"other").encode()),
        lambda _: b"",
        lambda _: b"\xff\x00 something else",
        lambda data: header(json.dumps([1, 2]).encode()),
        lambda data: header(data.partition(b"\n")[2].replace(b"corpus", b"korpus")),
        lambda data: header(data.partition(b"\n")[2].replace(b'"a.wav",', b"")),
    ],
)
@pytest.mark.usefixtures("settled")
def test_a_damaged_or_foreign_memory_is_ignored(corpus: Path, tmp_path: Path, spoil, reads: list[str]) -> None:
    cache = tmp_path / "cache"
    Digests(str(cache)).tree(str(corpus))
    (memory,) = memories(cache)
    good = memory.read_bytes()
    memory.write_bytes(spoil(good))
    assert memory.read_bytes() != good
    assert Digests(str(cache)).tree(str(corpus)) == CONTENT
    assert len(reads) == 6
    assert memory.read_bytes() == good


def header(body: bytes) -> bytes:
    return f"{content.MAGIC} {sha256(body)}\n".encode() + body


@pytest.mark.usefixtures("settled")
def test_a_place_that_cannot_be_written_costs_only_the_memory(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")  # even for root
    with caplog.at_level(logging.WARNING):
        digests = Digests(str(tmp_path / "file" / "cache"))
        assert digests.tree(str(corpus)) == digests.tree(str(corpus)) == CONTENT
    assert caplog.text.count("not remembered") == 1


@pytest.mark.usefixtures("settled")
def test_a_memory_below_the_folder_is_no_part_of_it(corpus: Path, tmp_path: Path) -> None:
    for cache in (str(corpus / ".cache"), str(corpus)):
        for _ in range(2):
            assert Digests(cache).tree(str(corpus)) == CONTENT
        (memory,) = memories(Path(cache))
        memory.unlink()


@pytest.mark.usefixtures("settled")
def test_writers_at_once_leave_a_whole_memory(corpus: Path, tmp_path: Path, reads: list[str]) -> None:
    cache = str(tmp_path / "cache")
    found: list[dict[str, str]] = []
    lookers = [threading.Thread(target=lambda: found.append(Digests(cache).tree(str(corpus)))) for _ in range(8)]
    for looker in lookers:
        looker.start()
    for looker in lookers:
        looker.join()
    assert found == [CONTENT] * 8
    reads.clear()
    assert Digests(cache).tree(str(corpus)) == CONTENT
    assert reads == []
    assert len(list(Path(cache).iterdir())) == 1


@pytest.mark.usefixtures("settled")
def test_names_that_are_no_text_are_remembered(corpus: Path, tmp_path: Path, reads: list[str]) -> None:
    names = [b"\xff\xfe.wav", b"two\nlines", "ä".encode()]
    for name in names:
        (corpus / os.fsdecode(name)).write_bytes(b"first")
    cache = str(tmp_path / "cache")
    expected = CONTENT | {os.fsdecode(name): CONTENT["a.wav"] for name in names}
    assert Digests(cache).tree(str(corpus)) == Digests(cache).tree(str(corpus)) == expected
    assert len(reads) == 6
    assert len(combine(expected)) == 64


def test_long_looks_tell_how_far_they_are(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Digests().tree(str(corpus))
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(content, "LONG_FILES", 3)
    Digests().tree(str(corpus))
    assert f"[digests {corpus}] 3/3 files  100 %" in capsys.readouterr().out
