"""Exports the parts of a trained model in the forms and under the names that the official runtime reads.

Each file is loaded again, run at random lengths and compared with the model it comes from before it gets its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cosyflow import disk, storage
from cosyflow.checkpoint.official import load_official
from cosyflow.config.recipe import Recipe
from cosyflow.families import facet
from cosyflow.progress import Progress
from cosyflow.release.export.comparison import COMPARISONS, ExportedFile, largest_difference
from cosyflow.scratch import scratch_folder
from cosyflow.stage import StageResult


def export_model(recipe: Recipe, model: str, weights: str, output_dir: str) -> StageResult:
    """Exports trained weights.

    - llm: its one step, embeddings to logits, as `llm.forward.fp32.zip` (TorchScript), of CosyVoice 2 and 3 also as
      `llm.forward.fp32.onnx`; of CosyVoice the official `llm.text_encoder` and `llm.llm`, each `.fp32.zip` and
      `.fp16.zip`.
    - flow: `flow.encoder.fp32.zip` and `.fp16.zip` (CosyVoice and CosyVoice 2), `flow.decoder.estimator.fp32.onnx`.
    - hifigan: `hift.pt`, the generator without the discriminators.

    Args:
        recipe: sizes of the model.
        model: the part that the weights are of.
        weights: a checkpoint in the official form, e.g. `llm.pt`.
        output_dir: folder or s3:// prefix where the files go.

    Raises:
        CosyFlowError: the weights do not fit the recipe, or an export computes something else than the model.
    """
    differences: dict[str, float] = {}
    with storage.local_copy(weights) as path:
        files = exported_files(recipe, model, path)
        with Progress(f"export {model}", len(files), "files") as progress:
            for name, difference in _write(files, output_dir):
                differences[name] = difference
                progress.update(1, largest_difference=f"{difference:.1e}")
    details = {"largest_difference": max(differences.values()), "compared_lengths": COMPARISONS}
    return StageResult({"files": len(files)}, list(differences), details)


def exported_files(recipe: Recipe, part: str, weights: Path) -> list[ExportedFile]:
    """What a part is exported as, with the weights of a checkpoint; of a vocoder also with its discriminators.

    Raises:
        CosyFlowError: the weights do not fit the recipe.
    """
    model = facet(recipe.version, "models").BUILDERS[part](recipe)
    load_official(model, weights)
    files: list[ExportedFile] = facet(recipe.version, "export").FILES[part](model.eval().requires_grad_(False))
    return files


def _write(files: list[ExportedFile], output_dir: str) -> Iterator[tuple[str, float]]:
    """Writes each file and gives its name and its difference; a file that differs too much is not copied."""
    for file in files:
        with scratch_folder() as folder:
            with disk.written(folder / file.name):
                run = file.write(folder / file.name)
            difference = largest_difference(file, run)
            storage.upload_tree(folder, output_dir)
        yield file.name, difference
