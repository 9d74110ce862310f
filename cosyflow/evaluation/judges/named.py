"""The judges that a user names: where they lie, and whether they are what they should be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import yaml

from cosyflow import storage
from cosyflow.config import yaml_text
from cosyflow.content import Digests, combine
from cosyflow.errors import CosyFlowError, PlaceError
from cosyflow.evaluation.judges import DNSMOS, QUALITY, ROLES, SPEAKER, TRANSCRIPT

LISTING = "judges.yaml"
WEIGHTS = "model.bin"
"""The file of a Whisper folder whose checksum counts."""
FOUND: Mapping[str, tuple[str, ...]] = {
    TRANSCRIPT: (f"*/{WEIGHTS}", WEIGHTS),
    SPEAKER: ("dvector*.pt", "campplus.onnx"),
    DNSMOS: ("dnsmos*.onnx", "sig_bak_ovr.onnx"),
    QUALITY: ("distill*mos*.pt", "quality*.onnx"),
}
"""Patterns of files by which a folder without a listing is understood, the first that is there."""


@dataclass(frozen=True)
class Named:
    """A judge that is there: a file, or the folder of a Whisper model. `digest` identifies it by content."""

    role: str
    uri: str
    digest: str


@dataclass(frozen=True)
class Missing:
    """A judge that cannot judge, and why."""

    reason: str


Judges = dict[str, Named | Missing]
"""Each role's judge."""


def find_judges(place: str) -> Judges:
    """The judges in a folder, or those of a YAML file: `ROLE: {path: PATH, sha256: DIGEST}`.

    Args:
        place: local or s3://. A folder has a judges.yaml, or files with usual names. "" is no judges at all.

    Raises:
        CosyFlowError: there is no such place, or the file is no list of judges.
    """
    if not place:
        return dict.fromkeys(ROLES, Missing("no judges were named; name their folder or file with --judges"))
    if not storage.exists(place):
        raise CosyFlowError(f"{place}: no such judges; name a folder or a YAML file, or make: cosyflow judges DIR")
    listing = storage.join(place, LISTING) if storage.is_folder(place) else place
    wanted = _read(listing) if storage.exists(listing) else _look(place)
    return {role: _check(role, *wanted[role]) if role in wanted else _unnamed(role, place) for role in ROLES}


def _unnamed(role: str, place: str) -> Missing:
    return Missing(f"{place} has no judge that {ROLES[role]}")


def _read(listing: str) -> dict[str, tuple[str, str]]:
    """Address and checksum by role, of a YAML file."""
    try:
        values = yaml_text.load(storage.read_text(listing))
    except yaml.YAMLError as error:
        raise CosyFlowError(f"{listing}: not YAML ({' '.join(str(error).split())}); write ROLE: PATH") from error
    if not isinstance(values, dict) or not values:
        raise CosyFlowError(f"{listing}: not a list of judges; write ROLE: PATH with the roles {', '.join(ROLES)}")
    return {role: _entry(listing, role, value) for role, value in values.items()}


def _entry(listing: str, role: Any, value: Any) -> tuple[str, str]:
    if role not in ROLES:
        raise CosyFlowError(f"{listing}: {role}: no such judge; there are {', '.join(ROLES)}")
    entry = {"path": value} if isinstance(value, str) else value
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str) or entry.keys() - {"path", "sha256"}:
        raise CosyFlowError(f"{listing}: {role}: write {{path: PATH, sha256: DIGEST}}; the checksum may be left out")
    path = entry["path"]
    uri = path if storage.is_remote(path) or path.startswith("/") else storage.join(storage.parent(listing), path)
    wanted = entry.get("sha256", "")
    if not isinstance(wanted, str) or not re.fullmatch(r"([0-9a-f]{64})?", wanted.lower()):
        raise CosyFlowError(f"{listing}: {role}: sha256 is {wanted}, write its 64 digits in quotation marks")
    return uri, wanted.lower()


def _look(folder: str) -> dict[str, tuple[str, str]]:
    names = [file.path for file in storage.list_files(folder)]
    found = {}
    for role, patterns in FOUND.items():
        matching = [name for pattern in patterns for name in names if fnmatchcase(name, pattern)]
        if matching:
            uri = storage.join(folder, matching[0])
            found[role] = (storage.parent(uri) if role == TRANSCRIPT else uri, "")
    return found


def _check(role: str, uri: str, wanted: str) -> Named | Missing:
    if not storage.exists(uri):
        return Missing(f"{uri}: no such file or folder")
    digests = Digests()
    try:
        if storage.is_folder(uri):
            files = digests.tree(uri)
            checked, digest = files.get(WEIGHTS, ""), combine(files)
        else:
            checked = digest = digests.file(uri)
    except PlaceError:
        raise
    except CosyFlowError as error:
        return Missing(str(error))
    if wanted and wanted != checked:
        return Missing(f"{uri}: its sha256 is {checked or 'none, it lacks ' + WEIGHTS}, not {wanted}; fetch it anew")
    return Named(role, uri, digest)
