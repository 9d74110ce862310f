"""Every exported file has a registered name of its own."""

from __future__ import annotations

import pytest

from cosyflow.stage import Manifest
from cosyflow.stages.register import _models


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["llm.forward.fp32.zip", "llm.forward.fp32.onnx"], ["m-torchscript", "m-onnx"]),
        (
            ["flow.encoder.fp32.zip", "flow.encoder.fp16.zip", "flow.decoder.estimator.fp32.onnx"],
            ["m-flow.encoder.fp16", "m-flow.encoder.fp32", "m-onnx"],
        ),
        (["hift.pt"], ["m-generator"]),
    ],
)
def test_names(files: list[str], names: list[str]) -> None:
    def manifest(stage: str, uri: str, *files: str) -> Manifest:
        sizes = dict.fromkeys(files, 1)
        return Manifest(stage, "m", "key", uri, "digest", {}, sizes, {}, {}, [], {}, 0.0, stand_ins=False)

    models = _models("m", manifest("average", "/a", "llm.pt"), manifest("export", "/e", *files))
    assert list(models) == ["m", *names]
    assert models["m"] == "/a/llm.pt"
    assert sorted(models.values())[1:] == sorted(f"/e/{file}" for file in files)
