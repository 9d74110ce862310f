"""A user that the system does not know, as containers have them, gets a name and a home that libraries find."""

from __future__ import annotations

import getpass
import os
import pwd
import subprocess
import tempfile
from pathlib import Path

import pytest

from cosyflow.processes import CACHES, make_user_known

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def nobody(number: int) -> None:
    raise KeyError(f"getpwuid(): uid not found: {number}")


def test_an_unknown_user_gets_a_name_and_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "HOME"):
        monkeypatch.setenv(name, "")  # so that it is as before in the end
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    make_user_known()
    assert getpass.getuser() == str(os.getuid())
    assert Path.home() == Path(tempfile.gettempdir())


def test_what_libraries_keep_goes_elsewhere_where_the_home_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CACHES:
        monkeypatch.setenv(name, "")  # so that it is as before in the end
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    make_user_known()
    assert not CACHES.keys() & os.environ.keys()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    monkeypatch.setenv("MPLCONFIGDIR", "/own")
    make_user_known()
    assert os.environ["MPLCONFIGDIR"] == "/own"
    assert Path(os.environ["XDG_CACHE_HOME"]).is_relative_to(tempfile.gettempdir())
    assert CACHES.keys() <= os.environ.keys()


def test_programs_learn_where_temporary_files_may_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python finds one where /tmp cannot be written; mktemp, which KFP's local runner starts, does not look for it."""
    monkeypatch.setenv("TMPDIR", "")
    monkeypatch.delenv("TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make_user_known()
    made = subprocess.run(["mktemp"], capture_output=True, text=True, check=True).stdout.strip()
    assert Path(made).parent == tmp_path


def test_a_known_user_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "anna")
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    make_user_known()
    assert (os.environ["USER"], os.environ["HOME"]) == ("anna", "/home/anna")
