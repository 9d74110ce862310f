"""A complete model directory: trained parts and their exports, with the pretrained models that they work with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from cosyflow import storage
from cosyflow.checkpoint.files import write_file
from cosyflow.checkpoint.official import load_official, save_official
from cosyflow.config.official.write import write_official
from cosyflow.config.recipe import Recipe
from cosyflow.errors import CosyFlowError
from cosyflow.families import facet, family
from cosyflow.families.family import Part
from cosyflow.pretrained import SPEAKER_MODEL, is_stand_in, locate
from cosyflow.progress import say
from cosyflow.release.export import export_model
from cosyflow.scratch import scratch_folder
from cosyflow.stage import StageResult

SPEAKERS = "spk2info.pt"


def assemble_model_dir(recipe: Recipe, trained: Mapping[str, str], pretrained_dir: str, output_dir: str) -> StageResult:
    """Makes a directory from which the official code and `cosyflow synthesize` speak.

    Its weights load strictly: they have the official keys and no others, whatever a training checkpoint also holds.
    With them are the exports of each part (see `export_model`), the speaker-embedding model, the speech tokenizer
    and the text tokenizer, and, where the pretrained directory has it, the batched speech tokenizer. The official
    settings and the speakers are those of the pretrained directory, else made of the recipe, and none.

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
    parts = family(recipe.version).parts.values()
    weights = {part.name: trained.get(part.name) or locate(pretrained_dir, *part.weights) for part in parts}
    others = _pretrained_files(recipe, pretrained_dir)
    with scratch_folder() as folder:
        for part in parts:
            _rewrite(recipe, part, weights[part.name], folder)
            alone = ", its generator alone" if part.takes_turns else ""  # only a training needs discriminators
            say("export", f"{part.weights[0]} is {weights[part.name]}{alone}")
        made = _make_missing(recipe, folder, others)
        storage.upload_tree(folder, output_dir)
        written = sorted([*(part.weights[0] for part in parts), *made])
        for part in parts:
            exported = export_model(recipe, part.name, str(Path(folder) / part.weights[0]), output_dir).files
            written += [name for name in exported if name not in written]
    for name in others:
        _copy(storage.join(pretrained_dir, name), storage.join(output_dir, name))
    folders = [name for name in others if storage.is_folder(storage.join(pretrained_dir, name))]
    files = written + [name for name in others if name not in folders]
    counts = {"trained": len(trained), "files": len(files)}
    return StageResult(counts, files, stand_ins=is_stand_in(pretrained_dir), folders=folders)


def _pretrained_files(recipe: Recipe, pretrained_dir: str) -> list[str]:
    """Names of the files and folders that are copied: what is needed, and what else is there."""
    of_family = family(recipe.version)
    tokenizer = of_family.speech_tokenizer.file
    needed = [SPEAKER_MODEL, tokenizer, of_family.text_tokenizer]
    for name in needed:
        locate(pretrained_dir, name)
    optional = [settings_name(recipe), SPEAKERS, tokenizer.replace(".onnx", ".batch.onnx")]
    return needed + [name for name in optional if storage.exists(storage.join(pretrained_dir, name))]


def settings_name(recipe: Recipe) -> str:
    """The file from which the official code builds the models; without it, it does not load a directory."""
    return f"{recipe.version}.yaml"


def _make_missing(recipe: Recipe, folder: Path, others: Sequence[str]) -> list[str]:
    """Makes what the official code wants of a directory and the pretrained one does not have; gives the names."""
    made = [name for name in (settings_name(recipe), SPEAKERS) if name not in others]
    if settings_name(recipe) in made:
        (folder / settings_name(recipe)).write_text(write_official(recipe, training=False), encoding="utf-8")
    if SPEAKERS in made:
        write_file({}, str(folder / SPEAKERS))
    return made


def _rewrite(recipe: Recipe, part: Part, uri: str, folder: Path) -> None:
    """Loads the weights strictly and writes them again, with the official keys alone."""
    model = facet(recipe.version, "models").BUILDERS[part.name](recipe)
    with storage.local_copy(uri) as checkpoint:
        load_official(model, checkpoint)
    save_official(model, folder / part.weights[0])


def _copy(source: str, target: str) -> None:
    """Copies a file or a folder."""
    if storage.list_files(source):
        with storage.local_copy(source) as folder:
            storage.upload_tree(folder, target)
    else:
        with storage.open_read(source) as reader, storage.open_write(target) as writer:
            shutil.copyfileobj(reader, writer)
