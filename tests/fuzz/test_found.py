"""Inputs that once ended in a traceback, without end or without memory, each as small as it could be."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from cosyflow import storage
from cosyflow.audio.container import Facts, flac, look
from cosyflow.audio.opener import inspect_audio, read_samples
from cosyflow.checkpoint.describe import describe
from cosyflow.checkpoint.folder import list_checkpoints
from cosyflow.checkpoint.state import UnusableError, load
from cosyflow.config import yaml_text
from cosyflow.config.load import load_config
from cosyflow.corpus.archive import ArchiveError, unpack
from cosyflow.dataset.index import build_index
from cosyflow.dataset.merge import merge_lists
from cosyflow.dataset.shard import ShardNotes, read_list, write_shard
from cosyflow.dataset.statistics import gather_statistics
from cosyflow.errors import AudioError, CosyFlowError, RefusalError
from cosyflow.extract.model import SPEAKER, ModelFile, OnnxModel
from cosyflow.launch.settings import read_settings
from cosyflow.release.average import average_weights
from cosyflow.run import config
from cosyflow.run.ends import read_ends
from cosyflow.run.record import Record
from cosyflow.stage import Manifest, StageResult
from cosyflow.standins.onnx_models import write_onnx_models
from cosyflow.unexpected import reading
from tests.fuzz.binaries import Bytes
from tests.fuzz.texts import imported, tone

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 25))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 1000, "nested too deeply"),
        (BOMB, "its aliases stand for more than 1000000 values"),
        ("&a [*a]", "contains itself"),
        ("&a {<<: *a}", "contains itself"),
        ("!!int x", "a value that is none"),
        ("a: 2001-13-45", "a value that is none"),
        (f"a: {'9' * 5000}", "a value that is none"),
        ("a: \x0b", "special characters are not allowed"),
    ],
)
def test_yaml_is_read_or_refused(text: str, problem: str) -> None:
    with pytest.raises(yaml.MarkedYAMLError) as refused:
        yaml_text.load(text)
    assert problem in str(refused.value.problem)


def test_two_things_that_are_wrong_with_one_setting_are_both_named() -> None:
    with pytest.raises(RefusalError) as refused:
        config.from_parameters({"data_root": "/data", "resources": {"added": {"a": "1"}}})
    assert [problem.setting for problem in refused.value.problems] == ["resources", "resources"]


@pytest.mark.parametrize("limits", ["{nvidia.com/gpu: null}", "{nvidia.com/gpu: many}", "[1]"])
def test_devices_that_are_no_number_are_refused(limits: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(f"resources: {{limits: {limits}}}\n", encoding="utf-8")
    with pytest.raises(RefusalError, match=r"job\.yaml: resources: a pod's devices are a whole number"):
        read_settings(str(tmp_path / "job.yaml"))


@pytest.mark.parametrize("text", ["[" * 1000, BOMB, "a: 2001-13-45"], ids=["deep", "bomb", "date"])
def test_a_recipe_and_a_run_are_refused_by_their_names(text: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(CosyFlowError, match=r"own\.yaml"):
        load_config(path)
    with pytest.raises(CosyFlowError, match=r"own\.yaml"):
        config.read_run(str(path))


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '{"a": 1'], ids=["deep", "long number", "cut"])
def test_json_is_refused_by_its_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(CosyFlowError, match=r"a\.json.*not JSON"):
        storage.read_json(str(path))


@pytest.mark.parametrize(
    "content", [[], {"recipe": []}, {"recipe": {"version": []}, "run": 1}, {"recipe": {"version": "x"}, "run": {}}]
)
def test_what_is_no_record_is_refused_by_its_name(content: object, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(CosyFlowError, match=r"r\.json: not a record"):
        Record.read(str(tmp_path / "r.json"))


@pytest.mark.parametrize(
    "changed",
    [{"files": []}, {"files": None}, {"files": 1}, {"files": {"a": "1"}}, {"counts": {"outputs": None}},
     {"folders": {"a": 1}}, {"folders": {"a": [1, None]}}, {"inputs": [1]}, {"made_by": {"commit": 1}}],
)  # fmt: skip
def test_a_manifest_with_other_types_is_none(changed: dict[str, object]) -> None:
    whole = Manifest("s", "n", "k", "u", "d", {}, {}, {}, {}, [], {}, 1.0, False)
    with pytest.raises(CosyFlowError, match="m: not a manifest of a CosyFlow stage"):
        Manifest.from_json(json.dumps(json.loads(whole.to_json()) | changed), "m")


@pytest.mark.parametrize("content", [[], {"ends": [1]}, {"stage": 1}, 7])
def test_what_no_task_left_is_refused_by_its_name(content: object, tmp_path: Path) -> None:
    for name in ("plan", "prepare.dev"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / f"{name}.json").write_text(json.dumps(content))
        with pytest.raises(CosyFlowError, match=rf"{name}\.json"):
            read_ends(str(tmp_path), name)


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.list").write_bytes(b"a\0b\n")
    with pytest.raises(CosyFlowError, match=r"data\.list: holds bytes that are no text"):
        read_list(str(tmp_path / "data.list"))


def test_an_archive_with_folders_without_end_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("d/" * 2000 + "a.wav"))
    (tmp_path / "deep.tar.gz").write_bytes(gzip.compress(stream.getvalue()))
    (tmp_path / "out").mkdir()
    with pytest.raises(ArchiveError, match="is 2001 folders deep; nothing was unpacked"):
        unpack(tmp_path / "deep.tar.gz", tmp_path / "out", lambda path: True, "deep.tar.gz")


def test_a_header_promises_more_than_any_memory_holds() -> None:
    content = bytearray(tone("OGG", "VORBIS"))
    page = content.rindex(b"OggS")
    content[page + 6 : page + 14] = (10**12).to_bytes(8, "little")
    with pytest.raises(AudioError):
        inspect_audio(bytes(content))
    wav = bytearray(tone("RF64", "PCM_16"))
    place = wav.index(b"ds64") + 8
    wav[place : place + 24] = struct.pack("<QQQ", 10**12, 10**12, 10**12)
    with pytest.raises(AudioError):
        read_samples(bytes(wav))


def test_a_wav_of_empty_chunks_is_left_to_the_decoder() -> None:
    content = b"RIFF" + struct.pack("<I", 1 << 22) + b"WAVE" + bytes(1 << 22)
    assert look(io.BytesIO(content), len(content)) == Facts()


@pytest.mark.medium
def test_the_end_of_a_cut_flac_is_looked_for_in_bearable_time() -> None:
    """Each header that could be the last frame's costs the checksum of all that follows it."""
    whole = tone("FLAC", seconds=2)
    begins = whole.index(b"\xff\xf8")
    content = whole[:-100] + whole[begins : begins + 16] * 50_000
    begun = time.process_time()
    assert flac.look(io.BytesIO(content), len(content)).is_doubtful
    assert time.process_time() - begun < 10


