"""A data_url in any layout that `cosyflow import` knows: recognised by itself, split or taken subset by subset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cosyflow import storage
from cosyflow.audio.fitness import Limits
from cosyflow.corpus.importing.run import ImportSettings
from cosyflow.corpus.kaldi import read_kaldi
from cosyflow.errors import CosyFlowError, RefusalError
from cosyflow.run.speech_settings import Speech, import_settings_of, limits_of
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest
from tests.unit.run.test_speech_that_changes import made_anew, prepare
from tests.unit.run.world import World, make_wav


def ljspeech(folder: Path, numbers: range) -> None:
    for number in numbers:
        make_wav(folder / "wavs" / f"LJ-{number}.wav", pitch=number)
    (folder / "metadata.csv").write_text("".join(f"LJ-{n}|Text {n}.|Text {n}.\n" for n in numbers))


@pytest.fixture
def settings(world: World) -> dict[str, Any]:
    ljspeech(world.folder / "LJSpeech", range(1, 11))
    return {"data_url": str(world.folder / "LJSpeech"), "train_subsets": ["train"], "dev_subsets": ["dev"]}


def texts(prepared: Manifest) -> dict[str, str]:
    return {each.utt: each.text for each in read_kaldi(prepared.uri).utterances}


def test_a_corpus_in_one_piece_is_split(world: World, settings: dict[str, Any]) -> None:
    record = world.record(**settings)
    assert not list(STAGES["download"].check(record))
    made = prepare(record)
    train, dev = texts(made["train"]), texts(made["dev"])
    assert (len(train), len(dev)) == (9, 1)
    assert train | dev == {f"LJ-{n}": f"Text {n}." for n in range(1, 11)}
    assert made["train"].digest != made["dev"].digest
    assert made_anew(made, prepare(record)) == set()
    new = "".join(f"LJ-{n}|New {n}.|New {n}.\n" for n in range(1, 11))
    (world.folder / "LJSpeech" / "metadata.csv").write_text(new)
    assert set(texts(prepare(record)["train"]).values()) == {f"New {n[3:]}." for n in train}


@pytest.mark.medium
def test_how_it_is_imported_is_chosen_by_settings(world: World) -> None:
    folder = world.folder / "other"
    for number in range(1, 11):
        make_wav(folder / f"{number}.wav", pitch=number)
    rows = [f"{n}.wav,wrong,Said {n}.,voice{n % 2}" for n in range(1, 11)]
    (folder / "list.csv").write_text("\n".join(["clip,text,said,who", *rows, ""]))
    chosen: dict[str, Any] = {"data_url": str(folder), "train_subsets": ["train"], "dev_subsets": ["dev"]}
    chosen |= {"text_column": "said", "speaker_column": "who", "dev_share": 0.3, "dev_seed": 7}
    made = prepare(world.record(**chosen))
    train, dev = texts(made["train"]), texts(made["dev"])
    assert (len(train), len(dev)) == (7, 3)
    assert (train | dev)["1"] == "Said 1."
    assert {each.spk for each in read_kaldi(made["train"].uri).utterances} == {"voice0", "voice1"}
    assert made_anew(made, prepare(world.record(**chosen))) == set()
    assert set(texts(prepare(world.record(**{**chosen, "dev_seed": 8}))["dev"])) != set(dev)


def test_choices_for_an_import_are_refused_where_nothing_is_imported(world: World) -> None:
    problems = list(STAGES["download"].check(world.record(text_column="said", dev_seed=1)))
    assert [str(problem) for problem in problems] == [
        f"{name}: is read by an import only, and {world.speech} is taken as it is; leave it out"
        for name in ("text_column", "dev_seed")
    ]


@pytest.mark.medium
def test_limits_of_recordings_are_settings_and_name_the_work(world: World) -> None:
    usual = prepare(world.record())
    with pytest.raises(CosyFlowError, match=r"too quiet: .* at least -1 dB are needed"):
        prepare(world.record(min_level=-1.0))
    assert made_anew(usual, prepare(world.record(min_level=-60.0))) == set(usual)
    assert made_anew(usual, prepare(world.record(check_audio="header"))) == set(usual)
    assert made_anew(usual, prepare(world.record())) == set()


def test_the_defaults_of_runs_and_commands_are_the_same() -> None:
    speech = Speech()
    assert limits_of(speech) == Limits()
    assert import_settings_of(speech) == ImportSettings()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("min_level", 3.0), ("max_clipped", 2.0), ("max_dc", -0.1), ("max_cancelled", -1.0), ("dev_share", 1.0)],
)
def test_impossible_limits_are_refused(world: World, setting: str, value: float) -> None:
    with pytest.raises(RefusalError, match=f"^{setting}: "):
        world.record(**{setting: value})


def test_a_corpus_with_a_folder_for_each_subset_is_not_split(world: World) -> None:
    for subset, numbers in (("train", range(1, 6)), ("dev", range(6, 8))):
        ljspeech(world.folder / "own" / subset, numbers)
    own = {"data_url": str(world.folder / "own"), "train_subsets": ["train"], "dev_subsets": ["dev"]}
    made = prepare(world.record(**own))
    assert list(texts(made["train"])) == [f"LJ-{n}" for n in range(1, 6)]
    assert list(texts(made["dev"])) == ["LJ-6", "LJ-7"]


def test_a_subset_that_is_missing_beside_another_is_refused(world: World, settings: dict[str, Any]) -> None:
    ljspeech(world.folder / "LJSpeech" / "train", range(1, 4))
    problems = list(STAGES["download"].check(world.record(**settings)))
    assert [problem.setting for problem in problems] == ["dev_subsets"]


@pytest.mark.medium
def test_too_many_rejects_of_an_import_stop_the_run(world: World, settings: dict[str, Any]) -> None:
    (world.folder / "LJSpeech" / "wavs" / "LJ-3.wav").write_bytes(b"x")
    with pytest.raises((CosyFlowError, RefusalError), match=r"1 of 10 utterances .* the first is wavs/LJ-3"):
        prepare(world.record(**settings))
    made = prepare(world.record(**settings, max_reject_share=0.2))
    assert len(texts(made["train"])) + len(texts(made["dev"])) == 9
    with pytest.raises(RefusalError, match=r"0.05 is less than 1 of 10 utterances, which download train rejected"):
        prepare(world.record(**settings))


def test_the_tables_of_the_import_lie_with_the_stage(world: World, settings: dict[str, Any]) -> None:
    prepare(world.record(**settings))
    (latest,) = world.data.glob("download/train/*/names.tsv")
    assert latest.read_text().startswith("utt\tspk\tsource\tsource_spk\n")
    assert storage.exists(str(latest.with_name("rejects.tsv")))


@pytest.mark.medium
def test_a_corpus_in_a_store_is_split_there(world: World, settings: dict[str, Any], s3_folder: str) -> None:
    storage.upload_tree(settings["data_url"], storage.join(s3_folder, "LJSpeech"))
    made = prepare(world.record(**settings | {"data_url": storage.join(s3_folder, "LJSpeech")}))
    wavs = [each.wav for subset in made.values() for each in read_kaldi(subset.uri).utterances]
    assert sorted(wavs) == sorted(f"{s3_folder}/LJSpeech/wavs/LJ-{n}.wav" for n in range(1, 11))
