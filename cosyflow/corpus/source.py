"""A folder of speech, known by its content."""

from __future__ import annotations

from cosyflow import storage
from cosyflow.content import Digests, combine
from cosyflow.corpus.kaldi import wavs_of
from cosyflow.errors import CosyFlowError


def folder_digest(folder: str, digests: Digests) -> str:
    """Digest of the names and contents of all files of a folder, and of those that its wav.scp names elsewhere.

    Raises:
        CosyFlowError: the folder does not exist or is empty, or a file cannot be read.
    """
    files = digests.tree(folder)
    if not files:
        raise CosyFlowError(f"{folder}: nothing in it; give a LibriTTS tree or Kaldi files")
    inside = {storage.join(folder, name) for name in files}
    elsewhere = digests.files([wav for wav in wavs_of(folder) if wav not in inside and storage.exists(wav)])
    return combine({**files, **{f"//{wav}": digest for wav, digest in elsewhere.items()}})