def test_a_short_first_frame_of_an_mp3_announces_nothing() -> None:
    content = b"\xff\xe3\x18\x00" + b"\0" * 14 + b"Info" + b"\0" * 100
    assert look(io.BytesIO(content), len(content)).is_mpeg


def test_arrow_offsets_that_lead_out_of_the_file_are_refused(tmp_path: Path) -> None:
    offsets = np.array([0, 2**30, 8], np.int32)
    buffers = [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"someword")]
    text = pa.Array.from_buffers(pa.string(), 2, buffers)
    audio = pa.array([tone(seconds=0.3)] * 2, pa.binary())
    with pa.ipc.new_stream(tmp_path / "a.arrow", pa.schema({"audio": pa.binary(), "text": pa.string()})) as writer:
        writer.write_batch(pa.record_batch([audio, text], ["audio", "text"]))
    with pytest.raises(CosyFlowError, match=r"a\.arrow: damaged or not an Arrow or Parquet file"):
        imported(tmp_path)


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_tensors_of_other_forms_are_described(tmp_path: Path) -> None:
    names = ("llm_decoder.weight", "text_embedding.weight", "decoder.estimator.x", "f0_predictor.x")
    path = saved({name: torch.tensor(1.0) for name in names}, tmp_path / "a.pt")
    assert describe(path).lines()


