"""Speech that is changed in place is noticed by its content, and only that of the subset is prepared anew."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cosyflow.content import Digests
from cosyflow.errors import CosyFlowError, RefusalError
from cosyflow.run.execute import execute, find_work
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest
from tests.unit.run.world import World, make_wav

UTTERANCE = "84/121/84_121_000000_000000"


def prepare(record: Record) -> dict[str, Manifest]:
    """The real stages download and prepare of all subsets."""
    digests = Digests(record.digests)
    made: dict[str, Manifest] = {}
    for subset in record.subsets.every:
        inputs: list[Manifest] = []
        for stage in (STAGES["download"], STAGES["prepare"]):
            inputs = [execute(find_work(stage, record, subset, inputs, digests), record)]
        made[subset] = inputs[0]
    return made


def made_anew(before: dict[str, Manifest], after: dict[str, Manifest]) -> set[str]:
    assert all(after[subset].reused == (before[subset].key == after[subset].key) for subset in after)
    return {subset for subset in after if not after[subset].reused}


def replace_file(path: Path, other: Path) -> None:
    """As `cp -p OTHER PATH` does, keeping also the size and the time of the file that was there."""
    state = path.stat()
    assert other.stat().st_size == state.st_size
    shutil.copy2(other, path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.fixture
def kaldi(world: World) -> dict[str, Any]:
    """Settings of a corpus of Kaldi folders whose audio lies outside of them."""
    for subset in ("train", "dev"):
        folder = world.folder / "kaldi" / subset
        folder.mkdir(parents=True)
        wavs = [make_wav(world.folder / "wavs" / f"{subset}-{number}.wav", pitch=number) for number in (1, 2)]
        tables = {"wav.scp": list(map(str, wavs)), "text": ["Hello.", "Good bye."], "utt2spk": ["s", "s"]}
        for name, values in tables.items():
            (folder / name).write_text("".join(f"u{number} {value}\n" for number, value in enumerate(values)))
    return {"data_url": str(world.folder / "kaldi"), "train_subsets": ["train"], "dev_subsets": ["dev"]}


@pytest.mark.medium
def test_unchanged_speech_is_prepared_once(world: World) -> None:
    before = prepare(world.record())
    assert made_anew(before, prepare(world.record(num_workers=7))) == set()
    assert (Path(before["dev"].uri) / "text").read_text() == (
        "84_121_000000_000000 Hello there.\n84_121_000001_000000 Good bye.\n"
    )


@pytest.mark.medium
def test_a_letter_of_a_transcript(world: World) -> None:
    before = prepare(world.record())
    text = world.speech / "dev" / f"{UTTERANCE}.normalized.txt"
    other = world.folder / "other.txt"
    other.write_text("Hallo there.")
    replace_file(text, other)
    after = prepare(world.record())
    assert made_anew(before, after) == {"dev"}
    assert "Hallo there." in (Path(after["dev"].uri) / "text").read_text()
    assert before["dev"].digest != after["dev"].digest


@pytest.mark.medium
def test_a_sample_of_a_wav(world: World) -> None:
    """The Kaldi files say the same as before; what is made of them must be made anew all the same."""
    before = prepare(world.record())
    replace_file(world.speech / "train-b" / f"{UTTERANCE}.wav", make_wav(world.folder / "other.wav", pitch=7))
    after = prepare(world.record())
    assert made_anew(before, after) == {"train-b"}
    assert before["train-b"].digests == after["train-b"].digests
    assert before["train-b"].digest != after["train-b"].digest


def test_a_file_that_comes_or_goes(world: World) -> None:
    before = prepare(world.record())
    for ending in (".wav", ".normalized.txt"):
        (world.speech / "dev" / f"84/121/84_121_000001_000000{ending}").unlink()
    assert made_anew(before, prepare(world.record())) == {"dev"}


def test_a_wav_outside_of_the_folder_that_names_it(world: World, kaldi: dict[str, Any]) -> None:
    before = prepare(world.record(**kaldi))
    replace_file(world.folder / "wavs" / "dev-1.wav", world.folder / "wavs" / "dev-2.wav")
    after = prepare(world.record(**kaldi))
    assert made_anew(before, after) == {"dev"}
    assert before["dev"].digest != after["dev"].digest


@pytest.mark.medium
def test_a_wav_behind_a_symlink(world: World) -> None:
    wav, elsewhere = world.speech / "dev" / f"{UTTERANCE}.wav", world.folder / "elsewhere.wav"
    wav.rename(elsewhere)
    wav.symlink_to(elsewhere)
    before = prepare(world.record())
    replace_file(elsewhere, make_wav(world.folder / "other.wav", pitch=7))
    assert made_anew(before, prepare(world.record())) == {"dev"}


@pytest.mark.medium
def test_speech_in_another_place_is_the_same_speech(world: World) -> None:
    """The Kaldi files name it by its place, so they are written anew; what is made of them is not."""
    (world.speech / "dev" / f"{UTTERANCE}.wav").write_bytes(b"no audio")  # the table of rejects names places too
    before = prepare(world.record(max_reject_share=0.5))
    world.speech.rename(world.folder / "moved")
    after = prepare(world.record(max_reject_share=0.5, data_url=str(world.folder / "moved")))
    assert made_anew(before, after) == {"train-a", "train-b", "dev"}
    assert str(world.folder / "moved") in (Path(after["dev"].uri) / "wav.scp").read_text()
    assert {subset: made.digest for subset, made in after.items()} == {
        subset: made.digest for subset, made in before.items()
    }


@pytest.mark.medium
def test_speech_that_is_put_back_is_known_again(world: World) -> None:
    before = prepare(world.record())
    text = world.speech / "dev" / f"{UTTERANCE}.normalized.txt"
    kept = text.read_bytes()
    text.write_bytes(b"Something else.")
    prepare(world.record())
    text.write_bytes(kept)
    assert made_anew(before, prepare(world.record())) == set()


@pytest.mark.medium
def test_an_instruction_is_written_for_every_utterance(world: World) -> None:
    plain, told = prepare(world.record()), prepare(world.record(instruct="Whisper."))
    assert made_anew(plain, told) == {"train-a", "train-b", "dev"}
    assert (Path(told["dev"].uri) / "instruct").read_text().count("Whisper.") == 2


@pytest.mark.medium
def test_rejects_of_real_speech_are_allowed_or_refused(world: World) -> None:
    (world.speech / "dev" / f"{UTTERANCE}.wav").write_bytes(b"no audio")
    with pytest.raises(CosyFlowError, match="max_reject_share"):
        prepare(world.record())
    made = prepare(world.record(max_reject_share=0.5))
    assert made["dev"].counts["rejects"] == 1
    assert made_anew(made, prepare(world.record(max_reject_share=0.9))) == set()
    with pytest.raises(RefusalError, match=r"max_reject_share: 0\.4 is less than 1 of 2 utterances"):
        prepare(world.record(max_reject_share=0.4))


def test_a_folder_without_speech_is_named(world: World) -> None:
    shutil.rmtree(world.speech / "dev")
    with pytest.raises(CosyFlowError, match="speech/dev"):
        prepare(world.record())
    (world.speech / "dev").mkdir()
    with pytest.raises(CosyFlowError, match=r"speech/dev: .*nothing in it"):
        prepare(world.record())


@pytest.mark.medium
@pytest.mark.parametrize("spelling", ["from the folder, by dots", "whole, by dots", "through a link"])
def test_audio_outside_is_noticed_however_the_table_names_it(
    world: World, kaldi: dict[str, Any], spelling: str
) -> None:
    folder, wav = world.folder / "kaldi" / "train", world.folder / "wavs" / "train-1.wav"
    if spelling == "through a link":
        (world.folder / "linked").symlink_to(world.folder / "wavs")
        named = world.folder / "linked" / wav.name
    else:
        named = Path("../../wavs", wav.name) if spelling.startswith("from") else folder / "../../wavs" / wav.name
    table = (folder / "wav.scp").read_text()
    (folder / "wav.scp").write_text(table.replace(str(wav), str(named)))
    before = prepare(world.record(**kaldi))
    replace_file(wav, world.folder / "wavs" / "train-2.wav")
    assert made_anew(before, prepare(world.record(**kaldi))) == {"train"}
