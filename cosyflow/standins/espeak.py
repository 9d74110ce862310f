"""eSpeak NG in a process of its own, because its library keeps global state.

Run as a script, it reads a JSON list of orders from standard input and writes for each the number of bytes (32-bit
little-endian) and the signed 16-bit samples at 22,050 Hz to standard output.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

SAMPLE_RATE = 22_050

# speak_lib.h of eSpeak NG 1.52
AUDIO_OUTPUT_SYNCHRONOUS = 2
PARAMETER_RATE, PARAMETER_PITCH = 1, 3
POSITION_CHARACTER = 1
CHARACTERS_UTF8 = 1
RANDOM_SEED = 1  # some voices have breath noise


class EspeakError(Exception):
    """The engine cannot speak; the message says why."""


@dataclass(frozen=True)
class Order:
    """What to say and how: `voice` as `LANGUAGE+VARIANT`, `pitch` from 0 to 99."""

    text: str
    voice: str
    pitch: int
    words_per_minute: int


def is_installed() -> bool:
    return importlib.util.find_spec("espeakng_loader") is not None


def speak(orders: Sequence[Order]) -> list[bytes]:
    """Signed 16-bit mono samples at SAMPLE_RATE for each order; the same for the same orders.

    Raises:
        EspeakError: the engine fails.
    """
    script = str(Path(__file__).resolve())
    work = json.dumps([asdict(order) for order in orders]).encode()
    process = subprocess.run([sys.executable, script], input=work, capture_output=True, check=False)
    if process.returncode != 0:
        lines = process.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise EspeakError(f"eSpeak NG ended with status {process.returncode}: {lines[-1]}")
    spoken, position = [], 0
    while position < len(process.stdout):
        (length,) = struct.unpack_from("<I", process.stdout, position)
        position += 4
        spoken.append(process.stdout[position : position + length])
        position += length
    if len(spoken) != len(orders):
        raise EspeakError(f"eSpeak NG spoke {len(spoken)} of {len(orders)} sentences")
    return spoken


class _Engine:
    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._samples = bytearray()
        signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = signature(self._receive)  # kept alive as long as the engine
        data = espeakng_loader.get_data_path().encode()
        rate = self._library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data, 0)
        if rate != SAMPLE_RATE:
            raise SystemExit(f"eSpeak NG does not start with the data in {data.decode()} (answer {rate})")
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, order: Order) -> bytes:
        self._samples.clear()
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(RANDOM_SEED))
        text = order.text.encode()
        answers = [
            self._library.espeak_SetVoiceByName(order.voice.encode()),
            self._library.espeak_SetParameter(PARAMETER_PITCH, order.pitch, 0),
            self._library.espeak_SetParameter(PARAMETER_RATE, order.words_per_minute, 0),
            self._library.espeak_Synth(
                text, ctypes.c_size_t(len(text) + 1), 0, POSITION_CHARACTER, 0, CHARACTERS_UTF8, None, None
            ),
            self._library.espeak_Synchronize(),
        ]
        if any(answers) or not self._samples:
            raise SystemExit(f"eSpeak NG cannot say {order.text!r} with the voice {order.voice} (answers {answers})")
        return bytes(self._samples)

    def _receive(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: int) -> int:
        if samples and count > 0:
            self._samples += ctypes.string_at(samples, 2 * count)
        return 0


def _serve_orders() -> None:
    engine = _Engine()
    for settings in json.load(sys.stdin):
        samples = engine.say(Order(**settings))
        sys.stdout.buffer.write(struct.pack("<I", len(samples)) + samples)


if __name__ == "__main__":
    _serve_orders()
