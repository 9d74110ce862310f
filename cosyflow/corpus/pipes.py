"""Entries of a wav.scp that are commands, `sox FILE -t wav - |`: the common forms of four programs, without a shell.

Every word of such a command is either in the tables here or the one file that is read, so that an entry can start
nothing else, read no other file and write none.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosyflow import disk, storage
from cosyflow.audio.locator import is_local_file
from cosyflow.errors import CosyFlowError

COMMAND_ADVICE = "write its audio to files, or let `cosyflow prepare --allow-pipes` run it"
SECONDS_ALLOWED = 600
ROOM_BYTES = 1 << 16
"""With less room left than this, what a program has printed may have been cut."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VALUE = re.compile(r"[\w.,:=+%-]*")
_EFFECT_VALUE = re.compile(r"-|-[a-zA-Z]|[-+=]?\d[\w.,:+%-]*")
_TYPES = _words("wav flac mp3 ogg vorbis opus sph nist raw au aiff s16le pcm_s16le")
_TYPED = ("-t", "-f", "-e", "-acodec", "-c:a", "-codec:a")
"""Options whose values are formats or codecs; -t and -f may also be times."""
_ENCODINGS = _words("signed signed-integer unsigned unsigned-integer floating-point float mu-law u-law a-law")
_TIME = re.compile(r"[\d.:]+")
_PLAYLISTS = (".m3u", ".m3u8", ".pls", ".cue", ".ffconcat", ".txt", ".xspf")


@dataclass(frozen=True)
class _Program:
    """The words that a program may be given."""

    options: dict[str, int]
    """By the number of values that follow them."""
    outputs: frozenset[str]
    """What stands for standard output; none where that is where the audio goes anyway."""
    effects: frozenset[str] = frozenset()
    reads: str = ""
    """The option whose value is the file; "" where the file is a word of its own."""
    required: tuple[frozenset[str], ...] = ()
    """Options of each of which one has to be there."""
    added: tuple[str, ...] = ()
    """What it is given besides."""


def _options(text: str) -> dict[str, int]:
    """`-a -b=1` as options by number of values."""
    pairs = (word.partition("=")[::2] for word in text.split())
    return {name: int(count or 0) for name, count in pairs}


_DECODE = frozenset({"-d", "-dc", "-cd", "-dcs", "-cds", "-sdc", "-scd", "-dsc", "-csd", "--decode"})
_STDOUT = frozenset({"-c", "-dc", "-cd", "-dcs", "-cds", "-sdc", "-scd", "-dsc", "-csd", "--stdout"})
_PROGRAMS = {
    "sox": _Program(
        options=_options("-q -V -V0 -V1 -V2 -V3 -D -G -R -S -L -B -t=1 -r=1 -b=1 -c=1 -e=1 -v=1 --norm --no-dither"),
        outputs=frozenset({"-"}),
        effects=_words("rate remix channels gain norm trim dither vol speed tempo pad highpass lowpass"),
    ),
    "flac": _Program(
        options=_options("-d -c -s -f -F --decode --stdout --silent --totally-silent")
        | dict.fromkeys(_DECODE | _STDOUT, 0),
        outputs=frozenset(),
        required=(_DECODE, _STDOUT),
    ),
    "ffmpeg": _Program(
        options=_options(
            "-nostdin -hide_banner -nostats -vn -sn -dn -y -v=1 -loglevel=1 -threads=1 -ss=1 -t=1 -to=1 -ac=1 -ar=1"
            " -acodec=1 -c:a=1 -codec:a=1 -sample_fmt=1 -f=1 -map=1 -map_channel=1 -bitexact"
        ),
        outputs=frozenset({"-", "pipe:1", "pipe:"}),
        reads="-i",
        added=("-nostdin", "-protocol_whitelist", "file,pipe"),
    ),
    "sph2pipe": _Program(options=_options("-p -u -a -f=1 -c=1 -t=1 -s=1"), outputs=frozenset()),
}


def is_command(entry: str) -> bool:
    return entry.rstrip().endswith("|")


def absolute_path(wav: str, directory: str) -> str:
    """A path of a folder's wav.scp: meant from the folder, or else from the working directory; `~/` is the home."""
    if "://" in wav or Path(wav).is_absolute():
        return wav
    inside = storage.join(directory, wav)
    if storage.is_remote(directory):
        return inside
    if is_local_file(inside):
        return str(Path(inside).absolute())
    return str((Path(wav).expanduser() if wav.startswith("~/") else Path(wav)).absolute())


def operands(entry: str, directory: str) -> list[str]:
    """The files that a command reads; none for one that is refused."""
    try:
        words, place = _parse(entry)
    except CosyFlowError:
        return []
    return [absolute_path(words[place], directory)]


