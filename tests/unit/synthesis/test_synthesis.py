"""From text to sound with tiny random models: noise, but of the right length and the same for the same seed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cosyflow.checkpoint.official import save_official
from cosyflow.cli import main
from cosyflow.config.load import load_config
from cosyflow.config.official.write import write_official
from cosyflow.models.flow.model import build_flow
from cosyflow.models.vocoder.gan import HiFiGan
from cosyflow.models.vocoder.hift import HiFTGenerator
from cosyflow.release.model_dir import assemble_model_dir
from cosyflow.standins.models import make_stand_ins
from cosyflow.synthesis import Synthesizer, synthesize
from cosyflow.synthesis.prompt import PromptReader
from cosyflow.synthesis.request import Request
from cosyflow.training.language_model import build_language_model

CONF = Path(__file__).resolve().parents[3] / "conf"
VERSIONS = ("cosyvoice", "cosyvoice2", "cosyvoice3")
SMALLER = ["flow.matching.n_timesteps=2", "hifigan.generator.base_channels=16", "llm.sampling.top_k=3"]
FIXED_OFFICIALLY = [
    "flow.matching.n_timesteps=2",
    "flow.encoder.num_up_blocks=1",
    "flow.encoder.pre_lookahead_channels=64",
]
"""Sizes of the tiny recipe that the official code has as constants, and so no settings for."""
TEXT, PROMPT_TEXT = "A lamp.", "The harbour was quiet."


@pytest.fixture(scope="session")
def model_dirs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A complete model directory of a version: stand-ins, and tiny models with random weights."""
    folders: dict[str, Path] = {}

    def folder_of(version: str) -> Path:
        if version not in folders:
            folder = folders[version] = tmp_path_factory.mktemp(version)
            make_stand_ins(folder)
            recipe = load_config(CONF / f"{version}.tiny.yaml", SMALLER)
            torch.manual_seed(0)
            save_official(build_language_model(recipe.llm), folder / "llm.pt")
            save_official(build_flow(recipe.flow), folder / "flow.pt")
            if version == "cosyvoice":  # as training leaves it; the others as it is released
                save_official(HiFiGan(recipe.hifigan), folder / "hifigan.pt")
            else:
                save_official(HiFTGenerator(recipe.hifigan.generator), folder / "hift.pt")
        return folders[version]

    return folder_of


def record(path: Path, seconds: float, sample_rate: int = 16000, channels: int = 1) -> str:
    """A rising tone with overtones and a little noise."""
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    tone = sum(np.sin(2 * np.pi * (120 + 40 * time) * k * time) / k for k in (1, 2, 3))
    noise = np.random.default_rng(0).normal(size=(len(time), channels))
    soundfile.write(path, 0.2 * tone[:, None] + 0.01 * noise, sample_rate)
    return str(path)


@pytest.fixture
def prompt_wav(tmp_path: Path) -> str:
    return record(tmp_path / "prompt.wav", 1.3)


@pytest.mark.medium
@pytest.mark.parametrize("version", VERSIONS)
def test_as_many_samples_as_the_tokens_stand_for(
    model_dirs: Callable[[str], Path], prompt_wav: str, version: str
) -> None:
    recipe = load_config(CONF / f"{version}.tiny.yaml", SMALLER)
    request = Request(TEXT, prompt_wav, PROMPT_TEXT)
    prompt = PromptReader.load(str(model_dirs(version)), recipe).read(request)
    synthesizer = Synthesizer.load(str(model_dirs(version)), recipe)
    tokens = list(synthesizer.speech_tokens(request, prompt, seed=3))
    text_tokens = len(synthesizer.tokenizer.encode(TEXT))
    assert 2 * text_tokens <= len(tokens) <= 20 * text_tokens
    frames = recipe.flow.mel_frames(len(tokens))
    assert synthesizer.mel(tokens, prompt, seed=3).shape == (1, 80, frames)
    waveform = synthesizer.speak(request, prompt, seed=3)
    assert waveform.shape == (frames * recipe.mel.hop_size,)
    assert waveform.abs().max() > 0
    assert torch.isfinite(waveform).all()


