"""Paths as people write them: with a tilde, in quotation marks, or copied from Windows."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.cli.main import TOOLS, build_parser, main
from cosyflow.config.options import STAGE_NAMES
from cosyflow.errors import RefusalError
from cosyflow.places import tidy
from cosyflow.run.config import from_parameters

NO_PLACES = {
    "alias", "experiment", "instruct", "prompt_text", "run_name", "text", "text_column", "speaker_column",
    "audio_column", "parquet_folder", "mlflow_uri", "older_than", "subset", "checksum", "language",
}  # fmt: skip
"""Options with a text for a value that are no places."""
PATH = "'/some where'"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~/corpus", "/home/ann/corpus"),
        ("'/my speech/a b'", "/my speech/a b"),
        ('"s3://bucket/my speech"', "s3://bucket/my speech"),
        (" “/speech” ", "/speech"),
        ("/speech/don't", "/speech/don't"),
        ("/speech/~old", "/speech/~old"),
        (" /with blanks ", " /with blanks "),
        ("https://host/~ann/speech", "https://host/~ann/speech"),
        ("", ""),
        ("'", "'"),
    ],
)
def test_a_place_is_what_is_meant(written: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert tidy(written) == meant


@given(st.text())
def test_a_tidy_place_stays_as_it_is(written: str) -> None:
    try:
        once = tidy(f"/{written}")
    except ValueError:
        return
    assert tidy(once) == once == f"/{written}"


@pytest.mark.parametrize("written", ["C:\\speech", "d:/speech/a.wav", "\\\\server\\speech", "'C:\\my speech'"])
def test_paths_of_windows_are_refused_in_words(
    written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["prepare", "--src_dir", written, "--des_dir", str(tmp_path / "out")])
    assert ended.value.code == 2
    bare = written.strip("'")
    refusal = f"error: --src_dir: {bare} is a path of Windows, which has another name on this system, e.g. /mnt/c/..."
    assert capsys.readouterr().err.startswith(refusal)
    with pytest.raises(RefusalError, match=r"^data_url: .* is a path of Windows"):
        from_parameters({"data_root": "/data", "data_url": written})


@pytest.mark.parametrize("command", [*STAGE_NAMES, *TOOLS])
def test_every_option_of_every_command_that_is_a_place_is_tidied(command: str) -> None:
    parser = build_parser(command)._subparsers._group_actions[0].choices[command]  # type: ignore[union-attr, index]
    texts = [
        action
        for action in parser._actions
        if isinstance(action, argparse._StoreAction) and action.type is None and not action.nargs and not action.choices
    ]
    for action in parser._actions:
        action.required = False
        if not action.option_strings:
            action.nargs = "*"
    for action in texts:
        if action.option_strings and action.dest not in NO_PLACES:
            read = parser.parse_args([action.option_strings[0], PATH])
            assert getattr(read, action.dest) == "/some where", f"is {action.dest} a place? see cosyflow/cli/parser.py"


def test_home_and_quotation_marks_in_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my speech").mkdir()
    assert main(["prepare", "--src_dir", "~/my speech", "--des_dir", f"'{tmp_path}/out'"]) == 1
    assert f"{tmp_path}/my speech" in capsys.readouterr().err
