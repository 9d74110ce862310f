"""What the parts of CosyVoice 3 are exported as."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cosyflow.release.export.comparison import ExportedFile
from cosyflow.release.export.flow import flow_files
from cosyflow.release.export.language_model import qwen2_files
from cosyflow.release.export.vocoder import vocoder_files

FILES: Mapping[str, Callable[[Any], list[ExportedFile]]] = {
    "llm": qwen2_files,
    "flow": flow_files,
    "hifigan": vocoder_files,
}
