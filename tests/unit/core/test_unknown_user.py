"""A user that the system does not know, as containers have them, gets a name and a home that libraries find."""

from __future__ import annotations

import getpass
import os
import pwd
import tempfile
from pathlib import Path

import pytest

from cosyflow.processes import make_user_known

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


def test_a_known_user_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "anna")
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    make_user_known()
    assert (os.environ["USER"], os.environ["HOME"]) == ("anna", "/home/anna")
