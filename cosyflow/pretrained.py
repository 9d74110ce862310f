"""The pretrained directory: which files a family has there, and what to do when one is missing."""

from __future__ import annotations

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.families import families
from cosyflow.families.parts import QWEN2_FOLDER, WHISPER_RANKS

SPEAKER_MODEL = "campplus.onnx"
SUMS = "SHA256SUMS"  # the user's own list of digests, in the form of sha256sum
STAND_INS_MARK = "STAND_INS.json"  # in a directory of stand-ins
STAND_IN_KEY = "cosyflow.stand_in"  # in the metadata of a stand-in ONNX model


_MADE_BY_STAND_INS = {SPEAKER_MODEL, QWEN2_FOLDER, *(each.speech_tokenizer.file for each in families())}


def locate(directory: str, *names: str, version: str = "") -> str:
    """The path or URI of the first of `names` that the pretrained directory (local or s3://) has.

    Args:
        version: the family that they are of, for the message.
    Raises:
        CosyFlowError: it has none of them; the message says where they come from.
    """
    for name in names:
        uri = storage.join(directory, name)
        if storage.exists(uri):
            return uri
    raise CosyFlowError(f"{storage.join(directory, names[0])}: no such file; {how_to_get(*names, version=version)}")


def how_to_get(*names: str, version: str = "") -> str:
    """What a message about a missing file of the pretrained directory ends with; any of the names will do.

    Args:
        version: the family whose released model has it; "": any of them.
    """
    if names == (WHISPER_RANKS,):
        return "copy whisper/assets/multilingual.tiktoken of openai-whisper there"
    releases = [each.release for each in families() if each.release and version in ("", each.name)]
    places = [str(release) for release in releases if any(map(release.has, names))]
    place = f" ({places[0]})" if len(places) == 1 else ""
    advice = f"copy {' or '.join(names)} from a released CosyVoice model{place}"
    if _MADE_BY_STAND_INS.isdisjoint(names):
        return advice
    return f"{advice}, or make a small one with: cosyflow stand-ins DIR"


def codebook_size(onnx_path: str) -> int:
    """The number of codes of a speech tokenizer, by its file's name. Raises CosyFlowError for an unknown name."""
    tokenizers = [each.speech_tokenizer for each in families()]
    sizes = {each.file: each.codebook_size for each in tokenizers}
    name = storage.name(onnx_path)
    if name not in sizes:
        raise CosyFlowError(f"{onnx_path}: not one of {', '.join(sizes)}, so give its codebook_size")
    return sizes[name]


def is_stand_in(directory: str) -> bool:
    """Whether the directory was made by `cosyflow stand-ins`."""
    return storage.exists(storage.join(directory, STAND_INS_MARK))
