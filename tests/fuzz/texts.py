"""Files of text: Kaldi's, lists, recipes, runs, what stages leave, tables of people, tokenizers."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

from cosyflow.errors import CosyFlowError
from tests.fuzz.documents import Document, to_json, to_yaml, write

CONF = Path(__file__).resolve().parents[2] / "conf"


def each(*readers: Callable[[], Any]) -> None:
    """Calls all; the first error of a user is raised in the end, so that it hides nothing."""
    errors = []
    for reader in readers:
        try:
            reader()
        except CosyFlowError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def tone(format: str = "WAV", subtype: str | None = "PCM_16", seconds: float = 0.5, channels: int = 1) -> bytes:
    stream = io.BytesIO()
    samples = 0.2 * np.sin(2 * np.pi * 300 * np.arange(int(24_000 * seconds)) / 24_000)
    soundfile.write(stream, np.tile(samples[:, None], channels), 24_000, format=format, subtype=subtype)
    return stream.getvalue()


def make_kaldi(folder: Path) -> dict[str, Document]:
    (folder / "r1.wav").write_bytes(tone())
    return write(
        folder,
        {
            "wav.scp": Document(f"r1 {folder}/r1.wav\n".encode()),
            "text": Document(b"u1 some words\nu2 more of them\nu3 words\n"),
            "utt2spk": Document(b"u1 anna\nu2 anna\nu3 ben\n"),
            "spk2utt": Document(b"anna u1 u2\nben u3\n"),
            "segments": Document(b"u1 r1 0.0 0.2\nu2 r1 0.2 -1\nu3 r1 0.1 0.3\n"),
            "instruct": Document(b"u1 slowly\nu2 fast\nu3 loud\n"),
            "rejects.tsv": Document(b"utt\treason\nu9\ttoo short\n"),
            "utt2dur": Document(b"u1 0.2\nu2 0.3\n"),
        },
    )


def read_kaldi(folder: Path) -> None:
    from cosyflow.audio.fitness import Limits
    from cosyflow.corpus import kaldi
    from cosyflow.corpus.prepare import prepare
    from cosyflow.corpus.rejects import read_rejects
    from cosyflow.extract.job import plan_units

    out = folder / "out"
    each(
        lambda: kaldi.read_kaldi(str(folder)),
        lambda: plan_units(kaldi.KaldiData([]), str(folder)),
        lambda: kaldi.wavs_of(str(folder)),
        lambda: read_rejects(str(folder)),
        lambda: prepare(str(folder), str(out), limits=Limits()),
    )


def make_lists(folder: Path) -> dict[str, Document]:
    from tests.fuzz.binaries import make_shards

    make_shards(folder)
    listing = (folder / "data.list").read_bytes()
    return write(
        folder, {"data.list": Document(listing * 2), "checksums": Document(b"0" * 32 + b"  dev-clean.tar.gz\n")}
    )


def read_lists(folder: Path) -> None:
    from cosyflow.corpus.checksums import parse_checksums
    from cosyflow.dataset.merge import merge_lists

    parse_checksums((folder / "checksums").read_bytes().decode("utf-8", "replace"))
    merge_lists({"dev": str(folder)}, ["dev"], ["dev"], str(folder / "out"))


def make_recipes(folder: Path) -> dict[str, Document]:
    names = ("cosyvoice.tiny.yaml", "cosyvoice2.tiny.yaml")
    contents = {name: (CONF / name).read_bytes() for name in names}
    return write(folder, {name: Document(text, yaml.safe_load(text), to_yaml) for name, text in contents.items()})


def read_recipes(folder: Path) -> None:
    from cosyflow.config.load import load_config

    each(*(lambda path=path: load_config(path, ["train_conf.max_epoch=3"]) for path in sorted(folder.glob("*.yaml"))))


def make_runs(folder: Path) -> dict[str, Document]:
    run = {
        "data_root": str(folder / "data"),
        "recipe": "cosyvoice2.tiny",
        "train_subsets": ["train-clean-100"],
        "overrides": ["train_conf.max_epoch=2"],
        "resources": {"train": {"cpu_request": "500m", "memory_limit": "4Gi"}},
        "average_num": 2,
    }
    job = {
        "namespace": "speech",
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "env": [{"name": "A", "value": "1"}],
        "tolerations": [{"key": "gpu"}],
        "deadline_seconds": 100,
    }
    images = {"images": {name: f"registry/{name}:0.1" for name in ("base", "extract", "train")}}
    documents = {"run.yaml": run, "job.yaml": job, "images.yaml": images}
    return write(folder, {name: Document.of(value, to_yaml) for name, value in documents.items()})


def read_runs(folder: Path) -> None:
    from cosyflow.launch.settings import devices_of, read_settings
    from cosyflow.run import config
    from cosyflow.run.record import Record
    from pipelines.compiling import read_image_lock

    each(
        lambda: Record.of(config.from_parameters(config.read_run(str(folder / "run.yaml")))).digest,
        lambda: devices_of(read_settings(str(folder / "job.yaml"))),
        lambda: read_image_lock(folder / "images.yaml"),
    )


def make_records(folder: Path) -> dict[str, Document]:
    from cosyflow.run import config
    from cosyflow.run.ends import End
    from cosyflow.run.record import Record
    from cosyflow.stage import Manifest
    from cosyflow.training.failure import Failure

    run = config.from_parameters({"data_root": str(folder), "recipe": "cosyvoice2.tiny"})
    manifest = Manifest(
        "prepare",
        "dev",
        "k",
        str(folder),
        "d",
        {"outputs": 1},
        {"text": 3},
        {"shards": [1, 2]},
        {},
        ["x"],
        {},
        1.0,
        False,
    )
    end = End.of(manifest)
    documents: dict[str, Any] = {
        "record.json": Record.of(run).to_json(),
        "manifest.json": json.loads(manifest.to_json()),
        "failure.json": asdict(Failure(work="w", attempt="a", cause="c", is_certain=True)),
        "runs/one/prepare.dev.json": asdict(end),
        "runs/one/plan.json": {"record": "r", "ends": [asdict(end)]},
    }
    return write(folder, {name: Document.of(value, to_json) for name, value in documents.items()})


def read_records(folder: Path) -> None:
    from cosyflow.content import Digests
    from cosyflow.run.chain import describe_keys
    from cosyflow.run.ends import read_ends
    from cosyflow.run.record import Record
    from cosyflow.run.report import page
    from cosyflow.stage import Manifest, find_finished, lost_files
    from cosyflow.training.failure import read_failure

    def keys() -> None:
        record = Record.read(str(folder / "record.json"))
        describe_keys(record, Digests(str(folder / "digests")))

    def manifest() -> None:
        lost_files(Manifest.read(str(folder / "manifest.json")))
        find_finished(str(folder))

    def ends() -> None:
        for end in read_ends(str(folder), "one")[0]:
            end.read_manifest()

    each(keys, manifest, ends, lambda: read_failure(str(folder), "w"), lambda: page(str(folder), "one", "FAILED"))


def make_tables(folder: Path) -> dict[str, Document]:
    for kind in ("csv", "jsonl", "pairs", "libritts"):
        (folder / kind).mkdir()
    for name in ("csv/a.wav", "jsonl/a.wav", "pairs/a.wav", "pairs/b.wav", "libritts/a.wav"):
        (folder / name).write_bytes(tone(seconds=0.3))
    return write(
        folder,
        {
            "csv/metadata.csv": Document(b"file|text|speaker\na.wav|some words|anna\nb.wav|x|y\n"),
            "jsonl/all.jsonl": Document(b'{"audio": "a.wav", "text": "words", "speaker": "anna"}\n'),
            "pairs/a.txt": Document(b"some words\n"),
            "pairs/b.json": Document.of({"text": "words", "speaker": "anna"}, to_json),
            "libritts/a.normalized.txt": Document(b"some words\n"),
        },
    )


def read_tables(folder: Path) -> None:
    each(*(lambda kind=kind: imported(folder / kind) for kind in ("csv", "jsonl", "pairs", "libritts")))


def imported(corpus: Path) -> None:
    """What `cosyflow import` makes of a folder."""
    from cosyflow.corpus.importing.run import ImportSettings, import_corpus

    out = corpus.with_name(f"{corpus.name}-out")
    shutil.rmtree(out, ignore_errors=True)
    import_corpus(str(corpus), str(out), ImportSettings(dev_share=0))


def make_tokenizers(folder: Path) -> dict[str, Document]:
    from cosyflow.standins.text_models import make_qwen2_folder, make_whisper_ranks

    qwen2 = folder / "CosyVoice-BlankEN"
    make_qwen2_folder(qwen2, 0)
    make_whisper_ranks(folder / "multilingual.tiktoken")
    documents = {"multilingual.tiktoken": Document((folder / "multilingual.tiktoken").read_bytes())}
    for path in sorted(qwen2.glob("*.json")):
        content = path.read_bytes()
        documents[f"{qwen2.name}/{path.name}"] = Document(content, json.loads(content), to_json)
    documents[f"{qwen2.name}/merges.txt"] = Document((qwen2 / "merges.txt").read_bytes())
    return write(folder, documents)


def read_tokenizers(folder: Path) -> None:
    from cosyflow.models.llm.pretrained import read_qwen2_config
    from cosyflow.text.tokenizer import build_tokenizer

    def use(version: str) -> None:
        tokenizer = build_tokenizer(version, str(folder))
        tokenizer.decode(tokenizer.encode("some words<|endoftext|> é"))

    each(lambda: use("cosyvoice"), lambda: use("cosyvoice2"), lambda: read_qwen2_config(folder / "CosyVoice-BlankEN"))
