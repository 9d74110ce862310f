"""What a checkpoint file is, for a reader: version, part, sizes, and what of it does not fit a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cosyflow.checkpoint.official import TIED_HEAD, differences, fit_names, read_form, shapes_of
from cosyflow.families.recognition import Identity, identify


@dataclass(frozen=True)
class Description:
    """A checkpoint in numbers."""

    path: Path
    form: str
    """How the tensors lie in the file; "" for a bare state dict."""
    identity: Identity
    sizes: dict[str, int]
    """Settings of the model that the shapes show."""
    num_tensors: int
    num_parameters: int
    """Numbers in the file, shared tensors once."""
    dtypes: list[str]
    problems: list[str]
    """What does not fit the model that it was compared with."""

    def lines(self) -> list[str]:
        """The description for a reader."""
        sizes = ", ".join(f"{name} {value}" for name, value in self.sizes.items())
        return [
            f"{self.path}: {self.identity}" + (f" ({self.form})" if self.form else ""),
            *([f"sizes: {sizes}"] if sizes else []),
            f"{self.num_parameters:,} parameters in {self.num_tensors} tensors, {' '.join(self.dtypes)}",
            *(f"does not fit: {problem}" for problem in self.problems),
        ]


def describe(path: Path, model: nn.Module | None = None) -> Description:
    """What a checkpoint is and, given a model (on the meta device is enough), what does not fit it.

    Raises:
        CosyFlowError: the file cannot be read.
    """
    tensors, form = read_form(path)
    problems = []
    if model is not None:
        own = model.state_dict()
        problems = differences(shapes_of(own), shapes_of(fit_names(tensors, own)))
    shapes = shapes_of(tensors)
    identity = identify(shapes)
    return Description(
        path=path,
        form=form,
        identity=identity,
        sizes=_sizes(shapes),
        num_tensors=len(tensors),
        num_parameters=sum(value.numel() for key, value in tensors.items() if key != TIED_HEAD),
        dtypes=sorted({str(value.dtype).removeprefix("torch.") for value in tensors.values()}),
        problems=problems,
    )


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    tables = {
        "text_token_size": "text_embedding.weight",
        "vocab_size": "llm.model.model.embed_tokens.weight",
        "speech_ids": "llm_decoder.weight",
        "tokens": "input_embedding.weight",
    }
    sizes = {name: shapes[key][0] for name, key in tables.items() if shapes.get(key)}
    stacks = {"num_hidden_layers": "llm.model.model.layers.", "llm.num_blocks": "llm.encoders."}
    stacks |= {"text_encoder.num_blocks": "text_encoder.encoders.", "encoder.num_blocks": "encoder.encoders."}
    for name, prefix in stacks.items():
        numbers = {key.removeprefix(prefix).split(".")[0] for key in shapes if key.startswith(prefix)}
        if numbers:
            sizes[name] = len(numbers)
    if len(shapes.get("llm_decoder.weight", ())) > 1:
        sizes["hidden_size"] = shapes["llm_decoder.weight"][1]
    return sizes
