"""Every layout that people have becomes the same Kaldi folders, on this machine and in a store."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cosyflow import storage
from cosyflow.audio.opener import inspect_audio, read_samples
from cosyflow.corpus.importing.run import ImportSettings
from cosyflow.corpus.importing.source import Columns
from cosyflow.errors import CosyFlowError, RefusalError

from .conftest import RATE, Corpus, audio


def test_ljspeech(corpus: Corpus) -> None:
    for number in (1, 2, 3):
        corpus.put(f"wavs/LJ001-000{number}.wav", audio(number))
    corpus.put("README", "About.")
    corpus.put("wavs/LJ001-0009.wav", audio(9))
    corpus.put(
        "metadata.csv",
        'LJ001-0001|Dr. "Who, 1|Doctor "Who, one\nLJ001-0002|Two.|\nLJ001-0003|Three.|Three.\nLJ001-0004|Four.|Four.\n',
    )
    summary = corpus.run()
    name = storage.name(corpus.place)
    assert corpus.heard() == {
        "LJ001-0001": (name, 'Doctor "Who, one'),
        "LJ001-0002": (name, "Two."),
        "LJ001-0003": (name, "Three."),
    }
    assert corpus.utterances()["LJ001-0001"].wav == storage.join(corpus.place, "wavs/LJ001-0001.wav")
    assert summary.reasons == {"no audio": 1}
    assert summary.ignored == {"other files": 1, "transcripts and other texts": 1, "audio without a transcript": 1}
    assert not storage.exists(storage.join(corpus.dst, "audio"))


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "psv"])
def test_tables_with_usual_columns(corpus: Corpus, kind: str) -> None:
    rows = [("clips/a.wav", "Hello, there.", "anna"), ("clips/b.wav", "Good bye.", "bert")]
    for number, (name, _, _) in enumerate(rows):
        corpus.put(name, audio(number))
    if kind == "jsonl":
        fields = ("audio_filepath", "text", "speaker")
        lines = [json.dumps(dict(zip(fields, row, strict=True)) | {"duration": 1.0}) for row in rows]
        table = "\n".join(lines) + "\n\n"
    else:
        sign = {"csv": ",", "tsv": "\t", "psv": "|"}[kind]
        quote = '"' if kind == "csv" else ""
        table = f"\ufeffPath{sign}Sentence{sign}client_id\r\n"
        table += "".join(f"{name}{sign}{quote}{text}{quote}{sign}{speaker}\r\n" for name, text, speaker in rows)
    corpus.put(f"list.{kind}", table)
    corpus.run()
    assert corpus.heard() == {"a": ("anna", "Hello, there."), "b": ("bert", "Good bye.")}


def test_any_column_names_and_a_table_that_is_named_itself(corpus: Corpus) -> None:
    corpus.put("x/1.wav", audio(1))
    corpus.put("x/2.wav", audio(2))
    corpus.put("good.csv", "was,wer,wo\nEins.,anna,x/1.wav\n")
    corpus.put("bad.csv", "was,wer,wo\nZwei.,anna,x/2.wav\n")
    corpus.run(ImportSettings(Columns("was", "wer", "wo"), dev_share=0), within="good.csv")
    assert corpus.heard() == {"1": ("anna", "Eins.")}


def test_the_column_of_audio_is_known_by_the_files_that_it_names(local_corpus: Corpus) -> None:
    for number in range(3):
        local_corpus.put(f"ton/{number}.wav", audio(number))
    local_corpus.put("liste.csv", "Datei;Satz;speaker\n" + "".join(f'ton/{n}.wav;"Satz; {n}";s\n' for n in range(3)))
    with pytest.raises(
        CosyFlowError, match=r"liste\.csv has the columns Datei, Satz, speaker: name them as --text-column and"
    ):
        local_corpus.run()
    local_corpus.run(ImportSettings(Columns(text="Satz"), dev_share=0))
    assert [text for _, text in local_corpus.heard().values()] == ["Satz; 0", "Satz; 1", "Satz; 2"]


def test_columns_that_are_not_there_are_refused(local_corpus: Corpus) -> None:
    local_corpus.put("a.wav", audio())
    local_corpus.put("list.csv", "file,words\na.wav,Hi.\n")
    with pytest.raises(RefusalError, match="--text-column: there is no column 'txt'; name one of file, words"):
        local_corpus.run(ImportSettings(Columns(text="txt")))
    assert not storage.exists(local_corpus.dst)
    with pytest.raises(CosyFlowError, match=r"no layout that is known. Known are: Kaldi \(wav\.scp"):
        local_corpus.run()


@pytest.mark.parametrize("suffix", [".txt", ".lab"])
def test_audio_with_a_text_of_the_same_name(corpus: Corpus, suffix: str) -> None:
    for number, name in enumerate(("anna/1.wav", "anna/2.flac", "bert/1.mp3", "bert/3.ogg", "bert/4.OGG")):
        corpus.put(name, audio(number, {"flac": "FLAC", "mp3": "MP3", "ogg": "OGG"}.get(name[-3:].lower(), "WAV")))
    for name in ("anna/1", "anna/2", "bert/1", "bert/3", "bert/9"):
        corpus.put(f"{name}{suffix}", f"{name}\n said.\n")
    summary = corpus.run()
    assert corpus.heard() == {
        "1": ("anna", "anna/1 said."),
        "2": ("anna", "anna/2 said."),
        "bert_1": ("bert", "bert/1 said."),
        "3": ("bert", "bert/3 said."),
    }
    assert summary.ignored == {"audio without a transcript": 1, "transcripts and other texts": 5}


def test_texts_in_a_folder_of_their_own(corpus: Corpus) -> None:
    corpus.put("wav48/p225/p225_001.wav", audio(1))
    corpus.put("wav48/p226/p226_001.wav", audio(2))
    corpus.put("txt/p225/p225_001.txt", "One.")
    corpus.put("txt/p226/p226_001.txt", "Two.")
    corpus.run()
    assert corpus.heard() == {"p225_001": ("p225", "One."), "p226_001": ("p226", "Two.")}


def test_libritts_r(corpus: Corpus) -> None:
    corpus.put("train/84/1/84_1_0.wav", audio(1))
    corpus.put("train/84/1/84_1_0.normalized.txt", "One.")
    corpus.put("train/84/1/84_1_0.original.txt", "1.")
    corpus.put("train/85/2/85_2_0.wav", audio(2))
    corpus.put("train.tar.gz", b"x")
    summary = corpus.run(within="train")
    assert corpus.heard() == {"84_1_0": ("84", "One.")}
    assert summary.reasons == {"no transcript": 1}
    assert summary.ignored == {"transcripts and other texts": 2}


def test_magicdata(corpus: Corpus) -> None:
    corpus.put("train/38_5837/38_5837_1.wav", audio(1))
    corpus.put("train/38_5839/38_5839_1.wav", audio(2))
    corpus.put(
        "train/TRANS.txt",
        "UtteranceID\tSpeakerID\tTranscription\n38_5837_1.wav\t38_5837\t你好\n38_5839_1.wav\t38_5839\t再 见\n",
    )
    corpus.run()
    assert corpus.heard() == {"38_5837_1": ("38_5837", "你好"), "38_5839_1": ("38_5839", "再 见")}


def test_emilia_as_lines_and_as_pairs(corpus: Corpus) -> None:
    row = {"id": "EN_B00000_S00000_W000000", "text": " One.", "speaker": "EN_B00000_S00000", "dnsmos": 3.4}
    wav = "EN_B00000/EN_B00000_S00000/mp3/EN_B00000_S00000_W000000.mp3"
    corpus.put(f"EN/{wav}", audio(1, "MP3"))
    corpus.put("EN/EN_B00000.jsonl", json.dumps(row | {"wav": wav}) + "\n")
    corpus.run()
    assert corpus.heard() == {"EN_B00000_S00000_W000000": ("EN_B00000_S00000", "One.")}


def test_emilia_json_beside_mp3(corpus: Corpus) -> None:
    for number in (0, 1):
        name = f"EN_B00000_S00000_W00000{number}"
        corpus.put(f"EN/{name}.mp3", audio(number, "MP3"))
        corpus.put(f"EN/{name}.json", json.dumps({"id": name, "text": f"Text {number}.", "speaker": f"S{number}"}))
    corpus.run()
    assert corpus.heard() == {
        "EN_B00000_S00000_W000000": ("S0", "Text 0."),
        "EN_B00000_S00000_W000001": ("S1", "Text 1."),
    }


def tar(members: dict[str, bytes | str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def test_webdataset_tars(corpus: Corpus) -> None:
    corpus.put(
        "shard-000.tar",
        tar(
            {
                "anna/1.wav": audio(1), "anna/1.txt": "One.", "anna/2.json": '{"text": "Two.", "speaker": "Anna"}',
                "bert/1.mp3": audio(3, "MP3"), "anna/2.flac": audio(2, "FLAC"), "bert/1.txt": "Three.",
                "bert/4.wav": audio(4), "bert/5.txt": "Lost.", "bert/6.jpg": b"x", "bert/7.json": "{",
                "bert/7.wav": b"x",
            }
        ),
    )  # fmt: skip
    summary = corpus.run()
    assert corpus.heard() == {"1": ("anna", "One."), "2": ("Anna", "Two."), "bert_1": ("bert", "Three.")}
    assert summary.reasons == {"empty transcript": 1, "transcript is not JSON": 1}
    assert summary.ignored == {"transcripts and other texts": 4, "transcripts without audio": 1, "other files": 1}
    wavs = {utt: each.wav for utt, each in corpus.utterances().items()}
    assert wavs["bert_1"] == storage.join(corpus.dst, "audio", "bert_1.mp3")
    assert storage.read_bytes(wavs["2"]) == audio(2, "FLAC")


def test_members_that_begin_with_the_folder_itself_are_not_hidden(local_corpus: Corpus) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in (("./v1.0/a.flac", audio(1, "FLAC")), ("./v1.0/a.txt", b"Hello.")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    local_corpus.put("speech.tar.gz", packed.getvalue())
    local_corpus.run()
    assert [text for _, text in local_corpus.heard().values()] == ["Hello."]


def test_a_tar_that_is_cut_stops_the_import(local_corpus: Corpus) -> None:
    content = tar({"1.txt": "One.", "1.wav": audio(1)})
    local_corpus.put("a.tar", content[: len(content) // 3])
    with pytest.raises(CosyFlowError, match=r"a\.tar: damaged or not a tar archive"):
        local_corpus.run()


FORMS = {
    "bytes and path": lambda: [{"bytes": audio(n, "FLAC"), "path": f"/home/x/{n}.flac"} for n in (1, 2)],
    "bytes alone": lambda: [{"bytes": audio(n), "path": None} for n in (1, 2)],
    "plain bytes": lambda: [audio(n) for n in (1, 2)],
    "samples": lambda: [
        {"array": read_samples(audio(n))[0][:, 0].tolist(), "sampling_rate": RATE, "path": f"{n}.wav"} for n in (1, 2)
    ],
}


@pytest.mark.parametrize("container", ["stream.arrow", "file.arrow", "parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_data_sets_of_hugging_face(local_corpus: Corpus, form: str, container: str) -> None:
    check_data_set(local_corpus, form, container)


def test_a_data_set_in_a_store(corpus: Corpus) -> None:
    check_data_set(corpus, "bytes and path", "stream.arrow")


def check_data_set(corpus: Corpus, form: str, container: str) -> None:
    table = pa.table({"audio": FORMS[form](), "sentence": ["One.", "Two."], "speaker_id": [7, 8]})
    stream = io.BytesIO()
    if container == "parquet":
        pq.write_table(table, stream)
    else:
        new = pa.ipc.new_stream if container == "stream.arrow" else pa.ipc.new_file
        with new(stream, table.schema) as writer:
            writer.write_table(table)
    name = "data/train-00000-of-00001.parquet" if container == "parquet" else "train/data-00000-of-00001.arrow"
    corpus.put(name, stream.getvalue())
    corpus.put("train/state.json", "{}")
    corpus.put("dataset_info.json", "{}")
    summary = corpus.run()
    assert sorted(corpus.heard().values()) == [("7", "One."), ("8", "Two.")]
    assert summary.ignored == {"transcripts and other texts": 2}
    for each, number in zip(sorted(corpus.utterances().values(), key=lambda each: each.text), (1, 2), strict=True):
        assert np.allclose(read_samples(each.wav)[0], read_samples(audio(number))[0], atol=1e-4)


def test_a_data_set_that_names_files(corpus: Corpus) -> None:
    corpus.put("clips/a.wav", audio(1))
    stream = io.BytesIO()
    pq.write_table(pa.table({"path": ["clips/a.wav", "clips/b.wav"], "text": ["One.", "Two."]}), stream)
    corpus.put("index.parquet", stream.getvalue())
    summary = corpus.run()
    assert [each.wav for each in corpus.utterances().values()] == [storage.join(corpus.place, "clips/a.wav")]
    assert summary.reasons == {"no audio": 1}


def test_kaldi_with_segments(corpus: Corpus) -> None:
    corpus.put("long.wav", audio(1, seconds=2))
    corpus.put("wav.scp", "r long.wav\n")
    corpus.put("segments", "a r 0 0.5\nb r 0.5 1.5\nc x 0 1\nd r 3 4\n")
    corpus.put("text", "a A.\nb B.\nc C.\nd D.\n")
    corpus.put("utt2spk", "a s\nb t\nc t\nd t\n")
    corpus.put("instruct", "a Softly.\nb Loudly.\nc Softly.\nd Softly.\n")
    summary = corpus.run()
    assert corpus.heard() == {"a": ("s", "A."), "b": ("t", "B.")}
    assert corpus.utterances()["b"].instruct == "Loudly."
    assert corpus.utterances()["b"].wav == storage.join(corpus.place, "long.wav") + "#t=0.5,1.5"
    assert inspect_audio(corpus.utterances()["b"].wav).seconds == 1.0
    assert summary.reasons == {"no recording": 1, "segment beyond the end": 1}


@pytest.mark.parametrize("value", ["a" * 5000, "a\0b", "/etc", "..", "s3:///", "x://y", "#t=1", "\ud800"])
def test_an_audio_column_with_anything_in_it_costs_that_row(local_corpus: Corpus, value: str) -> None:
    local_corpus.put("a.wav", audio(1))
    rows = [{"path": "a.wav", "text": "One."}, {"path": value, "text": "Two."}]
    local_corpus.put("list.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    summary = local_corpus.run()
    assert [each.text for each in summary.taken] == ["One."]
    assert summary.reasons.total() == 1