@pytest.mark.parametrize(
    "content", [{1: torch.zeros(2)}, {"a": torch.zeros(2, dtype=torch.complex64)}, [1], {"module": 1}]
)
def test_what_cannot_be_averaged_is_named(content: object, tmp_path: Path) -> None:
    path = str(saved(content, tmp_path / "a.pt"))
    with pytest.raises(CosyFlowError, match=r"a\.pt"):
        average_weights([path, path])


@pytest.mark.parametrize("position", [None, [], {"epoch": "x"}, {"epochs": 1}, {"epoch": 1, "other": 2}])
def test_a_state_with_another_position_is_passed_over(position: object, tmp_path: Path) -> None:
    saved({}, tmp_path / "epoch_0_whole.pt")
    state = {"format": 1, "position": position, "fingerprint": "f", "optimizer": {}}
    saved(state, tmp_path / "epoch_0_whole.state.pt")
    (tmp_path / "epoch_0_whole.yaml").write_text(f"epoch: 0\nstep: 0\nloss_dict: {{loss: 1{'0' * 400}}}\n")
    (checkpoint,) = list_checkpoints(str(tmp_path))
    assert checkpoint.validation_loss is None
    with pytest.raises(UnusableError, match="another version of CosyFlow"):
        load(checkpoint)


class PanicException(BaseException):
    pass


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), MemoryError(), PanicException("index"), KeyError("x")]
)
def test_whatever_a_reader_raises_names_the_file(error: BaseException) -> None:
    with pytest.raises(CosyFlowError, match=r"^x\.bin: "), reading("x.bin", "a file"):
        raise error


