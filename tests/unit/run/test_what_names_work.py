"""Which settings name which stage's work: the documentation of what a key is made of, tried with every setting.

Both tables were written down from what each stage does, not from its code. A setting that no pattern names is a
failure: whoever adds one decides here what it changes. Work is also done anew when that of a stage before it is
another; this is about what a stage's own settings say.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import pytest

from cosyflow.content import Digests
from cosyflow.run.config import FIELDS, default_of, from_parameters
from cosyflow.run.recipes import recipe_path
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from tests.unit.run.world import EVERY_SUBSET, World, make_pretrained, make_subset

RECIPE_FILES = ("cosyvoice.tiny", "cosyvoice2.tiny", "cosyvoice3.tiny")
PARTS = ("llm", "flow", "hifigan")
ALL = ""
"""In place of a part: whichever is trained."""

OF_A_RUN: dict[str, str] = {
    # where data lie, how far a run goes, how much at a time and how patiently: nothing
    "data_root": "register",  # the registry of a local run lies beside it
    "start_stage stop_stage max_reject_share num_processes device": "",
    "num_workers prefetch pin_memory experiment ui_url subsets_at_once resources": "",
    "launcher job num_nodes gpus_per_node": "",
    "train_engine deepspeed_config deepspeed_save_states strict": "",  # engines make equal weights
    # the data
    "data_url": "download prepare",  # a folder; the Kaldi files name its audio by its place
    "pretrained_dir": "speaker-embedding speech-token train",  # with other files in it
    "text_column speaker_column audio_column dev_share dev_seed": "download",
    "instruct check_audio min_level max_clipped max_dc max_cancelled": "prepare",
    "num_utts_per_parquet f0 reject_dir": "parquet",
    "train_subsets dev_subsets": "merge",
    "test_subsets": "",
    # the training
    "use_amp dpo checkpoint qwen_pretrain_path resume_from": "train",
    "ref_model": "",  # without dpo
    # the release
    "average_num val_best": "average",
    "registered_model mlflow_uri": "register",
}  # fmt: skip
"""Setting -> the stages whose work it names when an llm is trained. """
ONLY_OF_THE_LLM = ("qwen_pretrain_path",)
NAMED_BELOW = ("recipe", "overrides", "model")

OF_A_RECIPE: list[tuple[str, str, str]] = [
    # the first pattern that fits a setting and the trained part says which stages its work names
    ("corpus.*", ALL, ""),  # the run of these tests gives its own
    ("sample_rate", ALL, "parquet train"),
    ("token_frame_rate", "llm", "parquet"),
    ("token_frame_rate", ALL, "parquet train"),
    ("filter.*", ALL, "train"),
    ("use_spk_embedding", "hifigan", ""),
    ("use_spk_embedding", ALL, "train"),
    ("mel.hop_size", "llm", "parquet"),
    ("mel.hop_size", ALL, "parquet train"),
    ("mel.*", "llm", ""),
    ("mel.*", ALL, "train"),
    ("gate.*", ALL, ""),  # what a decision about a finished model goes by
    # the language model: what sampling draws is no part of its weights, nor of an exported file
    ("llm.sampling.*", ALL, ""),
    ("llm.*", "llm", "train export"),
    ("llm.*", ALL, ""),
    ("dpo.*", ALL, ""),
    # the flow, and how many frames it makes of a speech token, by which all data are cut
    ("flow.matching.inference_cfg_rate", ALL, ""),
    ("flow.matching.n_timesteps", ALL, ""),
    *[
        (setting, part, stages)
        for setting in ("flow.encoder.upsample_factor", "flow.token_mel_ratio",
                        "flow.input_frame_rate", "flow.sample_rate", "flow.hop_size")
        for part, stages in (("llm", "parquet"), ("flow", "parquet train export"), ("hifigan", "parquet train"))
    ],
    ("flow.*", "flow", "train export"),
    ("flow.*", ALL, ""),
    # the vocoder
    ("hifigan.*", "hifigan", "train export"),
    ("hifigan.*", ALL, ""),
    # how long a training goes on and what is kept of it is no part of its name
    *[
        (f"{section}.{name}", ALL, "")
        for section in ("train_conf", "train_conf_gan")
        for name in ("max_epoch", "log_interval", "save_per_step", "keep_last", "keep_best")
    ],
    ("train_conf.tokens_per_step", "flow", ""),
    ("train_conf.frames_per_step", "llm", ""),
    ("train_conf_gan.tokens_per_step", ALL, ""),
    ("train_conf.*", "hifigan", ""),
    ("train_conf.*", ALL, "train"),
    ("train_conf_gan.*", "hifigan", "train"),
    ("train_conf_gan.*", ALL, ""),
]  # fmt: skip


class Addresses(Digests):
    """A file's address stands in for the digest of its content."""

    def file(self, uri: str) -> str:
        return uri

    def tree(self, folder: str) -> dict[str, str]:
        return {"file": folder}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"))
    make_pretrained(world.folder / "other-pretrained")
    for subset in EVERY_SUBSET:
        make_subset(world.folder / "other-speech" / subset)
    (world.folder / "rejected" / "dev").mkdir(parents=True)
    (world.folder / "rejected" / "dev" / "utt2speech_token.pt").touch()
    return world


