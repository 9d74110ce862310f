"""Commands of a wav.scp run only when that is allowed, in the forms that are known, and never through a shell."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosyflow.corpus.kaldi import read_kaldi, wavs_of
from cosyflow.corpus.pipes import run_command
from cosyflow.corpus.prepare import prepare
from cosyflow.corpus.rejects import read_rejects
from cosyflow.errors import CosyFlowError, DiskError
from tests.unit.disks import fill

from .conftest import write_wav

PRINTS_ITS_FILE = """#!/bin/sh
for word in "$@"; do
    case "$word" in *.wav) cat "${word#file:}"; echo "$@" >> "$LOG" ;; esac
done
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs of these names that print the file they are given and write their words into a log, whose path it is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sox", "flac", "ffmpeg", "sph2pipe"):
        (folder / name).write_text(PRINTS_ITS_FILE)
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return tmp_path / "log"


COMMON = {
    "sox {} -t wav - |": "{} -t wav -",
    "sox -t wav {} -r 16000 -b 16 -c 1 -e signed-integer -t wav - remix 1,2 rate -v 16k trim 0 =1.5 gain -n -3 |": None,
    "sox --norm {} -t wav - rate 16k channels 1|": None,
    "/opt/kaldi/tools/sph2pipe_v2.5/sph2pipe -f wav -p -c 1 {} |": "-f wav -p -c 1 {}",
    "flac -c -d -s {} |": "-c -d -s {}",
    "flac -dcs '{}' |": "-dcs {}",
    "ffmpeg -v error -i {} -ac 1 -ar 16000 -f wav -acodec pcm_s16le - |": (
        "-nostdin -protocol_whitelist file,pipe -v error -i file:{} -ac 1 -ar 16000 -f wav -acodec pcm_s16le -"
    ),
    "ffmpeg -nostdin -ss 0.5 -t 1 -i {} -f wav pipe:1 |": None,
}


@pytest.mark.parametrize("left", [0, 4096])
def test_a_full_disk_is_no_fault_of_the_command(programs: Path, tmp_path: Path, small_disk: Path, left: int) -> None:
    recording, target = tmp_path / "a.wav", small_disk / "out.wav"
    write_wav(recording)
    fill(small_disk, left)
    with pytest.raises(DiskError, match=rf"^{target}: No space left on device; make room there"):
        run_command(f"sox {recording} -t wav - |", str(tmp_path), target)


@pytest.mark.parametrize("command", COMMON)
def test_common_commands_are_run_with_their_words(programs: Path, tmp_path: Path, command: str) -> None:
    recording = tmp_path / "a.wav"
    write_wav(recording)
    run_command(command.format(recording), str(tmp_path), tmp_path / "out.wav")
    assert (tmp_path / "out.wav").read_bytes() == recording.read_bytes()
    words = COMMON[command]
    if words:
        assert programs.read_text().strip() == words.format(recording)


REFUSED = {
    "cat {} |": "it begins with 'cat'",
    "/bin/sh -c 'sox {} -t wav -' |": "it begins with 'sh'",
    "sox {} -t wav - | sox - -t wav - rate 16k |": "is not known",
    "sox {} -t wav - ; touch {}.bad |": "the effect ';' is not known",
    "sox {} -t wav -; touch bad |": "'-;' is no audio file",
    "sox '|touch bad' -t wav - |": "is no audio file",
    "sox -p {} |": "'-p' is no audio file",
    "sox {} out.wav |": "it reads 2 files",
    "sox {} -t wav - spectrogram -o bad.png |": "the effect 'spectrogram' is not known",
    "sox {} -t wav - rate 16k spectrogram -o bad.png |": "'spectrogram' is no value of an effect",
    "sox {} -t wav - rate 16k : newfile |": "is no value of an effect",
    "sox --effects-file {} -t wav - |": "'--effects-file' is no audio file",
    "sox -t m3u {} -t wav - |": "'m3u' is not known as a value of -t",
    "sox list.m3u -t wav - |": "is no audio file",
    "sox http://host/a.wav -t wav - |": "is no audio file",
    "sox `touch bad` -t wav - |": "it reads 2 files",
    "sox $(touch bad) {} -t wav - |": "it reads",
    "sox {} -t wav |": "it does not write to standard output",
    "flac -d {} |": "it has none of",
    "flac -dc {} -o bad |": "'-o' is no audio file",
    "ffmpeg -i {} -f wav bad.wav |": "'bad.wav' is not known",
    "ffmpeg -i {} -i {} -f wav - |": "it reads 2 files",
    "ffmpeg -i http://host/a -f wav - |": "is no audio file",
    "ffmpeg -i concat:a.wav -f wav - -af amovie=bad |": "'-af' is not known",
    "ffmpeg -f concat -i {} -f wav - |": "'concat' is not known as a value of -f",
    "ffmpeg -protocol_whitelist http -i {} -f wav - |": "'-protocol_whitelist' is not known",
    "sph2pipe -f wav {} out.wav |": "it reads 2 files",
    "sox 'a -t wav - |": "its quotes do not match",
    "|": "it begins with ''",
}


