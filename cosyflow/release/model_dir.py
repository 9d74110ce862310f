"""A complete model directory: trained parts and their exports, beside the pretrained models that they work with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from cosyflow import storage
from cosyflow.checkpoint.official import load_official, save_official
from cosyflow.config.recipe import Part, Recipe
from cosyflow.errors import CosyFlowError
from cosyflow.models.flow.model import build_flow
from cosyflow.models.vocoder.hift import HiFTGenerator
from cosyflow.pretrained import (
    QWEN2_FOLDER,
    SPEAKER_MODEL,
    SPEECH_TOKENIZERS,
    VOCODERS,
    WHISPER_RANKS,
    is_stand_in,
    locate,
)
from cosyflow.progress import say
from cosyflow.release.export import export_model
from cosyflow.release.export.vocoder import VOCODER_FILE
from cosyflow.stage import StageResult
from cosyflow.training.language_model import build_language_model

PARTS: dict[Part, tuple[str, ...]] = {"llm": ("llm.pt",), "flow": ("flow.pt",), "hifigan": VOCODERS}
"""The names of a part's weights in a pretrained directory; the first is its name in the new one."""
SPEAKERS = "spk2info.pt"


def assemble_model_dir(
    recipe: Recipe, trained: Mapping[Part, str], pretrained_dir: str, output_dir: str
) -> StageResult:
    """Makes a directory from which the official code and `cosyflow synthesize` speak.

    Its weights load strictly: they have the official keys and no others, whatever a training checkpoint also holds.
    Beside them are the exports of each part (see `export_model`), the speaker-embedding model, the speech tokenizer
    and the text tokenizer, and, where the pretrained directory has them, the official settings, the speakers and the
    batched speech tokenizer.

    Args:
        recipe: sizes of the models.
        trained: the checkpoint of each trained part; the others come from the pretrained directory.
        pretrained_dir: local or s3://.
        output_dir: another folder or s3:// prefix.

    Raises:
        CosyFlowError: a file is missing or does not fit the recipe. Nothing is written before all weights were loaded.
    """
    if output_dir.rstrip("/") == pretrained_dir.rstrip("/"):
        raise CosyFlowError(f"{output_dir}: is the pretrained directory, give another to write to")
    weights = {part: trained.get(part) or locate(pretrained_dir, *names) for part, names in PARTS.items()}
    others = _pretrained_files(recipe, pretrained_dir)
    with tempfile.TemporaryDirectory(prefix="cosyflow-") as folder:
        for part, uri in weights.items():
            _rewrite(recipe, part, uri, Path(folder) / PARTS[part][0])
            say("export", f"{PARTS[part][0]} is {uri}")
        storage.upload_tree(folder, output_dir)
        written = sorted(PARTS[part][0] for part in PARTS)
        for part, names in PARTS.items():
            exported = export_model(recipe, part, str(Path(folder) / names[0]), output_dir).files
            written += [name for name in exported if name != VOCODER_FILE]
    for name in others:
        _copy(storage.join(pretrained_dir, name), storage.join(output_dir, name))
    files = written + [name for name in others if name != QWEN2_FOLDER]
    folders = [name for name in others if name == QWEN2_FOLDER]
    counts = {"trained": len(trained), "files": len(files)}
    return StageResult(counts, files, stand_ins=is_stand_in(pretrained_dir), folders=folders)


def _pretrained_files(recipe: Recipe, pretrained_dir: str) -> list[str]:
    """Names of the files and folders that are copied: what is needed, and what else is there."""
    tokenizer = SPEECH_TOKENIZERS[recipe.version].file
    text = WHISPER_RANKS if recipe.version == "cosyvoice" else QWEN2_FOLDER
    needed = [SPEAKER_MODEL, tokenizer, text]
    for name in needed:
        locate(pretrained_dir, name)
    settings = f"{recipe.version}.yaml"
    optional = [settings, SPEAKERS, tokenizer.replace(".onnx", ".batch.onnx")]
    there = [name for name in optional if storage.exists(storage.join(pretrained_dir, name))]
    if settings not in there:
        say("export", f"{pretrained_dir} has no {settings}, without which the official code does not load a directory")
    return needed + there


def _rewrite(recipe: Recipe, part: Part, uri: str, path: Path) -> None:
    """Loads the weights strictly and writes them again, with the official keys alone."""
    model = build_part(recipe, part)
    with storage.local_copy(uri) as checkpoint:
        load_official(model, checkpoint)
    save_official(model, path)


def build_part(recipe: Recipe, part: Part) -> nn.Module:
    """The model of a part, a vocoder without its discriminators."""
    match part:
        case "llm":
            return build_language_model(recipe.llm)
        case "flow":
            return build_flow(recipe.flow)
        case "hifigan":
            return HiFTGenerator(recipe.hifigan.generator)


def _copy(source: str, target: str) -> None:
    """Copies a file or a folder."""
    if storage.list_files(source):
        with storage.local_copy(source) as folder:
            storage.upload_tree(folder, target)
    else:
        with storage.open_read(source) as reader, storage.open_write(target) as writer:
            shutil.copyfileobj(reader, writer)