@pytest.mark.medium
@pytest.mark.parametrize("version", VERSIONS)
def test_equal_seeds_give_equal_samples(model_dirs: Callable[[str], Path], prompt_wav: str, version: str) -> None:
    recipe = load_config(CONF / f"{version}.tiny.yaml", SMALLER)
    state = torch.get_rng_state()

    def speak(seed: int) -> torch.Tensor:
        return synthesize(str(model_dirs(version)), recipe, TEXT, prompt_wav, PROMPT_TEXT, seed)[0]

    first, again, other = speak(1), speak(1), speak(2)
    assert torch.equal(first, again)
    assert not (first.shape == other.shape and torch.equal(first, other))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("version", "frames"), [("cosyvoice", 111), ("cosyvoice2", 64), ("cosyvoice3", 64)])
def test_prompt_tokens_and_frames_fit_each_other(
    model_dirs: Callable[[str], Path], prompt_wav: str, version: str, frames: int
) -> None:
    """1.3 s are 65 tokens at 50 Hz and 32 at 25 Hz; the mel is made at the recipe's own rate."""
    recipe = load_config(CONF / f"{version}.tiny.yaml", SMALLER)
    prompt = PromptReader.load(str(model_dirs(version)), recipe).read(Request(TEXT, prompt_wav, PROMPT_TEXT))
    assert len(prompt.tokens) == (65 if version == "cosyvoice" else 32)
    assert prompt.mel.shape == (1, frames, 80)
    assert prompt.embedding.shape == (1, 192)


@pytest.mark.medium
def test_cosyvoice3_is_told_what_it_is(model_dirs: Callable[[str], Path], prompt_wav: str) -> None:
    """Its training has an instruct before each text; a prompt's text that brings one is left as it is."""
    recipe = load_config(CONF / "cosyvoice3.tiny.yaml", SMALLER)
    prompt = PromptReader.load(str(model_dirs("cosyvoice3")), recipe).read(Request(TEXT, prompt_wav, PROMPT_TEXT))
    synthesizer = Synthesizer.load(str(model_dirs("cosyvoice3")), recipe)

    def tokens(prompt_text: str) -> list[int]:
        return list(synthesizer.speech_tokens(Request(TEXT, prompt_wav, prompt_text), prompt))

    assert tokens(PROMPT_TEXT) == tokens(f"You are a helpful assistant.<|endofprompt|>{PROMPT_TEXT}")
    assert tokens(PROMPT_TEXT) != tokens(f"Speak slowly.<|endofprompt|>{PROMPT_TEXT}")


@pytest.mark.medium
def test_a_model_directory_of_trained_parts_speaks_as_they_do(
    model_dirs: Callable[[str], Path], prompt_wav: str, tmp_path: Path
) -> None:
    trained, recipe = model_dirs("cosyvoice"), load_config(CONF / "cosyvoice.tiny.yaml", SMALLER)
    assemble_model_dir(recipe, {"hifigan": str(trained / "hifigan.pt")}, str(trained), str(tmp_path / "models"))
    request = (recipe, TEXT, prompt_wav, PROMPT_TEXT)
    found, expected = synthesize(str(tmp_path / "models"), *request), synthesize(str(trained), *request)
    assert torch.equal(found[0], expected[0])


def run(model_dir: Path, prompt_wav: str, output: Path, *more: str, text: str = TEXT) -> int:
    settings = [word for setting in SMALLER for word in ("--set", setting)]
    models = ["--model_dir", str(model_dir), "--config", str(CONF / "cosyvoice2.tiny.yaml"), *settings]
    request = ["--text", text, "--prompt_wav", prompt_wav, "--prompt_text", PROMPT_TEXT]
    return main(["synthesize", *models, *request, "-o", str(output), *more])


