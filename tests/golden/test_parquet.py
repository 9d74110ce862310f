"""Shards have the layout of the official ones: names, columns, types, compression, metadata, lists and maps."""

from __future__ import annotations

import hashlib
import json

import pyarrow.parquet as pq
import pytest
import torch

from cosyflow.dataset.parquet import make_parquet


def fill_in(text, wav_dir, output_dir):
    return text.replace("<wav_dir>", str(wav_dir)).replace("<des_dir>", str(output_dir))


@pytest.mark.parametrize("dpo", [True, False])
@pytest.mark.golden_files("data/parquet_layout*.json")
def test_layout(golden_file, tmp_path, dpo):
    golden = json.loads(golden_file.read_text())
    wav_dir, source, rejected, output = golden_file.parent / "wav", tmp_path / "src", tmp_path / "rej", tmp_path / "out"
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
    torch.save(dict.fromkeys(utts, row["reject_speech_token"]), rejected / "utt2speech_token.pt")

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
        expected = golden["schema"] if dpo else dict(list(golden["schema"].items())[:-1])
        assert list(schema.items()) == list(expected.items())
        assert file.metadata.num_rows == num_rows
        assert file.num_row_groups == golden["row_groups"]
        group = file.metadata.row_group(0)
        assert {group.column(place).compression for place in range(group.num_columns)} == {golden["compression"]}
        described = json.loads(file.schema_arrow.metadata[b"pandas"])
        assert described["index_columns"] == golden["pandas_index_column"]
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
