"""Exports the parts of a trained model in the forms and under the names that the official runtime reads.

Each file is loaded again, run at random lengths and compared with the model it comes from before it gets its name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cosyflow import storage
from cosyflow.config.recipe import Part, Recipe
from cosyflow.progress import Progress
from cosyflow.release.export.comparison import COMPARISONS, ExportedFile, largest_difference
from cosyflow.release.export.flow import flow_files
from cosyflow.release.export.language_model import language_model_files
from cosyflow.release.export.vocoder import vocoder_files
from cosyflow.stage import StageResult

FILES: dict[Part, Callable[[Recipe, Path], list[ExportedFile]]] = {
    "llm": language_model_files,
    "flow": flow_files,
    "hifigan": vocoder_files,
}
"""What a part is exported as, given the recipe and the file of its weights."""


def export_model(recipe: Recipe, model: Part, weights: str, output_dir: str) -> StageResult:
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
        files = FILES[model](recipe, path)
        with Progress(f"export {model}", len(files), "files") as progress:
            for name, difference in _write(files, output_dir):
                differences[name] = difference
                progress.update(1, largest_difference=f"{difference:.1e}")
    details = {"largest_difference": max(differences.values()), "compared_lengths": COMPARISONS}
    return StageResult({"files": len(files)}, list(differences), details)


def _write(files: list[ExportedFile], output_dir: str) -> Iterator[tuple[str, float]]:
    """Writes each file and gives its name and its difference; a file that differs too much is not copied."""
    for file in files:
        with tempfile.TemporaryDirectory(prefix="cosyflow-") as folder:
            difference = largest_difference(file, file.write(Path(folder) / file.name))
            storage.upload_tree(folder, output_dir)
        yield file.name, difference
