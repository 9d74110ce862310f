"""The merge stage: whose shards go into which list, and what is refused."""

from __future__ import annotations

import shutil

import pytest

from cosyflow.cli.main import main
from cosyflow.dataset.merge import merge_lists
from cosyflow.errors import CosyFlowError


@pytest.fixture
def subsets(make_shards, tmp_path):
    """Three subsets with three shards of four utterances each."""
    folders = {}
    for name in ("one", "two", "three"):
        listing = make_shards()
        folder = tmp_path / "data" / name / "parquet"
        folder.mkdir(parents=True)
        for shard in listing.read_text().split():
            shutil.move(shard, folder)
        text = listing.read_text().replace(str(tmp_path), str(folder))
        (folder / "data.list").write_text(text)
        folders[name] = str(folder)
    return folders


def test_lists_are_those_of_the_subsets_in_the_order_asked_for(subsets, tmp_path):
    result = merge_lists(subsets, ["two", "one"], ["three"], str(tmp_path / "out"))
    lists = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    texts = {name: (tmp_path / "data" / name / "parquet" / "data.list").read_text() for name in subsets}
    assert lists == {"train.data.list": texts["two"] + texts["one"], "dev.data.list": texts["three"]}
    assert result.counts["train_utterances"] == 24
    assert result.counts["dev_shards"] == 3
    assert result.files == ["train.data.list", "dev.data.list"]


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        (["one", "four"], ["two"], r"train\.data\.list: there is no subset four; there are: one, three, two"),
        (["one"], ["four"], r"dev\.data\.list: there is no subset four"),
        ([], ["two"], r"train\.data\.list: no subset"),
        (["one", "one"], ["two"], r"the subset one is named twice"),
    ],
)
def test_subsets_that_cannot_be_merged(subsets, tmp_path, train, dev, message):
    with pytest.raises(CosyFlowError, match=message):
        merge_lists(subsets, train, dev, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_empty_list_is_named(subsets, tmp_path):
    (tmp_path / "data" / "two" / "parquet" / "data.list").write_text("\n")
    with pytest.raises(CosyFlowError, match=r"two/parquet/data\.list: empty list"):
        merge_lists(subsets, ["one", "two"], ["three"], str(tmp_path / "out"))


def test_a_shard_that_is_gone_is_named(subsets, tmp_path):
    (tmp_path / "data" / "two" / "parquet" / "parquet_000000001.tar").unlink()
    with pytest.raises(CosyFlowError, match=r"two/parquet/parquet_000000001\.tar does not exist"):
        merge_lists(subsets, ["one", "two"], ["three"], str(tmp_path / "out"))


def test_command_finds_the_official_folders(subsets, tmp_path, capsys):
    options = ["merge", "--src_dir", str(tmp_path / "data"), "--des_dir", str(tmp_path / "out")]
    assert main([*options, "--train_subsets", "one", "two", "--dev-subsets", "three"]) == 0
    assert "24 utterances to train on, 12 to validate on" in capsys.readouterr().out
    assert main([*options, "--train_subsets", "four", "--dev_subsets", "three"]) == 1
    assert capsys.readouterr().err == (
        "cosyflow merge: error: train.data.list: there is no subset four; there are: three\n"
    )


def test_who_speaks_in_both_lists_counts_once_and_shared_utterances_are_told(subsets, tmp_path, capsys):
    details = merge_lists(subsets, ["one", "two"], ["three"], str(tmp_path / "out")).details
    assert details == {"train_speakers": 1, "dev_speakers": 1, "speakers": 1, "utterances_in_both": 12}
    assert "warning: 12 of 12 utterances to validate on are trained on too" in capsys.readouterr().out


def test_without_subsets_to_validate_on_that_list_is_empty(subsets, tmp_path, capsys):
    where = ["--src_dir", str(tmp_path / "data"), "--des_dir", str(tmp_path / "out")]
    assert main(["merge", *where, "--train_subsets", "one", "--dev_subsets", "none"]) == 0
    told = capsys.readouterr().out
    assert "12 utterances to train on, 0 to validate on; 1 and 0 speakers, together 1" in told
    assert "dev.data.list is empty: a training needs another list as --cv_data" in told
    assert (tmp_path / "out/dev.data.list").read_text() == ""
