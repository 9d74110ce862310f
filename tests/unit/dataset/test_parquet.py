"""The parquet stage: rejects, resuming, bad input. The layout is compared with the official one in tests/golden."""

from __future__ import annotations

import json

import pandas
import pyarrow.parquet as pq
import pytest
import torch

from cosyflow.cli.main import main
from cosyflow.corpus.rejects import read_rejects
from cosyflow.dataset import parquet as parquet_module
from cosyflow.dataset.batching import TokenBudget
from cosyflow.dataset.index import build_index
from cosyflow.dataset.loader import build_loader
from cosyflow.dataset.merge import merge_lists
from cosyflow.dataset.parquet import make_parquet
from cosyflow.dataset.plan import plan_epoch
from cosyflow.dataset.reader import UtteranceReader
from cosyflow.errors import CosyFlowError


@pytest.fixture
def source(tmp_path, wav_bytes):
    """A folder as the official tools fill it: Kaldi files, embeddings and tokens of ten utterances of two speakers."""
    folder = tmp_path / "source"
    folder.mkdir()
    utts = [f"{number % 2}_{number}" for number in range(10)]
    for place, utt in enumerate(utts):
        (folder / f"{utt}.wav").write_bytes(wav_bytes(1 + place / 10))
    (folder / "wav.scp").write_text("".join(f"{utt} {folder}/{utt}.wav\n" for utt in utts))
    (folder / "text").write_text("".join(f"{utt} says  {utt}\n" for utt in utts))
    (folder / "utt2spk").write_text("".join(f"{utt} {utt[0]}\n" for utt in utts))
    torch.save({utt: [float(place + 1)] * 192 for place, utt in enumerate(utts)}, folder / "utt2embedding.pt")
    torch.save({spk: [1.0] * 192 for spk in "01"}, folder / "spk2embedding.pt")
    torch.save({utt: [place] * (place + 1) for place, utt in enumerate(utts)}, folder / "utt2speech_token.pt")
    return folder


def make(source, output, **options):
    return make_parquet(str(source), str(source), str(source), str(output), num_utts_per_parquet=4, **options)


def edit_table(path, edit):
    table = torch.load(path, weights_only=True)
    edit(table)
    torch.save(table, path)


def rows_of(output):
    lines = (output / "data.list").read_text().split()
    return [row for line in lines for row in pq.read_table(line).to_pylist()]


def test_shards_feed_the_index_without_reading_audio(source, tmp_path, tokenizer):
    result = make(source, tmp_path / "out")
    assert result.counts == {"inputs": 10, "outputs": 10, "rejects": 0, "shards": 3}
    assert result.details == {"hours": round(14.5 / 3600, 4), "speech_tokens": 55}
    index = build_index(str(tmp_path / "out" / "data.list"), tokenizer)
    assert index.num_samples.tolist() == [int((1 + place / 10) * 16000) for place in range(10)]
    assert index.speech_len.tolist() == list(range(1, 11))
    assert bytes(index.text[0].tolist()) == b"says 0_0"


def test_pandas_reads_a_shard(source, tmp_path):
    make(source, tmp_path / "out")
    frame = pandas.read_parquet(tmp_path / "out" / "parquet_000000002.tar")
    assert frame.index.equals(pandas.RangeIndex(2))
    assert frame["utt"].tolist() == ["0_8", "1_9"]


@pytest.mark.parametrize("num_processes", [1, 3])
def test_every_file_is_named_in_the_result(source, tmp_path, num_processes):
    result = make(source, tmp_path / "out", num_processes=num_processes)
    assert sorted(result.files) == sorted(path.name for path in (tmp_path / "out").iterdir())


def test_what_was_not_extracted_is_rejected_with_the_reason_of_the_extraction(source, tmp_path):
    edit_table(source / "utt2embedding.pt", lambda table: table.pop("0_0"))
    edit_table(source / "utt2speech_token.pt", lambda table: (table.pop("1_1"), table.update({"0_2": []})))
    (source / "rejects.tsv").write_text("utt\treason\n1_1\tlonger than 30 s\n")
    result = make(source, tmp_path / "out", max_reject_share=0.2)
    assert result.counts == {"inputs": 10, "outputs": 7, "rejects": 3, "shards": 2}
    assert read_rejects(str(tmp_path / "out")) == {
        "0_0": "is not in utt2embedding.pt",
        "0_2": "has no tokens in utt2speech_token.pt",
        "1_1": "longer than 30 s",
    }
    assert [row["utt"] for row in rows_of(tmp_path / "out")] == [f"{number % 2}_{number}" for number in range(3, 10)]


