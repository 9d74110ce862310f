"""A run that cannot go on: what it says, and that the same command goes on when the cause is mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.standins.corpus import serve
from tests.outside.tiny_run import DEV, MARKS, SUBSETS, make_places, manifest_files, read_manifests, run_pipeline

pytestmark = MARKS

ONLY_DOWNLOAD = ("--start-stage", "-1", "--stop_stage", "-1")


def damage(archive: Path) -> bytes:
    """Changes one bit of a file. Returns what it was."""
    whole = archive.read_bytes()
    middle = len(whole) // 2
    archive.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    return whole


def test_a_failed_stage_is_named_in_one_line_and_a_mended_run_keeps_what_was_done(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    places = make_places(tmp_path_factory.mktemp("failing run"))
    archive = places.archives / f"{DEV}.tar.gz"
    whole = damage(archive)
    with serve(places.archives) as url:
        failed = run_pipeline(places, url, "failed", *ONLY_DOWNLOAD)
        done = manifest_files(places)
        archive.write_bytes(whole)
        mended = run_pipeline(places, url, "mended", *ONLY_DOWNLOAD)

    assert failed.returncode == 1, failed.stdout + failed.stderr
    shown = failed.stdout + failed.stderr
    (line,) = [line for line in shown.splitlines() if "FAILED" in line]
    assert f"download {DEV}" in line
    assert archive.name in line
    assert "Traceback" not in shown
    assert ("download", DEV) not in read_manifests(done)

    assert mended.returncode == 0, mended.stdout + mended.stderr
    after = manifest_files(places)
    assert done.items() <= after.items()
    assert read_manifests(after).keys() >= {("download", subset) for subset in SUBSETS}
