"""A model directory is complete and loads strictly, whatever the checkpoints also hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cosyflow.cli import main
from cosyflow.config.official.read import read_official
from cosyflow.config.recipe import Recipe
from cosyflow.errors import CosyFlowError
from cosyflow.models.flow.model import build_flow
from cosyflow.models.vocoder.hift import HiFTGenerator
from cosyflow.release.model_dir import assemble_model_dir
from cosyflow.standins.models import make_stand_ins
from cosyflow.training.language_model import build_language_model

Recipes = dict[str, Recipe]
Weights = Callable[[str, str], str]

CONF = Path(__file__).resolve().parents[3] / "conf"
TEXT_TOKENIZER = {"cosyvoice": "multilingual.tiktoken"}
TOKENIZER = {
    version: f"speech_tokenizer_v{number}.onnx"
    for number, version in enumerate(["cosyvoice", "cosyvoice2", "cosyvoice3"], 1)
}


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    make_stand_ins(folder)
    return folder


@pytest.fixture
def pretrained(stand_ins: Path, tmp_path: Path) -> Path:
    """A pretrained directory whose files the test may change."""
    folder = tmp_path / "pretrained"
    folder.mkdir()
    for path in stand_ins.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("version", ["cosyvoice", "cosyvoice2", "cosyvoice3"])
@pytest.mark.medium
def test_all_parts_trained(recipes: Recipes, weights: Weights, stand_ins: Path, tmp_path: Path, version: str) -> None:
    recipe = recipes[version]
    trained = {part: weights(version, part) for part in ("llm", "flow", "hifigan")}
    epoch = torch.load(trained["flow"], weights_only=True) | {"epoch": 3, "step": 700}  # as training leaves it
    torch.save(epoch, tmp_path / "epoch_3_whole.pt")
    trained["flow"] = str(tmp_path / "epoch_3_whole.pt")

    result = assemble_model_dir(recipe, trained, str(stand_ins), str(tmp_path / "out"))
    assert result.stand_ins
    assert names(tmp_path / "out") == {*result.files, *result.folders}
    text_tokenizer = TEXT_TOKENIZER.get(version, "CosyVoice-BlankEN")
    assert names(tmp_path / "out") >= {"campplus.onnx", TOKENIZER[version], text_tokenizer}
    assert "flow.decoder.estimator.fp32.onnx" in result.files
    settings, _ = read_official((tmp_path / "out" / f"{version}.yaml").read_text(), "official.yaml")
    assert settings.hifigan.generator == recipe.hifigan.generator, "the official code finds the sizes there"
    assert torch.load(tmp_path / "out" / "spk2info.pt", weights_only=True) == {}
    models = {
        "llm.pt": build_language_model(recipe.llm),
        "flow.pt": build_flow(recipe.flow),
        "hift.pt": HiFTGenerator(recipe.hifigan.generator),
    }
    for name, model in models.items():
        model.load_state_dict(torch.load(tmp_path / "out" / name, weights_only=True), strict=True)


@pytest.mark.medium
def test_what_is_not_trained_is_the_pretrained(
    recipes: Recipes, weights: Weights, pretrained: Path, tmp_path: Path
) -> None:
    for part, name in (("flow", "flow.pt"), ("hifigan", "hifigan.pt")):
        (pretrained / name).symlink_to(weights("cosyvoice2", part))
    torch.save({"speaker": torch.ones(3)}, pretrained / "spk2info.pt")
    (pretrained / "cosyvoice2.yaml").write_text("llm: released\n")
    trained = {"llm": weights("cosyvoice2", "llm")}
    assemble_model_dir(recipes["cosyvoice2"], trained, str(pretrained), str(tmp_path / "out"))
    found = torch.load(tmp_path / "out" / "flow.pt", weights_only=True)
    assert found.keys() == torch.load(pretrained / "flow.pt", weights_only=True).keys()
    assert not any("discriminator" in key for key in torch.load(tmp_path / "out" / "hift.pt", weights_only=True))
    assert (tmp_path / "out" / "cosyvoice2.yaml").read_text() == "llm: released\n"
    assert (tmp_path / "out" / "spk2info.pt").is_file()
    assert (tmp_path / "out" / "CosyVoice-BlankEN" / "config.json").is_file()


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: None, "flow.pt: no such file; copy flow.pt from a released CosyVoice model"),
        (lambda folder: (folder / "campplus.onnx").unlink(), "campplus.onnx: no such file"),
        (lambda folder: (folder / "flow.pt").write_bytes(b"junk"), "flow.pt: not a readable checkpoint"),
    ],
    ids=["no flow", "no speaker model", "damaged"],
)
def test_nothing_is_written_when_something_is_missing(
    recipes: Recipes,
    weights: Weights,
    pretrained: Path,
    tmp_path: Path,
    spoil: Callable[[Path], object],
    complaint: str,
) -> None:
    trained = {part: weights("cosyvoice2", part) for part in ("llm", "hifigan")}
    if complaint.startswith("campplus"):
        trained["flow"] = weights("cosyvoice2", "flow")
    spoil(pretrained)
    with pytest.raises(CosyFlowError, match=complaint):
        assemble_model_dir(recipes["cosyvoice2"], trained, str(pretrained), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "status", "complaint"),
    [
        ([], 2, "error: --checkpoint: give it to export one part, or --pretrained_dir to make a model directory"),
        (
            ["--checkpoint", "llm.pt", "--pretrained_dir", "models"],
            2,
            "error: --checkpoint: give it to export one part",
        ),
        (["--checkpoint", "llm.pt", "--flow_model", "flow.pt"], 2, "error: --pretrained_dir: is missing"),
        (["--pretrained_dir", "out"], 1, "out: is the pretrained directory, give another to write to"),
    ],
    ids=["neither", "both", "mixed", "same"],
)
def test_options_that_do_not_fit_are_named(
    capsys: pytest.CaptureFixture[str], options: list[str], status: int, complaint: str
) -> None:
    assert main(["export", "--config", str(CONF / "cosyvoice2.tiny.yaml"), "--output_dir", "out", *options]) == status
    (error,) = capsys.readouterr().err.splitlines()
    assert complaint in error