@pytest.mark.parametrize("command", REFUSED)
def test_everything_else_is_refused_in_words(programs: Path, tmp_path: Path, command: str) -> None:
    recording = tmp_path / "a.wav"
    write_wav(recording)
    with pytest.raises(CosyFlowError, match="is not run: ") as caught:
        run_command(command.replace("{}", str(recording)), str(tmp_path), tmp_path / "out.wav")
    assert REFUSED[command] in str(caught.value)
    assert not programs.exists()
    assert not list(tmp_path.rglob("*bad*"))


def own(folder: Path, entries: str) -> str:
    folder.mkdir()
    utts = [line.split()[0] for line in entries.splitlines()]
    (folder / "wav.scp").write_text(entries)
    (folder / "text").write_text("".join(f"{utt} Hi.\n" for utt in utts))
    (folder / "utt2spk").write_text("".join(f"{utt} s\n" for utt in utts))
    return str(folder)


def test_without_leave_commands_stop_the_stage(programs: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    write_wav(tmp_path / "a.wav")
    folder = own(tmp_path / "own", f"a {tmp_path}/a.wav\nb sox {tmp_path}/a.wav -t wav - |\n")
    error = fails("prepare", "--src_dir", folder, "--des_dir", tmp_path / "out", unchanged=tmp_path)
    assert "wav.scp: b is the output of a command, `sox " in error
    assert "--allow-pipes" in error
    assert not programs.exists()


def test_what_commands_print_lies_in_the_output(programs: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "one file.wav")
    write_wav(tmp_path / "two.wav", seconds=0.5)
    folder = own(
        tmp_path / "own",
        f"a sox '{tmp_path}/one file.wav' -t wav - |\nb sph2pipe -f wav ../two.wav |\nc {tmp_path}/two.wav\n"
        "d sox missing.wav -t wav - |\ne sox two.wav -o bad |\n",
    )
    result = prepare(folder, str(tmp_path / "out"), max_reject_share=0.9, allow_pipes=True)
    wavs = {each.utt: each.wav for each in read_kaldi(str(tmp_path / "out")).utterances}
    assert wavs == {
        "a": f"{tmp_path}/out/audio/a.wav",
        "b": f"{tmp_path}/out/audio/b.wav",
        "c": f"{tmp_path}/two.wav",
    }
    assert Path(wavs["b"]).read_bytes() == (tmp_path / "two.wav").read_bytes()
    assert result.folders == ["audio"]
    reasons = read_rejects(str(tmp_path / "out"))
    assert "missing.wav: no such file" in reasons["d"]
    assert "is not run" in reasons["e"]
    assert {f"{folder}/../two.wav", f"{tmp_path}/one file.wav"} <= set(wavs_of(folder))


def test_a_piped_recording_with_segments_is_run_once(programs: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", seconds=2)
    folder = Path(own(tmp_path / "own", f"r sox {tmp_path}/a.wav -t wav - |\n"))
    (folder / "segments").write_text("x r 0 1\ny r 1 2\n")
    (folder / "text").write_text("x X.\ny Y.\n")
    (folder / "utt2spk").write_text("x s\ny s\n")
    prepare(str(folder), str(tmp_path / "out"), allow_pipes=True)
    assert [each.wav for each in read_kaldi(str(tmp_path / "out")).utterances] == [
        f"{tmp_path}/out/audio/r.wav#t=0,1",
        f"{tmp_path}/out/audio/r.wav#t=1,2",
    ]
    assert len(programs.read_text().splitlines()) == 1


def test_a_program_that_is_not_there_or_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wav(tmp_path / "a.wav")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CosyFlowError, match="sox is not installed here"):
        run_command("sox a.wav -t wav - |", str(tmp_path), tmp_path / "out.wav")
    (tmp_path / "sox").write_text("#!/bin/sh\necho 'sox FAIL formats' >&2\nexit 2\n")
    (tmp_path / "sox").chmod(stat.S_IRWXU)
    with pytest.raises(CosyFlowError, match="failed with status 2: sox FAIL formats"):
        run_command("sox a.wav -t wav - |", str(tmp_path), tmp_path / "out.wav")


@pytest.mark.parametrize(
    "command",
    ["sox {} -t wav - rate 24k |", "flac -c -d -s {} |", "ffmpeg -v error -i {} -f wav -acodec pcm_s16le - |"],
)
def test_the_real_programs(tmp_path: Path, command: str) -> None:
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    recording = tmp_path / ("a.flac" if command.startswith("flac") else "a.wav")
    soundfile.write(recording, np.sin(np.arange(24000) / 20) * 0.5, 24000, subtype="PCM_16")
    folder = own(tmp_path / "own", f"a {command.format(recording)}\n")
    prepare(folder, str(tmp_path / "out"), allow_pipes=True)
    (utterance,) = read_kaldi(str(tmp_path / "out")).utterances
    assert abs(soundfile.info(utterance.wav).frames - 24000) < 100