def run_command(entry: str, directory: str, target: Path) -> None:
    """Runs a command of a folder's wav.scp and writes what it prints into a local file.

    Raises:
        CosyFlowError: it is none of the forms that are known, its program is not installed, its file does not exist,
            or it fails.
        DiskError: there is no room for what it prints.
    """
    words, place = _parse(entry)
    program = shutil.which(words[0])
    if program is None:
        raise CosyFlowError(f"{words[0]} is not installed here, which `{entry}` needs")
    file = absolute_path(words[place], directory)
    if "://" in file or not is_local_file(file):
        raise CosyFlowError(f"{file}: no such file, which `{entry}` reads")
    words[place] = f"file:{file}" if words[0] == "ffmpeg" else file
    with disk.written(target):
        stream = target.open("wb")
    with stream as output:
        try:
            ended = subprocess.run(
                [program, *_PROGRAMS[words[0]].added, *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                timeout=SECONDS_ALLOWED,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CosyFlowError(f"`{entry}` took more than {SECONDS_ALLOWED} s") from None
    if ended.returncode or shutil.disk_usage(target.parent).free < ROOM_BYTES:
        _require_room(target)
    if ended.returncode:
        lines = ended.stderr.decode("utf-8", "replace").strip().splitlines()
        raise CosyFlowError(f"`{entry}` failed with status {ended.returncode}: {lines[-1] if lines else 'no message'}")


def _require_room(target: Path) -> None:
    """Raises DiskError where nothing more can be written: of that programs complain in words of their own, or not."""
    probe = target.with_suffix(".room")
    with disk.written(target):
        try:
            with probe.open("wb") as stream:
                stream.write(bytes(ROOM_BYTES))
        finally:
            probe.unlink(missing_ok=True)


def _parse(entry: str) -> tuple[list[str], int]:
    """The words of a command, its program by name alone, and the place of the file that it reads.

    Raises:
        CosyFlowError: it is none of the forms that are known; the message names the word that is not.
    """
    try:
        words = shlex.split(entry.rstrip().removesuffix("|"))
    except ValueError as error:
        raise _refusal(entry, f"its quotes do not match ({error})") from None
    name = Path(words[0]).name if words else ""
    program = _PROGRAMS.get(name)
    if program is None:
        raise _refusal(entry, f"it begins with '{name}'")
    files = list(_files(words, program, entry))
    if len(files) != 1:
        raise _refusal(entry, f"it reads {len(files)} files")
    if program.outputs and not program.outputs & set(words):
        raise _refusal(entry, "it does not write to standard output")
    for alternatives in program.required:
        if not alternatives & set(words):
            raise _refusal(entry, f"it has none of {', '.join(sorted(alternatives))}")
    return [name, *words[1:]], files[0]


def _files(words: list[str], program: _Program, entry: str) -> Iterator[int]:
    """The places of the files among the words; raises CosyFlowError for a word that is not known."""
    place, wrote = 1, False
    while place < len(words):
        word = words[place]
        if word == program.reads and place + 1 < len(words):
            yield _checked_file(words, place + 1, entry)
            place += 2
        elif word in program.options:
            count = program.options[word]
            for value in words[place + 1 : place + 1 + count]:
                if not _is_value(word, value):
                    raise _refusal(entry, f"'{value}' is not known as a value of {word}")
            place += 1 + count
        elif word in program.outputs:
            wrote = True
            place += 1
        elif wrote and program.effects:
            place = _after_effects(words, place, program, entry)
        elif not program.reads:
            yield _checked_file(words, place, entry)
            place += 1
        else:
            raise _refusal(entry, f"'{word}' is not known")


def _is_value(option: str, value: str) -> bool:
    if option in _TYPED:
        return value in _TYPES | _ENCODINGS or bool(_TIME.fullmatch(value))
    return bool(_VALUE.fullmatch(value))


def _checked_file(words: list[str], place: int, entry: str) -> int:
    word = words[place]
    if word.startswith(("-", "|", "@")) or "://" in word or word.lower().endswith(_PLAYLISTS):
        raise _refusal(entry, f"'{word}' is no audio file")
    return place


def _after_effects(words: list[str], place: int, program: _Program, entry: str) -> int:
    if words[place] not in program.effects:
        raise _refusal(entry, f"the effect '{words[place]}' is not known")
    for word in words[place:]:
        if word not in program.effects and not _EFFECT_VALUE.fullmatch(word):
            raise _refusal(entry, f"'{word}' is no value of an effect")
    return len(words)


def _refusal(entry: str, reason: str) -> CosyFlowError:
    return CosyFlowError(
        f"`{entry}` is not run: {reason}. What is run are sox, flac, ffmpeg and sph2pipe with one file that exists,"
        " usual options and standard output, one program an entry; write the audio to files instead"
    )