def test_tokens_of_half_the_audio_are_rejected_also_without_a_recipe(source, tmp_path, capsys):
    tokens = {f"{place % 2}_{place}": [7] * (25 + place * 5 // 2) for place in range(10)}
    torch.save(tokens | {"0_4": [7] * 17, "1_7": [7] * 50}, source / "utt2speech_token.pt")
    result = make(source, tmp_path / "out", max_reject_share=0.2)
    assert result.counts == {"inputs": 10, "outputs": 8, "rejects": 2, "shards": 3}
    reasons = read_rejects(str(tmp_path / "out"))
    assert reasons["0_4"].startswith("has 17 speech tokens for 1.40 s of audio, they stand for 0.68 s; make its tokens")
    assert reasons["1_7"].startswith("has 50 speech tokens for 1.70 s of audio, they stand for 2.00 s")
    torch.save({utt: [7] * 10 for utt in tokens}, source / "utt2speech_token.pt")
    make(source, tmp_path / "other")
    assert (
        "speech tokens are not compared with the audio: few utterances have 25 or 50 a second"
        in capsys.readouterr().out
    )


def test_what_the_extraction_tolerated_is_not_held_against_this_stage(source, tmp_path):
    edit_table(source / "utt2speech_token.pt", lambda table: table.pop("1_1"))
    (source / "rejects.tsv").write_text("utt\treason\n1_1\tlonger than 30 s\n")
    assert make(source, tmp_path / "out", max_reject_share=0.0).counts["rejects"] == 1


def test_a_corpus_of_nothing_but_rejects_is_an_error(source, tmp_path):
    torch.save({}, source / "utt2speech_token.pt")
    (source / "rejects.tsv").write_text("utt\treason\n" + "".join(f"{n % 2}_{n}\tbad\n" for n in range(10)))
    with pytest.raises(CosyFlowError, match="no utterance can be used, the first is 0_0: bad"):
        make(source, tmp_path / "out")


def test_unreadable_audio_is_rejected_and_the_rest_of_its_shard_is_kept(source, tmp_path):
    (source / "1_1.wav").unlink()
    (source / "0_2.wav").write_bytes(b"")
    result = make(source, tmp_path / "out", max_reject_share=0.2)
    assert result.counts == {"inputs": 10, "outputs": 8, "rejects": 2, "shards": 3}
    reasons = read_rejects(str(tmp_path / "out"))
    assert "does not exist" in reasons["1_1"]
    assert "empty file" in reasons["0_2"]


def test_a_shard_without_any_usable_utterance_is_not_listed(source, tmp_path):
    for utt in ("0_8", "1_9"):
        (source / f"{utt}.wav").unlink()
    make(source, tmp_path / "out", max_reject_share=0.2)
    assert (tmp_path / "out" / "data.list").read_text().count("\n") == 2


def test_too_many_rejects_are_an_error_before_anything_is_written(source, tmp_path):
    edit_table(source / "utt2speech_token.pt", lambda table: table.pop("1_1"))
    with pytest.raises(CosyFlowError, match=r"1 of 10 utterances .* 1_1: has no tokens in utt2speech_token\.pt"):
        make(source, tmp_path / "out", max_reject_share=0.05)
    assert not (tmp_path / "out").exists()


def test_rejected_speech_is_null_where_there_is_none(source, tmp_path):
    rejected = tmp_path / "rejected"
    rejected.mkdir()
    torch.save({"0_0": [7, 8]}, rejected / "utt2speech_token.pt")
    make(source, tmp_path / "out", reject_token_dir=str(rejected))
    assert [row["reject_speech_token"] for row in rows_of(tmp_path / "out")] == [[7, 8]] + [None] * 9


def test_an_interrupted_stage_writes_only_what_is_missing(source, tmp_path, monkeypatch):
    written = []
    original = parquet_module.write_shard

    def write(uri, columns, notes):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(uri)
        original(uri, columns, notes)

    monkeypatch.setattr(parquet_module, "write_shard", write)
    with pytest.raises(KeyboardInterrupt):
        make(source, tmp_path / "out")
    assert not (tmp_path / "out" / "data.list").exists()

    again = []
    monkeypatch.setattr(parquet_module, "write_shard", lambda uri, *rest: (again.append(uri), original(uri, *rest)))
    resumed = make(source, tmp_path / "out")
    assert len(again) == 1
    monkeypatch.setattr(parquet_module, "write_shard", original)
    whole = make(source, tmp_path / "whole")
    assert (resumed.counts, resumed.digest, resumed.details) == (whole.counts, whole.digest, whole.details)
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "whole")


@pytest.mark.parametrize("changed", ["text", "tokens", "audio"])
def test_a_shard_is_made_again_when_its_rows_change(source, tmp_path, changed, wav_bytes):
    make(source, tmp_path / "out")
    before = rows_of(tmp_path / "out")
    if changed == "text":
        (source / "text").write_text((source / "text").read_text().replace("1_5 says", "1_5 shouts"))
    elif changed == "tokens":
        edit_table(source / "utt2speech_token.pt", lambda table: table.update({"1_5": [3]}))
    else:
        (source / "1_5.wav").write_bytes(wav_bytes(3))
    make(source, tmp_path / "out")
    after = rows_of(tmp_path / "out")
    assert [row["utt"] for old, row in zip(before, after, strict=True) if old != row] == ["1_5"]


def test_a_mended_file_is_taken_up(source, tmp_path, wav_bytes):
    (source / "0_0.wav").write_bytes(b"")
    make(source, tmp_path / "out", max_reject_share=0.1)
    (source / "0_0.wav").write_bytes(wav_bytes(1))
    assert make(source, tmp_path / "out").counts["rejects"] == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "wav.scp").unlink(), "wav.scp does not exist"),
        (lambda folder: (folder / "spk2embedding.pt").unlink(), "spk2embedding.pt does not exist"),
        (lambda folder: (folder / "utt2embedding.pt").write_bytes(b"no pickle"), "utt2embedding.pt: damaged"),
        (lambda folder: torch.save([1], folder / "utt2embedding.pt"), "utt2embedding.pt: holds a list"),
        (
            lambda folder: torch.save({"0_0": "x"}, folder / "utt2speech_token.pt"),
            "entry of 0_0 is not a list of numbers",
        ),
        (lambda folder: [path.unlink() for path in folder.glob("*.wav")], "cannot be used, the first is 0_0: "),
    ],
    ids=["no wav.scp", "no speaker embeddings", "damaged table", "not a dictionary", "not numbers", "no audio"],
)
def test_bad_input_is_one_line_and_leaves_the_output_as_it_was(source, tmp_path, capsys, spoil, message):
    output = tmp_path / "out"
    options = ["parquet", "--src_dir", str(source), "--des_dir", str(output), "--num-utts-per-parquet", "4"]
    assert main(options) == 0
    before = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    spoil(source)
    capsys.readouterr()
    assert main(options) == 1
    error = capsys.readouterr().err
    assert error.startswith("cosyflow parquet: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()} == before


def test_columns_without_a_file_are_left_out_like_the_official_tool_does(source, tmp_path):
    (source / "utt2embedding.pt").unlink()
    (source / "utt2speech_token.pt").unlink()
    assert main(["parquet", "--src_dir", str(source), "--des_dir", str(tmp_path / "out")]) == 0
    (shard,) = (tmp_path / "out").glob("parquet_*.tar")
    assert pq.ParquetFile(shard).schema_arrow.names == ["utt", "audio_data", "wav", "text", "spk"]


def utterance_ids(utterances):
    return [utterance.utt for utterance in utterances]


@pytest.mark.slow
def test_everything_from_shards_to_batches_works_in_an_object_store(source, tokenizer, s3_folder):
    for run in range(2):
        result = make(source, f"{s3_folder}/dev")
        assert result.counts["outputs"] == 10, run
    merge_lists({"dev": f"{s3_folder}/dev"}, ["dev"], ["dev"], s3_folder)
    index = build_index(f"{s3_folder}/train.data.list", tokenizer)
    assert index.shards[0] == f"{s3_folder}/dev/parquet_000000000.tar"
    share = plan_epoch(index, 1, 0, TokenBudget(20, lambda index: index.speech_len)).share()
    loader = build_loader(share, UtteranceReader(index), utterance_ids, num_workers=1)
    assert [utt for batch in loader for utt in batch] == index.utts[share.plan.rows].tolist()


def test_maps_name_the_shard_of_each_utterance(source, tmp_path):
    make(source, tmp_path / "out")
    maps = sorted((tmp_path / "out").glob("utt2parquet_*.json"))
    found = {utt: shard for path in maps for utt, shard in json.loads(path.read_text()).items()}
    assert found["1_5"] == str(tmp_path / "out" / "parquet_000000001.tar")
    assert len(found) == 10