@pytest.mark.medium
def test_the_command_writes_a_wav(model_dirs: Callable[[str], Path], prompt_wav: str, tmp_path: Path) -> None:
    assert run(model_dirs("cosyvoice2"), prompt_wav, tmp_path / "out.wav", "--seed", "1") == 0
    samples, sample_rate = soundfile.read(tmp_path / "out.wav")
    recipe = load_config(CONF / "cosyvoice2.tiny.yaml", SMALLER)
    expected, _ = synthesize(str(model_dirs("cosyvoice2")), recipe, TEXT, prompt_wav, PROMPT_TEXT, seed=1)
    assert sample_rate == 24000
    np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-4)  # 16 bits


@pytest.mark.medium
def test_a_model_directory_brings_the_sizes_of_its_models(
    model_dirs: Callable[[str], Path], prompt_wav: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those that are released do; one without them needs a recipe. What such files can't say is set."""
    models, outputs = tmp_path / "models", [tmp_path / "a.wav", tmp_path / "b.wav"]
    recipe = load_config(CONF / "cosyvoice2.tiny.yaml", SMALLER)
    shutil.copytree(model_dirs("cosyvoice2"), models)
    words = ["synthesize", "--model_dir", str(models), "--text", TEXT, "--prompt_wav", prompt_wav]
    words += [word for setting in FIXED_OFFICIALLY for word in ("--set", setting)]
    words += ["--prompt_text", PROMPT_TEXT, "--output"]
    assert main([*words, str(outputs[0])]) == 2
    assert "has no official settings; name the recipe of the model" in capsys.readouterr().err
    (models / "cosyvoice2.yaml").write_text(write_official(recipe))
    assert main([*words, str(outputs[0])]) == 0
    assert run(models, prompt_wav, outputs[1]) == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


@pytest.mark.parametrize(
    ("recording", "text", "complaint"),
    [
        (lambda folder: str(folder / "none.wav"), TEXT, "none.wav: cannot be opened"),
        (lambda folder: record(folder / "long.wav", 30.5), TEXT, "long.wav: 30.50 s, a prompt has at most 30 s"),
        (
            lambda folder: record(folder / "low.wav", 1.0, 8000),
            TEXT,
            "low.wav: 8000 Hz, a prompt has at least 16000 Hz",
        ),
        (lambda folder: record(folder / "short.wav", 0.03), TEXT, "short.wav: 3 frames of 10 ms give no speech token"),
        (lambda folder: record(folder / "good.wav", 1.0), "  ", "text: it is empty"),
        (lambda folder: str(CONF / "cosyvoice2.yaml"), TEXT, "cosyvoice2.yaml: not an audio file"),
    ],
    ids=["none", "long", "low rate", "short", "no text", "no audio"],
)
def test_bad_input_is_named_in_one_line(
    model_dirs: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recording: Callable[[Path], str],
    text: str,
    complaint: str,
) -> None:
    output = tmp_path / "out.wav"
    output.write_bytes(b"earlier work")
    assert run(model_dirs("cosyvoice2"), recording(tmp_path), output, text=text) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert complaint in error
    assert output.read_bytes() == b"earlier work"


@pytest.mark.parametrize("name", ["llm.pt", "flow.pt", "hift.pt", "campplus.onnx", "speech_tokenizer_v2.onnx"])
def test_a_missing_model_is_named(
    model_dirs: Callable[[str], Path], prompt_wav: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for path in model_dirs("cosyvoice2").iterdir():
        if path.name != name:
            (folder / path.name).symlink_to(path)
    assert run(folder, prompt_wav, tmp_path / "out.wav") == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert f"{name}: no such file" in error


def test_models_of_another_recipe_are_named(
    model_dirs: Callable[[str], Path], prompt_wav: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model_dirs("cosyvoice2"), prompt_wav, tmp_path / "out.wav", "--set", "llm.speech_token_size=100") == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert "the language model has 100; is the speech tokenizer that of its training?" in error
