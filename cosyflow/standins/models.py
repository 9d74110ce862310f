"""A pretrained directory of stand-ins: the right files, signatures and layouts, small and untrained."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cosyflow.errors import CosyFlowError
from cosyflow.families.parts import QWEN2_FOLDER, WHISPER_RANKS
from cosyflow.pretrained import STAND_INS_MARK
from cosyflow.standins.onnx_models import write_onnx_models
from cosyflow.standins.text_models import make_qwen2_folder, make_whisper_ranks


def make_stand_ins(directory: Path, seed: int = 0) -> list[str]:
    """Fills a folder with stand-ins for the files of the pretrained directory, and marks it with STAND_INS.json.

    The same seed gives the same bytes. The mark lists each file with its SHA-256.

    Returns:
        names of the files, relative to the folder, the mark last.
    Raises:
        CosyFlowError: the folder has files that are not stand-ins; they are not overwritten.
    """
    mark = directory / STAND_INS_MARK
    if directory.exists() and not directory.is_dir():
        raise CosyFlowError(f"{directory}: is a file, not a folder")
    if directory.is_dir() and not mark.exists() and any(directory.iterdir()):
        raise CosyFlowError(f"{directory}: has files that are not stand-ins; name an empty or a new folder")
    directory.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps({"seed": seed, "files": {}}) + "\n", encoding="utf-8")
    write_onnx_models(directory, seed)
    make_qwen2_folder(directory / QWEN2_FOLDER, seed)
    make_whisper_ranks(directory / WHISPER_RANKS)
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path != mark)
    digests = {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    mark.write_text(json.dumps({"seed": seed, "files": digests}, indent=1) + "\n", encoding="utf-8")
    return [*digests, STAND_INS_MARK]
