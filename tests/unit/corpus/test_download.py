"""The download stage as a command: all of a subset, or nothing and one line that says why."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cosyflow import storage
from cosyflow.corpus import http
from cosyflow.corpus.checksums import LIBRITTS_SHA256, parse_checksums
from cosyflow.corpus.download import RECORD, download_subset
from cosyflow.errors import CosyFlowError
from cosyflow.standins.corpus import pack_corpus, serve

from .conftest import snapshot, write_wav

FILES = {
    "LibriTTS/SPEAKERS.txt": b"84 F\n",
    "LibriTTS/dev-clean/84/1/84_1_000001_000000.wav": b"RIFF",
    "LibriTTS/dev-clean/84/1/84_1_000001_000000.normalized.txt": b"One.\n",
}


def archive_of(*members: tarfile.TarInfo, files: dict[str, bytes] = FILES) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in members:
            archive.addfile(member)
    return stream.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def publish(folder: Path, archive: bytes, listed: bytes | None = None) -> None:
    """Puts an archive and the checksum of `listed` (by default the archive itself) where the server finds them."""
    (folder / "dev-clean.tar.gz").write_bytes(archive)
    md5 = hashlib.md5(archive if listed is None else listed, usedforsecurity=False).hexdigest()
    (folder / "md5sum.txt").write_text(f"{md5}  dev-clean.tar.gz\n")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the address where it is served."""
    monkeypatch.setattr(http, "FIRST_PAUSE_SECONDS", 0.001)
    folder = tmp_path / "mirror"
    folder.mkdir()
    publish(folder, archive_of())
    with serve(folder) as url:
        yield folder, url


