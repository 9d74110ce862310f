"""Files of bytes: audio, shards and Arrow files, checkpoints, states of trainings, archives, ONNX models."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import soundfile

from tests.fuzz.documents import Document, to_json, to_yaml, write
from tests.fuzz.texts import each, imported, tone


def make_wav(folder: Path) -> dict[str, Document]:
    kinds = [("WAV", subtype) for subtype in ("PCM_16", "PCM_24", "FLOAT", "MS_ADPCM")]
    kinds += [(kind, "PCM_16") for kind in ("WAVEX", "RF64", "NIST", "AIFF")]
    return write(folder, {f"{kind}-{subtype}.wav": Document(tone(kind, subtype)) for kind, subtype in kinds})


def make_compressed(folder: Path) -> dict[str, Document]:
    wanted = (("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"))
    kinds = [(kind, subtype) for kind, subtype in wanted if soundfile.check_format(kind, subtype)]
    return write(folder, {f"{kind}-{subtype}.audio": Document(tone(kind, subtype)) for kind, subtype in kinds})


def read_audio(folder: Path) -> None:
    from cosyflow.audio.opener import inspect_audio, open_audio, read_audio_file

    paths = [str(path) for path in sorted(folder.iterdir())]
    each(*(lambda path=path, reader=reader: reader(path) for path in paths for reader in (inspect_audio, open_audio)),
         *(lambda path=path: read_audio_file(f"{path}#t=0.1,0.2") for path in paths))  # fmt: skip


def make_shards(folder: Path) -> dict[str, Document]:
    from cosyflow.dataset.shard import ShardNotes, write_shard

    vectors = [[0.5] * 192] * 3
    columns: dict[str, Any] = {
        "utt": ["a", "b", "c"],
        "audio_data": [tone(seconds=0.2)] * 3,
        "wav": ["a.wav", "b.wav", "c.wav"],
        "text": ["some", "words", "here"],
        "spk": ["anna", "anna", "ben"],
        "utt_embedding": vectors,
        "spk_embedding": vectors,
        "speech_token": [[1, 2, 3, 4, 5]] * 3,
        "reject_speech_token": [[1], None, [3]],
    }

    def dumped(value: Mapping[str, Any]) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        stream = io.BytesIO()
        pq.write_table(
            pa.table(value["columns"]).replace_schema_metadata({"cosyflow": to_json(value["notes"])}), stream
        )
        return stream.getvalue()

    notes = ShardNotes("d", [4800] * 3, [24000] * 3, [5] * 3)
    write_shard(str(folder / "a.tar"), columns, notes)
    short = {name: columns[name] for name in ("utt", "text", "speech_token", "utt_embedding", "spk_embedding")}
    short |= {"utt_embedding": [[1.0, 2.0]] * 3, "spk_embedding": [[1.0, 2.0]] * 3}
    official = io.BytesIO()
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(folder / "a.tar").replace_schema_metadata(None), official)
    import json

    documents = {
        "a.tar": Document((folder / "a.tar").read_bytes()),
        "b.tar": Document(official.getvalue()),
        "c.tar": Document.of({"columns": short, "notes": json.loads(notes.to_json())}, dumped),
    }
    (folder / "data.list").write_text("".join(f"{folder / name}\n" for name in documents))
    return write(folder, documents)


class Bytes:
    """One token for each UTF-8 byte."""

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [list(text.encode("utf-8", "replace")) for text in texts]


def read_shards(folder: Path) -> None:
    from cosyflow.dataset.index import build_index
    from cosyflow.dataset.merge import merge_lists
    from cosyflow.dataset.reader import UtteranceReader

    def read() -> None:
        index = build_index(str(folder / "data.list"), Bytes())
        UtteranceReader(index, speech_ids=6561).read(range(len(index.utts)))

    each(read, lambda: merge_lists({"dev": str(folder)}, ["dev"], ["dev"], str(folder / "out")))


def make_arrow(folder: Path) -> dict[str, Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {
        "audio": [{"bytes": tone(seconds=0.3), "path": f"{name}.wav"} for name in "ab"],
        "text": ["some words", "more"],
        "speaker": ["anna", "ben"],
    }
    table = pa.table(rows)
    stream, file, parquet = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, parquet)
    contents = {"stream/a.arrow": stream, "file/a.arrow": file, "parquet/a.parquet": parquet}
    return write(folder, {name: Document(content.getvalue()) for name, content in contents.items()})


def read_arrow(folder: Path) -> None:
    each(*(lambda kind=kind: imported(folder / kind) for kind in ("stream", "file", "parquet")))


def saved(value: Any, legacy: bool = False) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def make_checkpoints(folder: Path) -> dict[str, Document]:
    import torch
    from safetensors.torch import save

    def dumped(value: Any) -> bytes:
        return saved({name: torch.zeros(2, 3) if entry == "T" else entry for name, entry in value.items()}
                     if isinstance(value, dict) else value)  # fmt: skip

    weights = {"llm.weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(3), "epoch": 1}
    table = {"a": [0.5] * 192, "b": [1.0] * 192}
    return write(
        folder,
        {
            "zip.pt": Document(saved(weights)),
            "legacy.pt": Document(saved(weights, legacy=True)),
            "values.pt": Document.of({"module.weight": "T", "epoch": 1}, dumped),
            "a.safetensors": Document(save({"llm.weight": torch.zeros(2, 3)})),
            "table.pt": Document.of(table, saved),
        },
    )


def read_checkpoints(folder: Path) -> None:
    import numpy as np
    from torch import nn

    from cosyflow.checkpoint.describe import describe
    from cosyflow.checkpoint.files import read_file
    from cosyflow.checkpoint.official import load_official
    from cosyflow.dataset.tables import read_table
    from cosyflow.release.average import average_weights

    files = [folder / name for name in ("zip.pt", "legacy.pt", "values.pt", "a.safetensors")]
    each(
        *(lambda path=path: describe(path).lines() for path in files),
        *(lambda path=path: average_weights([str(path)] * 2) for path in files),
        lambda: read_file(folder / "zip.pt", verified=True),
        lambda: load_official(nn.Embedding(2, 3), folder / "values.pt"),
        lambda: read_table(str(folder / "table.pt"), np.float64),
    )


def make_states(folder: Path) -> dict[str, Document]:
    import torch

    from cosyflow.checkpoint.state import Position, Snapshot, state_of

    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    position = Position(epoch=1, update=1, epoch_sums={"loss": 1.0}, epochs=[{"loss": 1.0}])
    state = state_of(Snapshot(model.state_dict(), optimizer.state_dict()), position, "f")
    record = {"epoch": 0, "step": 0, "loss_dict": {"loss": 2.0}, "world_size": 1, "cosyflow": "0.1.0", "lr": 1e-3}
    plain = {name: value for name, value in state.items() if name != "optimizer"} | {"optimizer": {"state": {}}}
    (folder / "epoch_1_whole.pt").write_bytes(saved(model.state_dict()))
    (folder / "epoch_1_whole.yaml").write_bytes(to_yaml(record))
    return write(
        folder,
        {
            "epoch_0_whole.pt": Document(saved(model.state_dict())),
            "epoch_0_whole.state.pt": Document(saved(state)),
            "epoch_1_whole.state.pt": Document.of(plain, saved),
            "epoch_0_whole.yaml": Document.of(record, to_yaml),
        },
    )


def read_states(folder: Path) -> None:
    from torch import nn

    from cosyflow.checkpoint.folder import list_checkpoints
    from cosyflow.checkpoint.select import best, find_newest
    from cosyflow.checkpoint.state import load
    from cosyflow.release.average import average_model
    from cosyflow.training.resumption import check_fits

    def resume() -> None:
        found = find_newest(str(folder), lambda line: None)
        if found is not None:
            check_fits(nn.Linear(2, 3), found[1])

    checkpoints = list_checkpoints(str(folder), any_name=True)
    each(
        *(lambda each=each: load(each) for each in checkpoints),
        resume,
        lambda: best(checkpoints, 2),
        lambda: average_model(str(folder), str(folder / "out" / "average.pt"), 2, val_best=True),
    )


def make_archives(folder: Path) -> dict[str, Document]:
    def tar(members: Mapping[str, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=format) as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return stream.getvalue()

    name = "LibriTTS/dev-clean/1/2/1_2_3"
    wav, flac = tone(seconds=0.2), tone("FLAC", seconds=0.2)
    tree = {f"{name}.wav": wav, f"{name}.normalized.txt": b"words"}
    pairs = {"a.wav": wav, "a.txt": b"some words", "b.flac": flac, "b.json": b'{"text": "x"}'}
    deep = f"é{'long/' * 20}a"
    for kind in ("tar", "pax", "tgz"):
        (folder / kind).mkdir()
    return write(
        folder,
        {
            "dev-clean.tar.gz": Document(gzip.compress(tar(tree), mtime=0)),
            "plain": Document(tar(tree)),
            "tar/a.tar": Document(tar(pairs)),
            "pax/a.tar": Document(tar({f"{deep}.wav": wav, f"{deep}.txt": b"words"}, tarfile.PAX_FORMAT)),
            "tgz/a.tgz": Document(gzip.compress(tar(pairs), mtime=0)),
        },
    )


def read_archives(folder: Path) -> None:
    import shutil

    from cosyflow.corpus.archive import unpack

    def unpacked(archive: Path) -> None:
        out = folder / "unpacked"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        unpack(archive, out, lambda path: True, str(archive))

    (folder / "again.tar.gz").write_bytes(gzip.compress((folder / "plain").read_bytes(), 1))
    each(
        lambda: unpacked(folder / "dev-clean.tar.gz"),
        lambda: unpacked(folder / "again.tar.gz"),
        *(lambda kind=kind: imported(folder / kind) for kind in ("tar", "pax", "tgz")),
    )


def make_onnx(folder: Path) -> dict[str, Document]:
    from cosyflow.standins.onnx_models import write_onnx_models

    write_onnx_models(folder, 0)
    names = ("campplus.onnx", "speech_tokenizer_v2.onnx")
    return write(folder, {name: Document((folder / name).read_bytes()) for name in names})


def read_onnx(folder: Path) -> None:
    import numpy as np

    from cosyflow.extract.model import SPEAKER, TOKENIZER, ModelFile, OnnxModel, RunTime

    def use(name: str, signature: Any, *inputs: Any) -> None:
        path = str(folder / name)
        model = OnnxModel.load(ModelFile(path, path), signature)
        assert model.is_stand_in in (True, False)
        model.run(*inputs, run_time=RunTime())

    log_mel = np.zeros((1, 128, 40), np.float32)
    each(
        lambda: use("campplus.onnx", SPEAKER, np.zeros((1, 50, 80), np.float32)),
        lambda: use("speech_tokenizer_v2.onnx", TOKENIZER, log_mel, np.array([40], np.int32)),
    )
