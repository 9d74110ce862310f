"""The released models: where their authors publish them, and by which files they are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ReleasedFile:
    """A file of a release, with its bytes and its SHA-256; 0 and "" where they are not known."""

    size: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Release:
    """The released model of a family.

    Attributes:
        name: of its folder, as the authors' own scripts have it.
        hugging_face, modelscope: its address on these hubs.
        files: of the pretrained directory that the family uses, by name.
    """

    name: str
    hugging_face: str
    modelscope: str
    files: Mapping[str, ReleasedFile]

    def __str__(self) -> str:
        return f"{self.hugging_face} on Hugging Face, {self.modelscope} on ModelScope"

    def has(self, name: str) -> bool:
        """Whether it has a file, or files below a folder, of that name."""
        return name in self.files or any(file.startswith(f"{name}/") for file in self.files)


SPEAKER_ENCODER = ReleasedFile(28_303_423, "a6ac6a63997761ae2997373e2ee1c47040854b4b759ea41ec48e4e42df0f4d73")
"""CAM++, which is the same for all families."""
TEXT_MODEL = ReleasedFile(988_097_824, "130282af0dfa9fe5840737cc49a0d339d06075f83c5a315c3372c9a0740d0b96")
"""The weights of the Qwen2 folder, the same for CosyVoice 2 and 3."""


def with_qwen2(folder: str) -> dict[str, ReleasedFile]:
    """The files of the Qwen2 folder."""
    known = {
        "model.safetensors": TEXT_MODEL,
        "vocab.json": ReleasedFile(2_776_833),
        "merges.txt": ReleasedFile(1_402_109),
    }
    others = {name: ReleasedFile() for name in ("config.json", "tokenizer_config.json", "generation_config.json")}
    return {f"{folder}/{name}": file for name, file in {**known, **others}.items()}
