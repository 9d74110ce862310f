"""Shards have the layout of the official ones: names, columns, types, compression, metadata, lists and maps."""

from __future__ import annotations

import hashlib
import json

import pyarrow.parquet as pq
import pytest
import torch

from cosyflow.dataset.parquet import make_parquet

REJECTED = "reject_speech_token"


def fill_in(text, wav_dir, output_dir):
    return text.replace("<wav_dir>", str(wav_dir)).replace("<des_dir>", str(output_dir))


@pytest.mark.parametrize("dpo", [True, False])
@pytest.mark.golden_files("data/parquet_layout*.json")
def test_layout(golden_file, tmp_path, dpo):
    """Each shard's index column counts its own rows, of which the last shard may have fewer."""
    golden = json.loads(golden_file.read_text())
    if dpo and REJECTED not in golden["schema"]:
        golden["schema"][REJECTED] = "list<element: int64>"
    check_layout(golden, golden_file.parent / "wav", tmp_path, dpo)


@pytest.mark.parametrize("per_shard", [1, 4, 5, 6, 1000])
@pytest.mark.golden_files("data/parquet_layout.json")
def test_layout_with_a_last_shard_that_is_smaller(golden_file, tmp_path, per_shard):
    golden = json.loads(golden_file.read_text())
    utts = [line.split()[0] for line in golden["kaldi"]["wav.scp"].splitlines()]
    shards = [utts[start : start + per_shard] for start in range(0, len(utts), per_shard)]
    names = [f"parquet_{number:09d}.tar" for number in range(len(shards))]
    golden["args"]["num_utts_per_parquet"] = per_shard
    golden["rows"] = [len(shard) for shard in shards]
    golden["contents"] = {"data.list": "".join(f"<des_dir>/{name}\n" for name in names)}
    kinds = ("utt2parquet", "spk2parquet")
    maps = [f"{kind}_{number:09d}.json" for kind in kinds for number in range(len(shards))]
    golden["files"] = ["data.list", "utt2data.list", "spk2data.list", *names, *maps]
    check_layout(golden, golden_file.parent / "wav", tmp_path, dpo=True)


def check_layout(golden, wav_dir, tmp_path, dpo):
    source, rejected, output = tmp_path / "src", tmp_path / "rej", tmp_path / "out"
    source.mkdir()
    rejected.mkdir()
    for name, text in golden["kaldi"].items():
        (source / name).write_text(fill_in(text, wav_dir, output), encoding="utf-8")
    row = golden["row0"]
    utts = [line.split()[0] for line in golden["kaldi"]["wav.scp"].splitlines()]
    speakers = {line.split()[1] for line in golden["kaldi"]["utt2spk"].splitlines()}
    torch.save({utt: [0.25 * place] * 192 for place, utt in enumerate(utts)}, source / "utt2embedding.pt")
    torch.save({speaker: [0.5] * 192 for speaker in speakers}, source / "spk2embedding.pt")
    torch.save(dict.fromkeys(utts, row["speech_token"]), source / "utt2speech_token.pt")
    torch.save(dict.fromkeys(utts, row.get(REJECTED, [1])), rejected / "utt2speech_token.pt")

    make_parquet(
        str(source),
        str(source),
        str(source),
        str(output),
        num_utts_per_parquet=golden["args"]["num_utts_per_parquet"],
        num_processes=2,
        reject_token_dir=str(rejected) if dpo else None,
    )

    assert {path.name for path in output.iterdir()} == {*golden["files"], "rejects.tsv"}
    for name, text in golden["contents"].items():
        if not name.startswith("spk2parquet"):  # the official tool leaves these empty, which is a fault of it
            assert (output / name).read_text(encoding="utf-8") == fill_in(text, wav_dir, output)
    shards = sorted(output.glob("parquet_*.tar"))
    for shard, num_rows in zip(shards, golden["rows"], strict=True):
        file = pq.ParquetFile(shard)
        schema = {field.name: str(field.type) for field in file.schema_arrow}
        expected = {name: kind for name, kind in golden["schema"].items() if dpo or name != REJECTED}
        assert list(schema.items()) == list(expected.items())
        assert file.metadata.num_rows == num_rows
        assert file.num_row_groups == golden["row_groups"]
        group = file.metadata.row_group(0)
        assert {group.column(place).compression for place in range(group.num_columns)} == {golden["compression"]}
        described = json.loads(file.schema_arrow.metadata[b"pandas"])
        assert described["index_columns"] == [index | {"stop": num_rows} for index in golden["pandas_index_column"]]
    (first, *_) = pq.read_table(shards[0]).to_pylist()
    audio = first.pop("audio_data")
    assert f"<{len(audio)} bytes of the wav file, sha1 {hashlib.sha1(audio).hexdigest()}>" == row["audio_data"]  # noqa: S324
    for name in first.keys() & row.keys():
        assert first[name] == (fill_in(row[name], wav_dir, output) if isinstance(row[name], str) else row[name])


@pytest.mark.golden_files("data/parquet_layout*.json")
def test_speaker_maps_are_as_the_official_tool_means_them(golden_file, tmp_path):
    """Speaker to shard; an undefined variable leaves the official ones empty."""
    golden = json.loads(golden_file.read_text())
    source, output = tmp_path / "src", tmp_path / "out"
    source.mkdir()
    for name, text in golden["kaldi"].items():
        (source / name).write_text(fill_in(text, golden_file.parent / "wav", output), encoding="utf-8")
    make_parquet(str(source), None, None, str(output), golden["args"]["num_utts_per_parquet"])
    speakers = [line.split()[1] for line in golden["kaldi"]["utt2spk"].splitlines()]
    for number, size in enumerate(golden["rows"]):
        shard = str(output / f"parquet_{number:09d}.tar")
        first = sum(golden["rows"][:number])
        expected = dict.fromkeys(speakers[first : first + size], shard)
        assert json.loads((output / f"spk2parquet_{number:09d}.json").read_text()) == expected
