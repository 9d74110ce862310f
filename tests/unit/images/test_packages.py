"""Each image has the packages that the stages import that run in it: tried with all others out of reach."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import components
from components.base import image_reference
from tests.unit.packages import CHECKOUT, import_with, locked, with_dependencies

COMPONENTS = components.__all__
ENTRIES = dict.fromkeys(["plan", "report"], "cosyflow/run/entry.py")
"""Components that are no stage, and what they call."""
FURTHER = {"base": ["cosyflow.cli.main", "pipelines.compiling", "pipelines.submitting", "minio", "kubernetes"]}


def in_image(image: str) -> set[str]:
    """Distributions of an image, by the groups of pyproject.toml as uv.lock resolves them."""
    (project,) = locked()["cosyflow"]
    return with_dependencies(need["name"] for need in project["dev-dependencies"][f"image-{image}"])


def stage_modules(component: str) -> set[str]:
    """The stage of a component, and what the stage imports when it works."""
    file = CHECKOUT / ENTRIES.get(component, f"cosyflow/run/stages/{component}.py")
    module = ".".join(file.relative_to(CHECKOUT).with_suffix("").parts)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {module, *(name for name in imported if name.startswith("cosyflow."))}


def components_in(image: str) -> list[str]:
    image_of = {name: getattr(components, name).component_spec.implementation.container.image for name in COMPONENTS}
    return [name for name in COMPONENTS if image_of[name] == image_reference(image)]


@pytest.mark.parametrize("image", ["base", "extract"])
@pytest.mark.medium
def test_stages_import_with_what_their_image_has(image: str) -> None:
    names = components_in(image)
    assert names
    modules = sorted({module for component in names for module in stage_modules(component)})
    import_with(modules + FURTHER.get(image, []), in_image(image))


PLAN = """
from cosyflow.run import plan
from cosyflow.run.record import Record

settings = {settings!r}
made = plan.plan(settings)
assert [link.label for link in made.unfinished][0] == "download/train-a"
assert Record.read(made.uri) == made.record
"""


@pytest.mark.parametrize("model", ["llm", "flow", "hifigan"])
@pytest.mark.medium
def test_a_whole_run_is_planned_with_what_the_base_image_has(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All stages look at the run there, those too that work in another image."""
    for file in ("corpus/train-a/a.wav", "corpus/dev/a.wav", "models/campplus.onnx", "models/speech_tokenizer_v2.onnx"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "models" / "CosyVoice-BlankEN").mkdir()
    for file in ("config.json", "vocab.json", "merges.txt", "model.safetensors"):
        (tmp_path / "models" / "CosyVoice-BlankEN" / file).write_text("{}")
    settings = {
        "data_root": str(tmp_path / "data"),
        "data_url": str(tmp_path / "corpus"),
        "pretrained_dir": str(tmp_path / "models"),
        "train_subsets": ["train-a"],
        "dev_subsets": ["dev"],
        "test_subsets": ["none"],
        "model": model,
        "launcher": "local",
        "gpus_per_node": 4,
    }
    (tmp_path / "planned_in_the_base_image.py").write_text(PLAN.format(settings=settings))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{CHECKOUT}")
    import_with(["planned_in_the_base_image"], in_image("base"))


def test_the_base_image_is_without_the_large_packages() -> None:
    assert not in_image("base") & {"torch", "onnxruntime-gpu", "mlflow", "transformers", "deepspeed", "scipy", "pandas"}