def settings_of(record: Record) -> dict[str, Any]:
    return {name: stage.settings(record, "dev", Addresses()) for name, stage in STAGES.items()}


def changed_stages(record: Record, other: Record) -> str:
    return differing_stages(settings_of(record), other)


def differing_stages(before: dict[str, Any], other: Record) -> str:
    """The stages whose work has another name, in their order."""
    after = settings_of(other)
    return " ".join(name for name in STAGES if before[name] != after[name])


def leaves(section: Any, place: str = "") -> Iterator[str]:
    """The dotted names of all settings of a recipe; a list is one setting."""
    for entry in fields(section):
        value = getattr(section, entry.name)
        name = f"{place}{entry.name}"
        yield from leaves(value, f"{name}.") if is_dataclass(value) else [name]


def another(value: Any) -> Any:
    """Another value of the same kind. It need not fit the rest: only what names the work is looked at."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return 2 * value + 1
    if isinstance(value, tuple):
        return (*value, value[-1] if value else "more")
    return "another" if value is None or isinstance(value, str) else [value]


def with_another(record: Record, setting: str) -> Record:
    """A record whose recipe differs in one setting."""
    recipe = copy.deepcopy(record.recipe)
    *sections, name = setting.split(".")
    owner: Any = recipe
    for section in sections:
        owner = getattr(owner, section)
    object.__setattr__(owner, name, another(getattr(owner, name)))
    return replace(record, recipe=recipe)


def declared(table: list[tuple[str, str, str]], setting: str, part: str) -> str:
    for pattern, of_part, stages in table:
        if fnmatchcase(setting, pattern) and of_part in (ALL, part):
            return stages
    return "no pattern names this setting: decide what it changes"


def differing(found: dict[str, str], table: dict[str, str]) -> dict[str, dict[str, str | None]]:
    both = {name: {"found": found.get(name), "declared": table.get(name)} for name in {**found, **table}}
    return {name: each for name, each in both.items() if each["found"] != each["declared"]}


@pytest.mark.medium
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("recipe", RECIPE_FILES)
def test_every_setting_of_a_recipe_names_the_work_that_it_changes_and_no_other(
    world: World, recipe: str, part: str
) -> None:
    record = world.record(recipe=recipe, model=part)
    settings = [setting for setting in leaves(record.recipe) if setting != "version"]
    before = settings_of(record)
    found = {setting: differing_stages(before, with_another(record, setting)) for setting in settings}
    assert differing(found, {setting: declared(OF_A_RECIPE, setting, part) for setting in settings}) == {}


def test_no_pattern_is_left_over(world: World) -> None:
    """A pattern that fits nothing is a setting that is gone, or one that stands behind another pattern."""
    used = set()
    for recipe in RECIPE_FILES:
        for setting in leaves(world.record(recipe=recipe).recipe):
            for part in PARTS:
                fitting = [entry for entry in OF_A_RECIPE if fnmatchcase(setting, entry[0]) and entry[1] in (ALL, part)]
                used.update(fitting[:1])
    assert [entry for entry in OF_A_RECIPE if entry not in used] == []


@pytest.mark.parametrize("setting", ["dpo.beta", "dpo.label_smoothing", "dpo.ipo", "dpo.logprob", "dpo.sft_weight"])
def test_how_preferences_are_learnt_names_a_training_that_learns_them(world: World, setting: str) -> None:
    record = world.record(dpo=True)
    assert changed_stages(record, with_another(record, setting)) == "train"


def other_values(world: World) -> dict[str, Any]:
    """Another valid value for every setting of a run that has no obvious one."""
    elsewhere = str(world.folder / "elsewhere")
    return {
        "data_root": f"{elsewhere}/data",
        "data_url": str(world.folder / "other-speech"),
        "pretrained_dir": str(world.folder / "other-pretrained"),
        "reject_dir": str(world.folder / "rejected"),
        "checkpoint": f"{world.folder}/other-pretrained/hift.pt",
        "qwen_pretrain_path": f"{world.folder}/other-pretrained/CosyVoice-BlankEN",
        "resume_from": f"{world.pretrained}/hift.pt",
        "ref_model": f"{world.pretrained}/flow.pt",
        "train_subsets": ["train-a"],
        "dev_subsets": ["dev", "dev-b"],
        "test_subsets": ["test"],
        "max_reject_share": 0.5,
        "start_stage": 0,
        "stop_stage": 6,
        "mlflow_uri": "http://registry",
        "deepspeed_config": "conf/other.json",
        "resources": {"train": {"memory_limit": "8Gi"}},
        "f0": "fast",
        "max_clipped": 0.5,
        "max_dc": 0.5,
        "dev_share": 0.5,
    }


def other_value(world: World, setting: str, part: str) -> Any:
    entry = FIELDS[setting]
    choices = entry.metadata["settings"].get("choices")
    if setting == "f0" and part == "hifigan":
        return "none"
    if setting in (values := other_values(world)):
        return values[setting]
    if choices:
        return next(choice for choice in choices if choice != default_of(setting))
    return another(default_of(setting))


@pytest.mark.parametrize("part", PARTS)
def test_every_setting_of_a_run_names_the_work_that_it_changes_and_no_other(world: World, part: str) -> None:
    record = world.record(model=part)
    table = {name: stages for names, stages in OF_A_RUN.items() for name in names.split()}
    table |= {name: "" for name in ONLY_OF_THE_LLM if part != "llm"}
    others = {setting: other_value(world, setting, part) for setting in FIELDS if setting not in NAMED_BELOW}
    settings, before = {**world.settings, "model": part}, settings_of(record)
    runs = {setting: from_parameters({**settings, setting: value}) for setting, value in others.items()}
    found = {setting: differing_stages(before, replace(record, run=run)) for setting, run in runs.items()}
    assert differing(found, table) == {}


@pytest.mark.parametrize(
    ("part", "other", "stages"),
    [
        ("llm", "flow", "train export register"),
        ("llm", "hifigan", "parquet train export register"),  # auto: it alone reads f0
    ],
)
def test_the_part_names_all_that_is_made_of_it(world: World, part: str, other: str, stages: str) -> None:
    assert changed_stages(world.record(model=part), world.record(model=other)) == stages


def test_a_recipe_is_known_by_what_it_says(world: World) -> None:
    """The same settings in a file of another name: only what is called by the recipe's name has another."""
    renamed = world.folder / "mine.yaml"
    renamed.write_text(recipe_path("cosyvoice2.tiny").read_text())
    assert changed_stages(world.record(), world.record(recipe=str(renamed))) == "register"


def test_an_override_is_known_by_what_it_does(world: World) -> None:
    assert changed_stages(world.record(), world.record(overrides=["train_conf.optim_conf.lr=0.002"])) == ""
    assert changed_stages(world.record(), world.record(overrides=["train_conf.optim_conf.lr=0.5"])) == "train"
    assert changed_stages(world.record(), world.record(overrides=["train_conf.max_epoch=3"])) == ""


def test_the_reference_of_preferences_names_the_training(world: World) -> None:
    flow, hift = (f"{world.pretrained}/{name}" for name in ("flow.pt", "hift.pt"))
    assert changed_stages(world.record(dpo=True, ref_model=flow), world.record(dpo=True, ref_model=hift)) == "train"


def test_the_order_of_subsets_names_the_lists_alone(world: World) -> None:
    assert changed_stages(world.record(), world.record(train_subsets=["train-b", "train-a"])) == "merge"


def test_an_archive_is_known_by_its_address(world: World) -> None:
    """Its content is not there before the work is done; the folder of a corpus is known by its content."""
    here = world.record(data_url="http://one/60")
    assert changed_stages(here, world.record(data_url="http://two/60")) == "download"
    assert changed_stages(here, replace(here, run=replace(here.run, data_root="/elsewhere"))) == "register"
