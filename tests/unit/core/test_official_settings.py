"""The official settings files: read as data, converted into recipes and written from them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.cli.main import main
from cosyflow.config.load import RecipeError, load_config
from cosyflow.config.official.hyperyaml import Call, look_up, read, resolved
from cosyflow.config.official.read import read_official
from cosyflow.config.official.write import write_official
from cosyflow.errors import CosyFlowError

CONF = Path(__file__).resolve().parents[3] / "conf"
FAMILIES = ("cosyvoice", "cosyvoice2", "cosyvoice3")
ORDER = {
    "shuffle.shuffle_size = 1000: CosyFlow orders whole epochs, by a seed",
    "sort.sort_size = 500: CosyFlow orders whole epochs, by a seed",
    "train_conf.accum_grad = 8: is of every GPU there, of the whole job here (train_conf_gan too); multiply it",
}
"""What is told of every official file."""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_released_recipe_comes_back_whole(family: str) -> None:
    recipe = load_config(CONF / f"{family}.yaml")
    converted, notes = read_official(write_official(recipe), "official.yaml")
    assert converted == recipe
    assert set(notes) == ORDER


@pytest.mark.parametrize("family", FAMILIES)
def test_what_speaks_is_enough_for_the_sizes(family: str) -> None:
    """A model directory's file has no settings of a training; the family's own stand in for them."""
    recipe = load_config(CONF / f"{family}.yaml", ["llm.lsm_weight=0.1", "hifigan.generator.base_channels=256"])
    converted, notes = read_official(write_official(recipe, training=False), "official.yaml")
    assert (converted.llm, converted.flow, converted.hifigan.generator) == (
        recipe.llm,
        recipe.flow,
        recipe.hifigan.generator,
    )
    assert notes == [notes[0]]
    assert notes[0].startswith("not in the file, so that CosyFlow's own values stand: ")
    assert {"filter", "train_conf", "train_conf_gan"} <= set(notes[0].replace(",", "").split())


CHANGES = {
    "use_spk_embedding": st.booleans(),
    "filter.max_length": st.integers(3000, 9000),
    "filter.min_output_input_ratio": st.floats(0.0001, 0.01),
    "mel.fmax": st.sampled_from([4000.0, 7600.5]),
    "llm.speech_token_size": st.integers(100, 4000),
    "llm.sampling.top_k": st.integers(1, 100),
    "flow.spk_embed_dim": st.integers(64, 512),
    "flow.matching.inference_cfg_rate": st.floats(0, 2),
    "hifigan.loss.tpr_loss_tau": st.floats(0.01, 1),
    "train_conf.optim": st.sampled_from(["adam", "adamw"]),
    "train_conf.optim_conf.lr": st.floats(1e-7, 1e-2),
    "train_conf.optim_conf.weight_decay": st.floats(0, 0.1),
    "train_conf.scheduler": st.sampled_from(["warmuplr", "constantlr"]),
    "train_conf.scheduler_conf.warmup_steps": st.integers(1, 30000),
    "train_conf.max_epoch": st.integers(1, 1000),
    "train_conf.accum_grad": st.integers(1, 16),
    "train_conf.grad_clip": st.floats(0.1, 100),
    "train_conf_gan.optim_conf_d.lr": st.floats(1e-7, 1e-2),
    "train_conf_gan.window_frames": st.sampled_from([40, 80]),
}


@pytest.mark.medium
@settings(max_examples=50)
@given(data=st.data(), family=st.sampled_from(FAMILIES), keys=st.sets(st.sampled_from(sorted(CHANGES)), max_size=6))
def test_changed_values_come_through(data: st.DataObject, family: str, keys: set[str]) -> None:
    changes = [f"{key}={data.draw(CHANGES[key], label=key)}" for key in sorted(keys)]
    recipe = load_config(CONF / f"{family}.yaml", changes)
    assert read_official(write_official(recipe), "official.yaml")[0] == recipe


def official(family: str = "cosyvoice2", **replaced: str) -> str:
    """The text of a released file, with some of its lines replaced: the first that begins with the key."""
    lines = write_official(load_config(CONF / f"{family}.yaml")).splitlines()
    for key, value in replaced.items():
        place = next(number for number, line in enumerate(lines) if line.strip().startswith(f"{key}:"))
        indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
        lines[place] = f"{indent}{key}: {value}"
    return "\n".join(lines)


def test_references_and_formulas_are_followed() -> None:
    text = official(sample_rate="24000\nwidth: 40\nfew: !ref <width> // 20", max_length="!ref <width> * (<few> + 100)")
    recipe, notes = read_official(text, "official.yaml")
    assert recipe.filter.max_length == 40 * 102
    assert set(notes) == ORDER, "what is referred to is no setting of its own"


def test_tags_are_data() -> None:
    text = "a: !new:os.system [echo]\nb: !ref <a>\nc: !name:f\n  x: 1e-5\n  y: !copy <c.x>\n"
    text += "d: !ref <c.x> / 2\ne: !ref <n>/sub\nn: top"
    tree = read(text, "a.yaml")
    assert look_up(tree, "b") == Call("new", "os.system", ["echo"])
    assert look_up(tree, "c.y") == 1e-5
    assert look_up(tree, "d") == 0.5e-5
    assert resolved(tree, tree["e"]) == "top/sub"


@pytest.mark.parametrize(
    "line",
    [
        "__set_seed1: !apply:os.system ['touch harmed']",
        "__set_seed1: !apply:subprocess.run [[touch, harmed]]",
        "x: !new:os.system\n    command: touch harmed",
        "x: !ref __import__('os').system('touch harmed')",
    ],
)
def test_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    text = official() + f"\n{line}\n"
    with contextlib.suppress(CosyFlowError):
        read_official(text, "official.yaml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"length_normalized_loss": "false"}, "llm.length_normalized_loss = False: in CosyFlow it is always True"),
        ({"act_fn": "relu"}, "flow.decoder.estimator.act_fn = 'relu': in CosyFlow it is always 'gelu'"),
        ({"llm_input_size": "1024", "llm_output_size": "1024"}, "llm_input_size = 1024: the other sizes of this Qwen2"),
        ({"max_frames_in_batch": "4000"}, "the llm's batch is train_conf.tokens_per_step, which stays as it is"),
        ({"save_per_step": "-1\n  ema: 0.999"}, "train_conf.ema = 0.999: CosyFlow has no such setting"),
    ],
)
def test_what_cannot_be_carried_over_is_told(changes: dict[str, str], said: str) -> None:
    notes = read_official(official(**changes), "official.yaml")[1]
    assert any(said in note for note in notes), notes


def test_the_batch_of_flow_and_vocoder_comes_through() -> None:
    recipe, _ = read_official(official(max_frames_in_batch="4000"), "official.yaml")
    assert (recipe.train_conf.frames_per_step, recipe.train_conf_gan.frames_per_step) == (4000, 4000)


MANY = "a: &a [x]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}, *{before}, *{before}]\n"
    for before, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
"""Four million values in a few lines."""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2", "a.yaml:1: not HyperPyYAML"),
        ("- 1", "not a mapping of keys to values"),
        ("a: !include:other.yaml", "a.yaml:1: .*!include:other.yaml is not read; put in what it stands"),
        ("a: !!python/object/apply:os.system [echo]", "a.yaml:1: not HyperPyYAML: could not determine a constructor"),
        ("llm: !new:my.Model\n", "a.yaml: its llm is of none of cosyvoice, cosyvoice2, cosyvoice3"),
        (official(sample_rate="!ref <rate>"), r"!ref <rate>: rate is not in the file"),
        (official(sample_rate="!ref <sample_rate>"), "!ref <sample_rate>: refers to itself"),
        (official(sample_rate="!ref 2 ** 2 * <token_frame_rate>"), "not a formula of numbers"),
        (official(flow="!new:cosyvoice.flow.flow.CausalMaskedDiffWithDiT"), "flow is .*WithDiT; with this llm"),
        (official(vocab_size="[1]"), "a.yaml: flow.vocab_size: Input should be a valid integer"),
        (official(input_frame_rate="50"), "is 50 and token_frame_rate is 25; both are token_frame_rate"),
        (official(sampling="!name:my.sampling"), "llm.sampling is my.sampling; with this llm the official code has"),
        (official(truncate_length="long"), "truncate.truncate_length is 'long', which it cannot be"),
        (MANY, "more than 1000000 values"),
        ("a: " + "[" * 900, "a.yaml"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_named(text: str, said: str) -> None:
    with pytest.raises(CosyFlowError, match=said):
        read_official(text, "a.yaml")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_command_writes_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str) -> None:
    (tmp_path / "official.yaml").write_text(official(family, max_epoch="7"))
    assert main(["convert-recipe", str(tmp_path / "official.yaml")]) == 0
    printed = capsys.readouterr()
    (tmp_path / "recipe.yaml").write_text(printed.out)
    assert load_config(tmp_path / "recipe.yaml") == load_config(CONF / f"{family}.yaml", ["train_conf.max_epoch=7"])
    assert set(printed.err.splitlines()) == ORDER


def test_the_command_refuses_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert-recipe", str(CONF / "cosyvoice2.yaml")]) == 2
    assert "has no tags of HyperPyYAML; name an official settings file" in capsys.readouterr().err


@pytest.mark.parametrize("family", FAMILIES)
def test_official_settings_as_a_recipe_are_refused_with_the_way(tmp_path: Path, family: str) -> None:
    path = tmp_path / "official.yaml"
    path.write_text(official(family))
    with pytest.raises(RecipeError, match=rf"take --config {family} if .*cosyflow convert-recipe {path} > RECIPE.yaml"):
        load_config(path)
