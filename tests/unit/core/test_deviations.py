"""docs/deviations.md: its tests are there, and what no other test shows of it is shown here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cosyflow.config.llm import DPOConfig
from cosyflow.config.load import load_config
from cosyflow.errors import CosyFlowError
from cosyflow.release.model_dir import assemble_model_dir
from cosyflow.training.arguments import Arguments

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`")


def named_tests() -> list[tuple[str, str]]:
    """File and test, or "" for the whole file; a test without a file is in the one named before."""
    found, file = [], ""
    for match in NAMED.finditer(PAGE):
        file = match[1] or file
        if match[1] or match[2]:
            found.append((file, match[2] or ""))
    return found


@pytest.mark.parametrize(("file", "test"), named_tests())
def test_a_named_test_is_there(file: str, test: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not test or test in functions


def test_every_section_names_a_test() -> None:
    for section in PAGE.split("\n## ")[1:]:
        assert "\nTest: `tests/" in section, section.splitlines()[0]


def test_a_preference_is_a_sum_by_default() -> None:
    assert DPOConfig().logprob == "sum"


def test_the_loss_is_not_scaled() -> None:
    for file in (ROOT / "cosyflow").rglob("*.py"):
        assert "GradScaler" not in file.read_text(encoding="utf-8"), file


def test_the_timeout_is_half_an_hour() -> None:
    assert Arguments.__dataclass_fields__["timeout"].default == 1800


def test_an_export_is_not_written_into_the_pretrained_directory(tmp_path: Path) -> None:
    recipe = load_config(ROOT / "conf" / "cosyvoice2.tiny.yaml")
    with pytest.raises(CosyFlowError, match="is the pretrained directory, give another to write to"):
        assemble_model_dir(recipe, {}, str(tmp_path), f"{tmp_path}/")
    assert not list(tmp_path.iterdir())


def test_the_pretrained_folder_gives_the_tokenizer_alone() -> None:
    """Whoever reads the option: who looks for a tokenizer."""
    files = (ROOT / "cosyflow" / "training").rglob("*.py")
    readers = [file.name for file in files if "arguments.onnx_path" in file.read_text(encoding="utf-8")]
    assert readers == ["indexes.py"]
