"""Equal content, settings and code have an equal key, wherever they lie; anything else has another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.content import Digests
from cosyflow.run.chain import describe_keys
from cosyflow.run.keys import KEY_LENGTH, differences, key_of
from cosyflow.run.stages import STAGES
from tests.unit.run.world import EVERY_SUBSET, World, finish

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
SETTINGS = st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=5)
DIGESTS = st.lists(st.text("0123456789abcdef", min_size=1, max_size=4), max_size=4)


def canonical(value: Any) -> str:
    """Tells values apart as JSON does: 1 is not True and not 1.0, and the order of a dictionary does not count."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{name!r}:{canonical(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return repr(value)


def backwards(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: backwards(value[name]) for name in reversed(value)}
    return [backwards(entry) for entry in value] if isinstance(value, list) else value


@given(SETTINGS, SETTINGS, DIGESTS, DIGESTS, st.integers(0, 3), st.integers(0, 3))
def test_keys_are_equal_exactly_when_all_that_goes_in_is(
    one: dict[str, Any], other: dict[str, Any], first: list[str], second: list[str], old: int, new: int
) -> None:
    is_equal = canonical([one, first, old]) == canonical([other, second, new])
    assert (key_of("train", "m", old, one, first) == key_of("train", "m", new, other, second)) == is_equal


@given(SETTINGS, DIGESTS)
def test_the_order_of_settings_does_not_matter(settings: dict[str, Any], inputs: list[str]) -> None:
    assert key_of("merge", "lists", 1, settings, inputs) == key_of("merge", "lists", 1, backwards(settings), inputs)


@given(st.lists(st.text("0123456789abcdef", min_size=1), min_size=2, max_size=4, unique=True))
def test_the_order_of_inputs_matters(inputs: list[str]) -> None:
    assert key_of("merge", "lists", 1, {}, inputs) != key_of("merge", "lists", 1, {}, inputs[::-1])


def test_stage_and_name_are_in_the_key() -> None:
    keys = {key_of(stage, name, 1, {}, []) for stage in ("prepare", "parquet") for name in ("a", "b")}
    assert len(keys) == 4
    assert {len(key) for key in keys} == {KEY_LENGTH}


def test_differences_are_told_with_both_values() -> None:
    here = {"optim_conf": {"lr": 0.002, "eps": 1}, "seed": 1, "same": [1]}
    there = {"optim_conf": {"lr": 0.001, "eps": 1}, "same": [1], "dpo": True}
    assert differences(here, there) == [
        "dpo: null, there true",
        "optim_conf.lr: 0.002, there 0.001",
        "seed: 1, there null",
    ]


@pytest.mark.medium
def test_a_chain_has_the_same_keys_below_another_data_root(world: World) -> None:
    """Where data lie does not name them; the registry alone is named by its own address."""
    here = finish(world.record(mlflow_uri="http://registry"))
    there = finish(world.record(mlflow_uri="http://registry", data_root=str(world.folder / "elsewhere" / "data")))
    assert {label: made.key for label, made in here.items()} == {label: made.key for label, made in there.items()}


def test_a_corpus_has_the_same_content_in_whatever_order_its_files_were_written(world: World) -> None:
    def digest() -> Any:
        return STAGES["download"].settings(world.record(), "dev", Digests()).content

    before = digest()
    kept = world.folder / "kept"
    shutil.copytree(world.speech / "dev", kept)
    shutil.rmtree(world.speech / "dev")
    for path in sorted((path for path in kept.rglob("*") if path.is_file()), reverse=True):
        copied = world.speech / "dev" / path.relative_to(kept)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)  # other times, other inodes, another order
    assert digest() == before


def settings_of_every_stage(world: World, **changed: Any) -> dict[str, Any]:
    record = world.record(**changed)
    return {
        f"{stage.name}/{name}": stage.settings(record, name, Digests(record.digests))
        for stage in STAGES.values()
        for name in stage.names(record)
    }


def replace_in_place(path: Path) -> None:
    """Other content of equal size under the times of the old one, as `cp -p` of another file leaves it."""
    state = path.stat()
    path.write_bytes(
        bytes(255 - byte if place == state.st_size - 1 else byte for place, byte in enumerate(path.read_bytes()))
    )
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def of_every_subset(stage: str) -> set[str]:
    return {f"{stage} {subset}" for subset in EVERY_SUBSET}


