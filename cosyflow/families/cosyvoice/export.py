"""What the parts of CosyVoice are exported as."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cosyflow.release.export.comparison import ExportedFile
from cosyflow.release.export.flow import flow_files
from cosyflow.release.export.language_model import transformer_files
from cosyflow.release.export.vocoder import vocoder_files

FILES: Mapping[str, Callable[[Any], list[ExportedFile]]] = {
    "llm": transformer_files,
    "flow": flow_files,
    "hifigan": vocoder_files,
}
