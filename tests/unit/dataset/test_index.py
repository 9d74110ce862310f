"""The index: what it reads, with and without our notes in the footers, and what it says of shards that are no good."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from cosyflow.dataset.index import build_index
from cosyflow.dataset.shard import read_list
from cosyflow.errors import CosyFlowError


@pytest.mark.parametrize("notes", [True, False], ids=["our shards", "official shards"])
def test_index_of_shards(make_shards, tokenizer, notes):
    index = build_index(str(make_shards(notes=notes)), tokenizer)
    assert index.utts.tolist() == [f"utt{number}" for number in range(12)]
    assert index.shard.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert index.row.tolist() == [0, 1, 2, 3] * 3
    assert index.seconds.tolist() == [1.0] * 12
    assert index.speech_len.tolist() == [number % 7 + 3 for number in range(12)]
    assert index.rejected_len.tolist() == [1, 0] * 6
    assert bytes(index.text[11].tolist()) == b"text 11"
    assert index.text_len.tolist() == [6] * 10 + [7] * 2
    assert index.instruct is None


def test_select_keeps_what_belongs_together(make_shards, tokenizer):
    index = build_index(str(make_shards()), tokenizer)
    part = index.select(np.array([11, 2]))
    assert part.utts.tolist() == ["utt11", "utt2"]
    assert [bytes(part.text[row].tolist()) for row in range(2)] == [b"text 11", b"text 2"]


def test_text_ids_outside_the_vocabulary_name_the_utterance(make_shards, tokenizer):
    index = build_index(str(make_shards()), tokenizer)
    index.check_text_ids(256)
    with pytest.raises(CosyFlowError, match=r"text of utt0 has token 120, the model knows ids below 120"):
        index.check_text_ids(120)


def damage(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "data.list").unlink(), r"data\.list does not exist"),
        (lambda folder: (folder / "data.list").write_text("\n"), r"data\.list: empty list"),
        (lambda folder: (folder / "parquet_000000001.tar").unlink(), r"parquet_000000001\.tar does not exist"),
        (lambda folder: damage(folder / "parquet_000000001.tar"), r"parquet_000000001\.tar: damaged"),
        (lambda folder: (folder / "parquet_000000002.tar").write_bytes(b""), r"parquet_000000002\.tar: damaged"),
    ],
    ids=["no list", "empty list", "absent shard", "truncated shard", "empty shard"],
)
def test_bad_lists_and_shards_are_named(make_shards, tokenizer, spoil, message):
    listing = make_shards()
    spoil(listing.parent)
    with pytest.raises(CosyFlowError, match=message) as error:
        build_index(str(listing), tokenizer)
    assert "\n" not in str(error.value)


def test_a_lacking_column_is_named(make_shards, tokenizer):
    with pytest.raises(CosyFlowError, match=r"parquet_000000000\.tar: has no column text"):
        build_index(str(make_shards(leave_out=["text"])), tokenizer)


def test_an_empty_field_is_named(make_shards, tokenizer, tmp_path):
    listing = make_shards(num_shards=1)
    path = tmp_path / "parquet_000000000.tar"
    table = pq.read_table(path)
    texts = ["a", None, "c", "d"]
    pq.write_table(table.set_column(table.schema.get_field_index("text"), "text", [texts]), path)
    with pytest.raises(CosyFlowError, match="row 2 has no text"):
        build_index(str(listing), tokenizer)


def test_bad_audio_in_an_official_shard_is_named(make_shards, tokenizer, tmp_path):
    listing = make_shards(num_shards=1, notes=False)
    path = tmp_path / "parquet_000000000.tar"
    table = pq.read_table(path)
    audio = [b"RIFF", *table["audio_data"].to_pylist()[1:]]
    pq.write_table(table.set_column(table.schema.get_field_index("audio_data"), "audio_data", [audio]), path)
    with pytest.raises(CosyFlowError, match=r"parquet_000000000\.tar: utterance utt0"):
        build_index(str(listing), tokenizer)


@pytest.mark.parametrize(
    "write", ["\ufeff{0}\n{1}\n", "{0}\r\n\r\n{1}\r\n", "\"{0}\"\n '{1}' \n", "~/{0.name}\n~/{1.name}"]
)
def test_lists_as_people_write_them(make_shards, tmp_path, monkeypatch, write):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_shards(num_shards=2)
    paths = [tmp_path / f"parquet_{number:09}.tar" for number in range(2)]
    (tmp_path / "mine.list").write_bytes(write.format(*paths).encode())
    assert read_list(str(tmp_path / "mine.list")) == [str(path) for path in paths]


def test_a_shard_in_place_of_a_list_is_a_list_of_itself(make_shards, tmp_path):
    make_shards(num_shards=1)
    shard = str(tmp_path / "parquet_000000000.tar")
    assert read_list(shard) == [shard]


def test_lists_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "windows.list").write_text("a.tar\nC:\\data\\parquet_000000000.tar\n")
    with pytest.raises(
        CosyFlowError, match=r"windows\.list:2: C:\\data\\.* is a path of Windows, which has another name"
    ):
        read_list(str(tmp_path / "windows.list"))
    with pytest.raises(CosyFlowError, match=r"is a folder; name the data\.list in it"):
        read_list(str(tmp_path))
