"""The table of rejects: written, read back, and a limit that stops a stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.corpus.rejects import RejectTable, read_rejects
from cosyflow.errors import CosyFlowError


def table(**reasons: str) -> RejectTable:
    rejects = RejectTable()
    for utt, reason in reasons.items():
        rejects.add(utt, reason)
    return rejects


def test_the_table_is_read_back_sorted_with_one_line_reasons(tmp_path: Path) -> None:
    rejects = table(b="no\ntranscript\there", a="too long")
    rejects.add("a", "a second reason")
    rejects.write(str(tmp_path))
    assert (tmp_path / "rejects.tsv").read_text() == "utt\treason\na\ttoo long\nb\tno transcript here\n"
    assert read_rejects(str(tmp_path)) == {"a": "too long", "b": "no transcript here"}


def test_a_folder_without_a_table_and_an_empty_table_have_no_rejects(tmp_path: Path) -> None:
    assert read_rejects(str(tmp_path)) == {}
    table().write(str(tmp_path))
    assert read_rejects(str(tmp_path)) == {}


def test_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rejects.tsv").write_text("a b\n")
    with pytest.raises(CosyFlowError, match=r"rejects\.tsv: not a table of rejects"):
        read_rejects(str(tmp_path))


@pytest.mark.parametrize(
    ("rejected", "total", "share", "passes"),
    [
        (0, 0, 0.0, True),
        (0, 9, 0.0, True),
        (1, 100, 0.01, True),
        (2, 100, 0.01, False),
        (1, 9, 0.0, False),
        (9, 9, 1.0, False),
    ],
)
def test_the_limit_is_inclusive_and_something_must_be_left(
    rejected: int, total: int, share: float, passes: bool
) -> None:
    rejects = table(**{f"u{number}": "bad" for number in range(rejected)})
    if passes:
        rejects.check(total, share)
    else:
        with pytest.raises(CosyFlowError, match=rf"{rejected} of {total} utterances .* the first is u0: bad"):
            rejects.check(total, share)


def test_a_share_is_between_0_and_1() -> None:
    with pytest.raises(CosyFlowError, match="between 0 and 1, not 5"):
        table().check(1, 5)