def test_what_ends_the_program_is_not_the_readers() -> None:
    with pytest.raises(KeyboardInterrupt), reading("x.bin", "a file"):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"speech_tokens": [3]}, "its footer describes 1 rows, there are 2; make it again"),
        ({"voiced_frames": [1, 1, 1]}, "its footer describes 3 rows, there are 2; make it again"),
        ({"num_samples": []}, "its footer describes 0 rows, there are 2; make it again"),
        ({"num_samples": None}, "damaged or not a parquet file"),
        ({"speech_tokens": [3, -1]}, "speech_tokens in its footer are no numbers"),
        ({"speech_tokens": [3, 2.5]}, "speech_tokens in its footer are no numbers"),
        ({"sample_rate": [24000, 0]}, "sample_rate in its footer are no numbers"),
        ({"voiced_frames": [2**40, 1]}, "voiced_frames in its footer are no numbers"),
    ],
)
def test_a_footer_that_does_not_fit_its_rows_is_refused(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    """One of too few speech tokens gave an index whose last utterances could not be read: an IndexError."""
    columns = {"utt": ["a", "b"], "text": ["x", "y"], "speech_token": [[1, 2, 3], [4]]}
    notes = {"num_samples": [480, 480], "sample_rate": [24000, 24000], "speech_tokens": [3, 1], **changed}
    write_shard(str(tmp_path / "a.tar"), columns, ShardNotes(digest="", **notes))  # type: ignore[arg-type]
    (tmp_path / "data.list").write_text(f"{tmp_path / 'a.tar'}\n")
    with pytest.raises(CosyFlowError, match=said) as error:
        build_index(str(tmp_path / "data.list"), Bytes())
    assert str(tmp_path / "a.tar") in str(error.value)


@pytest.mark.parametrize("nested", [False, True])
def test_a_column_whose_name_is_no_text_is_refused(tmp_path: Path, nested: bool) -> None:
    """It was a UnicodeDecodeError."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("text", pa.string()), ("audio", kind)])
    file = io.BytesIO()
    with pa.ipc.new_stream(file, schema) as stream:
        stream.write_batch(pa.RecordBatch.from_pylist([{"text": "x", "audio": {"bytes": tone(), "path": "a"}}], schema))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.arrow").write_bytes(file.getvalue().replace(b"path" if nested else b"text", b"\x80\x81\x82\x83"))
    with pytest.raises(CosyFlowError, match=r"a\.arrow: damaged or not an Arrow or Parquet file") as error:
        imported(corpus)
    assert "UnicodeDecodeError" in str(error.value)


@pytest.mark.parametrize("column", ["utt", "text", "spk"])
def test_a_text_in_a_shard_that_is_none_is_refused_by_all_who_read_it(tmp_path: Path, column: str) -> None:
    """Arrow reads any bytes as text; to turn them into one was a UnicodeDecodeError in the stage merge."""
    columns = {"utt": ["a", "b"], "text": ["x", "y"], "spk": ["s", "s"], "speech_token": [[1, 2, 3], [4]]}
    notes = ShardNotes(digest="", num_samples=[480, 480], sample_rate=[24000, 24000], speech_tokens=[3, 1])
    shard = str(tmp_path / "a.tar")
    write_shard(shard, columns, notes)
    table = pq.read_table(shard)
    no_text = pa.array([b"\xff", b"\xfe"]).cast(pa.string(), safe=False)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, pa.field(column, pa.string()), no_text), shard)
    (tmp_path / "data.list").write_text(f"{shard}\n")
    every = str(tmp_path / "data.list")
    readers: dict[str, Callable[[], object]] = {
        "utt text": lambda: build_index(every, Bytes()),
        "utt spk": lambda: merge_lists({"dev": str(tmp_path)}, ["dev"], [], str(tmp_path / "out")),
        "utt text spk": lambda: gather_statistics(every, 10),
    }
    for columns_read, read in readers.items():
        if column in columns_read.split():
            with pytest.raises(CosyFlowError, match=r"a\.tar: damaged or not a parquet file"):
                read()


@pytest.mark.parametrize(
    ("column", "other"),
    [("utt", [[1], [2]]), ("spk", [[1], [2]]), ("text", [3.5, 4.5]), ("audio_data", ["a", "b"]), ("utt", [b"a", b"b"])],
)
def test_a_column_of_another_kind_is_refused_by_name(tmp_path: Path, column: str, other: list[object]) -> None:
    """Lists for the names of speakers were an ArrowNotImplementedError in the stage merge."""
    shard = str(tmp_path / "a.tar")
    columns = {"utt": ["a", "b"], "audio_data": [b"x", b"y"], "text": ["x", "y"], "spk": ["s", "s"]}
    pq.write_table(pa.table(columns | {column: other}), shard)
    (tmp_path / "data.list").write_text(f"{shard}\n")
    read = build_index if column in ("text", "audio_data") else merged
    with pytest.raises(CosyFlowError, match=rf"a\.tar: {column} is .*, not (string|binary); make it again"):
        read(str(tmp_path / "data.list"), Bytes())


def merged(data_list: str, _: object) -> StageResult:
    folder = Path(data_list).parent
    return merge_lists({"dev": str(folder)}, ["dev"], [], str(folder / "out"))


@pytest.mark.parametrize("text", [b"\x12\x01T", b"input", b"cosyflow.stand_in"])
def test_a_model_whose_texts_are_none_is_refused(tmp_path: Path, text: bytes) -> None:
    """The name of a dimension was a UnicodeDecodeError."""
    write_onnx_models(tmp_path, 0)
    path = tmp_path / "campplus.onnx"
    content = path.read_bytes()
    assert text in content
    path.write_bytes(content.replace(text, text[:-1] + b"\xff"))
    with pytest.raises(CosyFlowError, match=r"campplus\.onnx: (damaged or not|cannot be loaded as) an ONNX model"):
        OnnxModel.load(ModelFile(str(path), str(path)), SPEAKER)
