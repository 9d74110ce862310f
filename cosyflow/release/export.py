"""Exports a language model's one step, embeddings to the logits of the next speech token, as TorchScript and ONNX.

Each file is run at random lengths and compared with the model it comes from before it gets its name.
"""

from __future__ import annotations

import logging
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cosyflow import storage
from cosyflow.config.recipe import CosyVoice2Recipe, Part, Recipe
from cosyflow.errors import CosyFlowError
from cosyflow.models.checkpoint import load_official
from cosyflow.models.llm.speech_lm import SpeechLM
from cosyflow.progress import Progress
from cosyflow.stage import StageResult

OPSET = 18
TRACED_LENGTH = 17
LONGEST_COMPARED = 300
COMPARISONS = 10
TOLERANCE = 1e-4
TORCHSCRIPT_FILE = "llm.forward.fp32.zip"
ONNX_FILE = "llm.forward.fp32.onnx"


class NextTokenLogits(nn.Module):
    """A language model seen from outside: embeddings of one sequence in, logits of the next speech token out."""

    def __init__(self, model: SpeechLM) -> None:
        super().__init__()
        self.decoder = model.decoder
        self.head = model.llm_decoder

    def forward(self, embeddings: Tensor) -> Tensor:
        """Float32 [1, T, H] to [1, T, V]; position t sees positions up to t."""
        position = torch.arange(embeddings.shape[1], device=embeddings.device)
        hidden = self.decoder(embeddings[0], position, _WholeSequence(position))
        logits: Tensor = self.head(hidden)[None]
        return logits


class _WholeSequence:
    """Causal attention of one whole sequence, in operations that a traced graph keeps for any length."""

    def __init__(self, position: Tensor) -> None:
        self.visible = position[None, :] <= position[:, None]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # [T, H, D] -> [G, H/G, T, D] and [T, G, D] -> [G, 1, T, D]: heads that share a key are broadcast against it
        query, key, value = (part.unflatten(1, (key.shape[1], -1)).permute(1, 2, 0, 3) for part in (query, key, value))
        scores = query @ key.transpose(2, 3) * query.shape[3] ** -0.5
        weights = scores.masked_fill(~self.visible, float("-inf")).softmax(-1)
        output: Tensor = (weights @ value).permute(2, 0, 1, 3).flatten(1, 2)
        return output


def export_model(recipe: Recipe, model: Part, weights: str, output_dir: str) -> StageResult:
    """Exports trained weights.

    Args:
        recipe: sizes of the model.
        model: the part that the weights are of; only "llm" has an exporter so far.
        weights: a checkpoint in the official form, e.g. `llm.pt`.
        output_dir: where `llm.forward.fp32.zip` (TorchScript) and `llm.forward.fp32.onnx` go.

    Raises:
        CosyFlowError: the weights do not fit the recipe, the recipe's model has no exporter, or an export computes
            something else than the model.
    """
    loaded = _load(recipe, model, weights)
    step = NextTokenLogits(loaded).eval().requires_grad_(False)
    exporters: dict[str, Callable[[NextTokenLogits, Path], Callable[[Tensor], Tensor]]] = {
        TORCHSCRIPT_FILE: _export_torchscript,
        ONNX_FILE: _export_onnx,
    }
    differences = {}
    with Progress("export", len(exporters), "files") as progress, tempfile.TemporaryDirectory() as folder:
        for name, export in exporters.items():
            exported = export(step, Path(folder) / name)
            differences[name] = _compare(step, exported, name)
            with storage.open_write(storage.join(output_dir, name)) as stream:
                stream.write((Path(folder) / name).read_bytes())
            progress.update(1, largest_difference=f"{differences[name]:.1e}")
    details = {"largest_difference": max(differences.values()), "compared_lengths": COMPARISONS}
    return StageResult({"files": len(exporters)}, list(exporters), details)


def _load(recipe: Recipe, model: Part, weights: str) -> SpeechLM:
    if model != "llm" or not isinstance(recipe, CosyVoice2Recipe):
        raise CosyFlowError(
            f"export: the {model} of {recipe.version} has no exporter yet, only the llm of cosyvoice2 has"
        )
    loaded = SpeechLM(recipe.llm)
    with storage.local_copy(weights) as path:
        load_official(loaded, path)
    return loaded


def _export_torchscript(step: NextTokenLogits, path: Path) -> Callable[[Tensor], Tensor]:
    traced = torch.jit.trace(step, _random_embeddings(TRACED_LENGTH, step), check_trace=False)
    torch.jit.freeze(traced).save(str(path))
    loaded = torch.jit.load(str(path))  # what is compared is what is in the file
    return lambda embeddings: loaded(embeddings)


def _export_onnx(step: NextTokenLogits, path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    with _rms_norm_symbolic(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter's own deprecation, and constants that it folds
        torch.onnx.export(
            step,
            (_random_embeddings(TRACED_LENGTH, step),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["embeddings"],
            output_names=["logits"],
            dynamic_axes={"embeddings": {1: "seq_len"}, "logits": {1: "seq_len"}},
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(embeddings: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"embeddings": embeddings.numpy()})[0])

    return run


@contextmanager
def _rms_norm_symbolic() -> Iterator[None]:
    """Lets the exporter write an RMS norm, which opset 18 does not have, in elementary operations."""

    def symbolic(graph: Any, hidden: Any, shape: Any, weight: Any, eps: Any) -> Any:
        value = torch.onnx.symbolic_helper._maybe_get_const(eps, "f")
        epsilon = graph.op("Constant", value_t=torch.tensor(value if isinstance(value, float) else 1e-6))
        last = graph.op("Constant", value_t=torch.tensor([-1]))
        mean = graph.op("ReduceMean", graph.op("Mul", hidden, hidden), last, keepdims_i=1)
        scale = graph.op("Sqrt", graph.op("Add", mean, epsilon))
        return graph.op("Mul", graph.op("Div", hidden, scale), weight)

    torch.onnx.utils.register_custom_op_symbolic("aten::rms_norm", symbolic, OPSET)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        yield
    finally:
        torch.onnx.utils.unregister_custom_op_symbolic("aten::rms_norm", OPSET)


def _random_embeddings(length: int, step: NextTokenLogits) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(1, length, step.head.in_features, generator=generator)


@torch.inference_mode()
def _compare(step: NextTokenLogits, exported: Callable[[Tensor], Tensor], name: str) -> float:
    """The largest absolute difference of logits at random lengths.

    Raises:
        CosyFlowError: it is above TOLERANCE.
    """
    lengths = [1, *random.Random(name).sample(range(2, LONGEST_COMPARED), COMPARISONS - 1)]
    largest = 0.0
    for length in lengths:
        embeddings = _random_embeddings(length, step)
        difference = float((exported(embeddings) - step(embeddings)).abs().max())
        if not np.isfinite(difference) or difference > TOLERANCE:
            raise CosyFlowError(
                f"{name}: differs from the model by {difference:.2e} at length {length}, allowed is {TOLERANCE:.0e}"
            )
        largest = max(largest, difference)
    return largest