def test_a_subset_is_unpacked_and_recorded(mirror: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = mirror
    result = download_subset("dev-clean", f"{url}/", str(tmp_path / "data"))
    files = snapshot(tmp_path / "data")
    record = json.loads(files.pop(f"LibriTTS/dev-clean/{RECORD}") or b"")
    assert {name: content for name, content in files.items() if content is not None} == FILES
    assert (result.counts["utterances"], result.counts["files"], result.counts["bytes"]) == (1, 2, 9)
    assert result.digest == record["sha256"] == storage.digest(str(folder / "dev-clean.tar.gz"))


def test_finished_work_is_not_done_again(mirror: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = mirror
    first = download_subset("dev-clean", url, str(tmp_path / "data"))
    (folder / "dev-clean.tar.gz").unlink()
    assert download_subset("dev-clean", url, str(tmp_path / "data")) == first


def test_a_deleted_file_comes_back(mirror: tuple[Path, str], tmp_path: Path) -> None:
    download_subset("dev-clean", mirror[1], str(tmp_path / "data"))
    before = snapshot(tmp_path / "data")
    next((tmp_path / "data").rglob("*.wav")).unlink()
    download_subset("dev-clean", mirror[1], str(tmp_path / "data"))
    assert snapshot(tmp_path / "data") == before


def test_the_archive_can_be_kept_and_is_then_used(mirror: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = mirror
    download_subset("dev-clean", url, str(tmp_path / "data"), keep_archive=True)
    kept = tmp_path / "data" / "dev-clean.tar.gz"
    assert kept.read_bytes() == (folder / "dev-clean.tar.gz").read_bytes()
    storage.remove(str(tmp_path / "data" / "LibriTTS"))
    (folder / "dev-clean.tar.gz").unlink()
    assert download_subset("dev-clean", url, str(tmp_path / "data")).counts["utterances"] == 1
    assert kept.exists()


def test_what_a_killed_run_left_does_no_harm(mirror: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "data" / ".dev-clean.unpacked.part" / "LibriTTS" / "dev-clean" / "84").mkdir(parents=True)
    (tmp_path / "data" / ".dev-clean.tar.gz.part").write_bytes(b"older")
    download_subset("dev-clean", mirror[1], str(tmp_path / "data"))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["LibriTTS"]


def test_a_checksum_of_ones_own_replaces_the_published_one(mirror: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = mirror
    (folder / "md5sum.txt").unlink()
    sha256 = storage.digest(str(folder / "dev-clean.tar.gz")).upper()
    assert download_subset("dev-clean", url, str(tmp_path / "data"), checksum=sha256).counts["utterances"] == 1


def test_a_subset_goes_into_a_store(mirror: tuple[Path, str], s3_folder: str) -> None:
    for _ in range(2):
        download_subset("dev-clean", mirror[1], s3_folder, keep_archive=True)
        names = [file.path for file in storage.list_files(s3_folder)]
        assert names == sorted([*FILES, f"LibriTTS/dev-clean/{RECORD}", "dev-clean.tar.gz"])
        storage.remove(storage.join(s3_folder, "LibriTTS/dev-clean/84"))


GOOD = archive_of()
TAR = gzip.decompress(GOOD)
REFUSED_ARCHIVES: dict[str, tuple[bytes, bytes | None, str]] = {
    "truncated": (GOOD[:-40], GOOD, "wrong checksum"),
    "one bit is wrong": (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), GOOD, "wrong checksum"),
    "published truncated": (GOOD[:-40], None, "the archive is damaged"),
    "published with a cut tar": (gzip.compress(TAR[:700]), None, "the archive is damaged"),
    "published with a wrong CRC": (GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], None, "the archive is damaged"),
    "not an archive": (b"<html>try later</html>", None, "the archive is damaged"),
    "absolute path": (archive_of(special("/etc/evil", tarfile.DIRTYPE)), None, "'/etc/evil' leads out"),
    "climbs out": (
        archive_of(files={**FILES, "LibriTTS/dev-clean/../../../evil": b"x"}),
        None,
        "'LibriTTS/dev-clean/../../../evil' leads out",
    ),
    "symbolic link": (
        archive_of(special("LibriTTS/dev-clean/84", tarfile.SYMTYPE, "/etc")),
        None,
        "'LibriTTS/dev-clean/84' is a link to '/etc'",
    ),
    "hard link": (
        archive_of(special("LibriTTS/dev-clean/x.wav", tarfile.LNKTYPE, "../../passwd")),
        None,
        "'LibriTTS/dev-clean/x.wav' is a link to '../../passwd'",
    ),
    "device": (
        archive_of(special("LibriTTS/dev-clean/null", tarfile.CHRTYPE)),
        None,
        "'LibriTTS/dev-clean/null' is neither a file nor a folder",
    ),
    "another subset": (
        archive_of(files={**FILES, "LibriTTS/test-clean/1/1/1.wav": b"x"}),
        None,
        "'LibriTTS/test-clean/1/1/1.wav' does not belong",
    ),
    "a file twice": (
        archive_of(special("LibriTTS/SPEAKERS.txt", tarfile.REGTYPE)),
        None,
        "SPEAKERS.txt is there twice",
    ),
    "nothing of the subset": (
        archive_of(files={"LibriTTS/SPEAKERS.txt": b"84 F\n"}),
        None,
        "nothing in LibriTTS/dev-clean",
    ),
}


@pytest.mark.parametrize("case", REFUSED_ARCHIVES)
@pytest.mark.parametrize("is_new", [True, False], ids=["new folder", "folder with an earlier download"])
def test_a_bad_archive_changes_nothing(
    case: str, is_new: bool, mirror: tuple[Path, str], tmp_path: Path, fails: Callable[..., str]
) -> None:
    folder, url = mirror
    output = tmp_path / "output" / "data"
    if not is_new:
        download_subset("dev-clean", url, str(output))
        next(output.rglob("*.wav")).unlink()  # so that the command has something to do
    output.parent.mkdir(exist_ok=True)
    archive, listed, message = REFUSED_ARCHIVES[case]
    publish(folder, archive, listed)
    options = ("--part", "dev-clean", "--data_url", url, "--output_dir", output)
    error = fails("download", *options, unchanged=output.parent)
    assert f"{url}/dev-clean.tar.gz: " in error
    assert message in error


def test_a_subset_that_is_not_there_is_named_with_the_address(
    mirror: tuple[Path, str], tmp_path: Path, fails: Callable[..., str]
) -> None:
    url = mirror[1]
    options = ("--data_url", url, "--output_dir", tmp_path / "data")
    error = fails("download", "--part", "dev-klean", *options, unchanged=tmp_path)
    assert f"{url} has no dev-klean.tar.gz; its checksums name dev-clean.tar.gz" in error
    error = fails("download", "--part", "dev-klean", *options, "--checksum", "0" * 32, unchanged=tmp_path)
    assert f"{url}/dev-klean.tar.gz is not there (HTTP 404)" in error


def test_an_address_without_checksums_or_without_a_server(
    mirror: tuple[Path, str], tmp_path: Path, fails: Callable[..., str]
) -> None:
    folder, url = mirror
    (folder / "md5sum.txt").unlink()
    options = ("--part", "my-speech", "--output_dir", tmp_path / "data")
    error = fails("download", *options, "--data_url", url, unchanged=tmp_path)
    assert f"{url} has neither md5sum.txt nor sha256sum.txt" in error
    error = fails("download", *options, "--data_url", "http://127.0.0.1:9", unchanged=tmp_path)
    assert "http://127.0.0.1:9/md5sum.txt cannot be fetched" in error


def test_without_a_list_the_known_checksums_of_libritts_count(
    mirror: tuple[Path, str], tmp_path: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = mirror
    (folder / "md5sum.txt").unlink()
    options = ("--part", "dev-clean", "--data_url", url, "--output_dir", tmp_path / "data")
    assert f"{LIBRITTS_SHA256['dev-clean.tar.gz']} is expected" in fails("download", *options, unchanged=tmp_path)
    monkeypatch.setitem(LIBRITTS_SHA256, "dev-clean.tar.gz", storage.digest(str(folder / "dev-clean.tar.gz")))
    assert download_subset("dev-clean", url, str(tmp_path / "data")).counts["utterances"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--part", "../dev-clean"), "'../dev-clean' is not the name of a subset"),
        (("--part", "dev-clean", "--data_url", "ftp://host"), "ftp://host: archives are fetched from an http"),
        (("--part", "dev-clean", "--checksum", "abc"), "'abc' is no checksum"),
    ],
)
def test_impossible_options(options: tuple[str, ...], message: str, tmp_path: Path, fails: Callable[..., str]) -> None:
    assert message in fails("download", *options, "--output_dir", tmp_path / "data", unchanged=tmp_path)


def test_a_folder_of_the_users_own_is_not_replaced(
    mirror: tuple[Path, str], tmp_path: Path, fails: Callable[..., str]
) -> None:
    own = tmp_path / "data" / "LibriTTS" / "dev-clean"
    write_wav(own / "1" / "1" / "1_1.wav")
    options = ("--part", "dev-clean", "--data-url", mirror[1], "--output-dir", tmp_path / "data")
    assert f"{own} is there and was not made by this command" in fails("download", *options, unchanged=tmp_path)


def test_published_lists_are_read_in_every_usual_form() -> None:
    md5, sha256 = "A" * 32, "b" * 64
    text = f"{md5}  dev-clean.tar.gz\n{sha256} *./dev-other.tar.gz\r\n# comment\n\nshort  x\n"
    assert parse_checksums(text) == {"dev-clean.tar.gz": md5.lower(), "dev-other.tar.gz": sha256}


def test_a_packed_tree_comes_back(libritts: Path, tmp_path: Path) -> None:
    assert pack_corpus(libritts.parent, tmp_path / "archives") == ["dev-clean"]
    with serve(tmp_path / "archives") as url:
        download_subset("dev-clean", url, str(tmp_path / "data"))
    tree = snapshot(tmp_path / "data" / "LibriTTS" / "dev-clean")
    del tree[RECORD]
    assert tree == snapshot(libritts)


def test_a_wrong_archive_that_lies_there_is_replaced_only_by_a_right_one(
    mirror: tuple[Path, str], tmp_path: Path
) -> None:
    folder, url = mirror
    output = tmp_path / "data"
    output.mkdir()
    (output / "dev-clean.tar.gz").write_bytes(b"from elsewhere")
    publish(folder, GOOD[:-40], GOOD)
    with pytest.raises(CosyFlowError, match="wrong checksum"):
        download_subset("dev-clean", url, str(output), keep_archive=True)
    assert snapshot(output) == {"dev-clean.tar.gz": b"from elsewhere"}
    publish(folder, GOOD)
    download_subset("dev-clean", url, str(output), keep_archive=True)
    assert (output / "dev-clean.tar.gz").read_bytes() == GOOD