UTTERANCE = "speech/dev/84/121/84_121_000000_000000"
LLM, FLOW, HIFIGAN = ({"model": part} for part in ("llm", "flow", "hifigan"))
DPO = {"model": "llm", "dpo": True, "ref_model": "pretrained/flow.pt"}
REJECTED = {"reject_dir": "rejected"}
TRAIN = {"train"}


@pytest.mark.parametrize(
    ("file", "changed", "stages"),
    [
        (f"{UTTERANCE}.wav", {}, {"download dev"}),
        (f"{UTTERANCE}.normalized.txt", {}, {"download dev"}),
        ("pretrained/campplus.onnx", {}, of_every_subset("speaker-embedding")),
        ("pretrained/speech_tokenizer_v2.onnx", {}, of_every_subset("speech-token")),
        ("pretrained/speech_tokenizer_v1.onnx", {}, set()),
        ("pretrained/llm.pt", LLM, TRAIN),
        ("pretrained/llm.pt", FLOW, set()),
        ("pretrained/flow.pt", FLOW, TRAIN),
        ("pretrained/flow.pt", LLM, set()),
        ("pretrained/hift.pt", HIFIGAN, TRAIN),
        ("pretrained/flow.pt", {**LLM, "checkpoint": "pretrained/flow.pt"}, TRAIN),
        ("pretrained/llm.pt", {**LLM, "checkpoint": ""}, set()),
        ("pretrained/flow.pt", DPO, TRAIN),
        ("pretrained/CosyVoice-BlankEN/model.safetensors", LLM, TRAIN),
        ("pretrained/CosyVoice-BlankEN/vocab.json", LLM, TRAIN),
        ("pretrained/multilingual.tiktoken", LLM, set()),
        ("pretrained/multilingual.tiktoken", {**LLM, "recipe": "cosyvoice.tiny"}, TRAIN),
        ("rejected/train-a/utt2speech_token.pt", REJECTED, {"parquet train-a"}),
        ("rejected/train-a/utt2speech_token.pt", {}, set()),
    ],
)  # fmt: skip
def test_every_byte_that_goes_in_names_the_work(
    world: World, monkeypatch: pytest.MonkeyPatch, file: str, changed: dict[str, Any], stages: set[str]
) -> None:
    """A file that is changed in place, with its size and times kept, and whose work is another then."""
    monkeypatch.chdir(world.folder)
    (world.folder / "rejected" / "train-a").mkdir(parents=True)
    (world.folder / "rejected" / "train-a" / "utt2speech_token.pt").write_text("tokens")
    before = settings_of_every_stage(world, **changed)
    replace_in_place(world.folder / file)
    after = settings_of_every_stage(world, **changed)
    part = world.record(**changed).model_name
    other = {label.replace("/", " ").replace(f" {part}", "") for label in before if before[label] != after[label]}
    assert other == stages


@pytest.mark.medium
def test_keys_are_described_as_far_as_they_are_known(world: World) -> None:
    record = world.record()
    fresh = describe_keys(record, Digests(record.digests))
    assert list(fresh)[:4] == ["download/train-a", "download/train-b", "download/dev", "prepare/train-a"]
    assert fresh["download/dev"]["key"]
    limits = {"min_level": -50.0, "max_cancelled": 20.0, "max_clipped": 0.01, "max_dc": 0.05}
    assert fresh["prepare/dev"] == {
        "key": None, "version": STAGES["prepare"].version, "inputs": None,
        "settings": {"place": f"{world.speech}/dev", "instruct": "", "limits": limits},
    }  # fmt: skip
    made = finish(record)
    known = describe_keys(record, Digests(record.digests))
    assert {label: entry["key"] for label, entry in known.items()} == {label: each.key for label, each in made.items()}
    (world.pretrained / "campplus.onnx").unlink()
    assert (
        describe_keys(world.record(start_stage=-1, stop_stage=0), Digests())["speaker-embedding/dev"]["settings"]
        is None
    )
