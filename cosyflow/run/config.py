"""The description of a run: every setting once, with its default, its meaning, and what values it may have.

The pipeline's parameters, the options of `python -m pipelines`, docs/parameters.md and the files of `--run` are all
made of the fields of `Run`.
"""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml

from cosyflow import storage
from cosyflow.config import yaml_text
from cosyflow.config.options import STAGE_NAMES, LaunchOptions, TrainingOptions, option
from cosyflow.credentials import withdrawn_from
from cosyflow.errors import CosyFlowError, Problem, RefusalError
from cosyflow.extract.device import DEVICES
from cosyflow.families import DEFAULT_RECIPE
from cosyflow.places import tidy
from cosyflow.run.speech_settings import Speech, impossible

AUTO = "auto"
DECLARED = "declared"
"""Of a run's file: no setting, but what the run was declared as (`cosyflow.run.declared`)."""
F0_CHOICES = ("auto", "none", "harvest", "fast")
FIRST_STAGE, LAST_STAGE = -1, 7
RESOURCE_STAGES = ("plan", *STAGE_NAMES, "report")
RESOURCE_KINDS = (
    "cpu_request",
    "cpu_limit",
    "memory_request",
    "memory_limit",
    "accelerator",
    "accelerator_limit",
)


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on, and how it is prepared."""

    data_root: str = option(
        "Folder or s3:// prefix below which all stages keep their data. Every task must see it.", place=True
    )
    recipe: str = option(
        "Name of a file of conf/ without .yaml (cosyvoice2, cosyvoice2.tiny), or the path of a recipe.", DEFAULT_RECIPE
    )
    overrides: tuple[str, ...] = option(
        'Settings that replace those of the recipe, e.g. ["train_conf.max_epoch=20"].', ()
    )
    data_url: str = option(
        "Base URL of the subsets' archives and their checksums, or a folder that holds the subsets as LibriTTS trees or"
        " in Kaldi form. Empty: the recipe's.",
        "",
        place=True,
    )
    pretrained_dir: str = option(
        "Folder or s3:// prefix of the pretrained models (campplus.onnx, speech_tokenizer_v2.onnx, ...).",
        "pretrained_models/CosyVoice2-0.5B",
        place=True,
    )
    train_subsets: tuple[str, ...] = option("Subsets to train on. Empty: the recipe's.", ())
    dev_subsets: tuple[str, ...] = option("Subsets to validate on. Empty: the recipe's.", ())
    test_subsets: tuple[str, ...] = option(
        'Subsets that are prepared and not trained on. Empty: the recipe\'s; ["none"]: none.', ()
    )
    start_stage: int = option(
        "First stage that works. -1 download, 0 prepare, 1 speaker-embedding, 2 speech-token, 3 parquet, 5 merge and"
        " train, 6 average, 7 export and register.",
        FIRST_STAGE,
    )
    stop_stage: int = option(
        "Last stage that works. Stages before the first are reused from an earlier run with the same settings.",
        LAST_STAGE,
    )
    instruct: str = option("Instruction that is written for every utterance. Empty: none.", "")
    max_reject_share: float = option("A stage fails when it must reject more than this share of its utterances.", 0.05)
    num_processes: int = option("Processes of the extraction and parquet stages. 0: one for each core.", 0)
    device: str = option(
        "Where the extraction stages compute. cuda: they fail, with the reason, where it cannot be used. auto: CUDA"
        " where there is a device.",
        AUTO,
        choices=DEVICES,
    )
    num_utts_per_parquet: int = option("Utterances of one parquet shard.", 1000)
    f0: str = option(
        "How f0 is measured. auto: harvest where hifigan is trained, else none. fast: DIO, in a twentieth of the time.",
        "auto",
        choices=F0_CHOICES,
    )
    reject_dir: str = option(
        "Folder or s3:// prefix with SUBSET/utt2speech_token.pt: tokens of worse speech for the same texts, which dpo"
        " teaches to avoid. Empty: none. A subset without such a file has no rejected speech.",
        "",
        place=True,
    )


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a training starts from."""

    checkpoint: str = option(
        "Weights to start from. auto: the pretrained directory's where there are any; empty: none.",
        AUTO,
        place=True,
    )
    qwen_pretrain_path: str = option(
        "Qwen2 folder that the LLM starts from. auto: the pretrained directory's CosyVoice-BlankEN.",
        AUTO,
        place=True,
    )


@dataclass(frozen=True, kw_only=True)
class Release:
    """What is made of the checkpoints, and where a run is looked at."""

    average_num: int = option("Checkpoints that are averaged.", 5)
    val_best: bool = option("Average those with the lowest validation loss, not the newest.", True)
    registered_model: str = option("Name in the model registry. Empty: recipe and model, e.g. cosyvoice2-llm.", "")
    ui_url: str = option(
        "Address of the Kubeflow Pipelines UI, for links to the run. Empty: KFP_UI_URL of the environment.", ""
    )


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What the graph is compiled with: fields of a run's file, and no parameters of the compiled pipeline."""

    subsets_at_once: int = option("Subsets that a server works on at the same time.", 2)
    resources: dict[str, dict[str, str]] = field(
        default_factory=dict,
        metadata={
            "meaning": "What a stage's pod asks for: STAGE: {cpu_request, cpu_limit, memory_request, memory_limit,"
            " accelerator, accelerator_limit}, in Kubernetes' units.",
            "settings": {},
        },
    )


@dataclass(frozen=True, kw_only=True)
class Run(Graph, Release, LaunchOptions, Start, TrainingOptions, Speech, Data):
    """A whole run. Its values are checked one by one here; whether they fit each other, in `cosyflow.run.plan`."""

    def __post_init__(self) -> None:
        problems = list(_impossible(self))
        if problems:
            raise RefusalError(problems)

    def to_yaml(self) -> str:
        """The whole run; `Run.read` gives it back."""
        return yaml.safe_dump(_plain(asdict(self)), sort_keys=False, allow_unicode=True, width=120)

    def to_json(self) -> dict[str, Any]:
        """The run as plain JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values


FIELDS: Mapping[str, Field[Any]] = types.MappingProxyType({entry.name: entry for entry in fields(Run)})
"""Every setting of a run, in the order in which people are shown them."""

_HINTS = get_type_hints(Run)
_GRAPH = frozenset(entry.name for entry in fields(Graph))
PLACES = (*(name for name, entry in FIELDS.items() if entry.metadata.get("place")), "recipe", "job")
"""Settings that may be paths."""
PARAMETERS = tuple(name for name in FIELDS if name not in _GRAPH)
"""The settings that are parameters of the pipeline."""


def default_of(name: str) -> Any:
    """A setting's default; "" for the data root, which has none."""
    entry = FIELDS[name]
    if entry.default is not MISSING:
        return entry.default
    return entry.default_factory() if entry.default_factory is not MISSING else ""


def kind_of(name: str) -> type:
    """A setting's type: str, int, float, bool, list (of texts) or dict."""
    hint = _HINTS[name]
    origin = get_origin(hint)
    return list if origin is tuple else origin or hint


def from_parameters(parameters: Mapping[str, Any]) -> Run:
    """The run of flat settings, as a command line or Kubeflow gives them; what is absent has its default.

    Raises:
        RefusalError: settings are unknown, of another type, or impossible.
    """
    run, problems = repaired(parameters)
    if problems:
        raise RefusalError(problems)
    return run


def repaired(parameters: Mapping[str, Any]) -> tuple[Run, list[Problem]]:
    """As `from_parameters`, with defaults in place of wrong values, so that the rest can be looked at too."""
    problems: list[Problem] = []
    values: dict[str, Any] = {"data_root": ""}
    for name, value in parameters.items():
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=2)
            hint = f"did you mean {', '.join(near)}?" if near else "docs/parameters.md has them all"
            problems.append(Problem(name, f"no such setting; {hint}"))
            continue
        try:
            values[name] = _typed(name, withdrawn_from({name: value})[name])
        except RefusalError as refusal:
            problems += refusal.problems
            continue
        except ValueError as error:
            problems.append(Problem(name, f"{error}; give one"))
            continue
        if name in PLACES:
            try:
                values[name] = _tidy(values[name])
            except ValueError as error:
                problems.append(Problem(name, str(error)))
                del values[name]
                values.setdefault("data_root", "")
    if not values["data_root"] and "data_root" not in {problem.setting for problem in problems}:
        problems.append(Problem("data_root", "is missing; name a folder or an s3:// prefix for the run's data"))
    while True:
        try:
            return Run(**values), problems
        except RefusalError as refusal:
            problems += refusal.problems
            for problem in refusal.problems:
                values.pop(problem.setting, None)  # of which there may be more than one problem
                values.setdefault("data_root", "")


def read_file(text: str, source: str = "run") -> dict[str, Any]:
    """The settings of a run's file (YAML, of one level).

    Raises:
        RefusalError: it is not YAML, or not a mapping of settings.
    """
    try:
        values = yaml_text.load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = Problem("run", f"{source}{line}: not YAML ({getattr(error, 'problem', error)}); correct the file")
        raise RefusalError([problem]) from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise RefusalError([Problem("run", f"{source}: not a mapping of settings; write SETTING: VALUE in each line")])
    return values


def read_run(text_or_uri: str) -> dict[str, Any]:
    """The settings of a run that is given as YAML text, as a file, or as s3://. Empty: none."""
    return {name: value for name, value in read_whole(text_or_uri).items() if name != DECLARED}


def read_whole(text_or_uri: str) -> dict[str, Any]:
    """The settings of a run, and what it was declared as (`cosyflow.run.declared`)."""
    given = text_or_uri.strip()
    if not given:
        return {}
    if "\n" in given or ": " in given or given.startswith("{"):
        return read_file(given)
    try:
        return read_file(storage.read_text(given), given)
    except RefusalError:
        raise
    except CosyFlowError as error:
        raise RefusalError([Problem("run", f"{error}; give a file of settings, or their YAML")]) from error


def changed(values: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Settings with `KEY=VALUE` applied: of the run where KEY is one of it, else of its recipe (`KEY.KEY=VALUE`).

    Raises:
        RefusalError: one is not written so.
    """
    result = dict(values)
    overrides = list(result.get("overrides") or [])
    problems = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        if name.replace("-", "_") in FIELDS:
            name = name.replace("-", "_")
        if not equals or not name:
            problems.append(Problem("--set", f"{setting!r} is not KEY=VALUE, e.g. train_conf.max_epoch=3; give one"))
        elif name in FIELDS:
            try:
                result[name] = _parsed(name, text)
            except ValueError as error:
                problems.append(Problem(name, f"{error}; give one"))
            if name == "overrides":
                overrides = list(result[name])
        else:
            overrides.append(setting)
    if problems:
        raise RefusalError(problems)
    if overrides:
        result["overrides"] = overrides
    return result


def merged(flat: Mapping[str, Any], described: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A run's file, with flat parameters that differ from their defaults in place of its own settings.

    Kubeflow always sends every parameter, so one that has its default says nothing.

    Returns:
        The settings, and for each that does not have its default where it came from: "parameter" or "run".
    """
    values, origin = dict(described), dict.fromkeys(described, "run")
    for name, value in flat.items():
        if name not in described or _differs(name, value):
            values[name] = value
            origin[name] = "parameter"
    shown = {name: origin[name] for name in values if name in origin and _differs(name, values[name])}
    return values, shown


def with_absolute_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with local places written from the root, as manifests, lists and the registry keep them."""
    values = dict(settings)
    for name in PLACES:
        place = values.get(name, default_of(name))
        is_place = isinstance(place, str) and place not in ("", AUTO)
        if is_place and (name != "recipe" or place.endswith((".yaml", ".yml"))):
            with suppress(ValueError):  # the run refuses it
                place = _tidy(place)
                values[name] = place if "://" in place else str(Path(place).absolute())
    return values


def _tidy(place: str) -> str:
    """A place in the one way in which it is written: without `file://`, and without a slash at its end."""
    place = tidy(place).removeprefix("file://")
    return place.rstrip("/") or place


def _differs(name: str, value: Any) -> bool:
    if name not in FIELDS:
        return True
    try:
        return bool(_typed(name, value) != default_of(name))
    except ValueError:
        return True


def _typed(name: str, value: Any) -> Any:
    """The value as the setting's type. Whole numbers may come as 2.0, as Kubeflow's local runner gives them."""
    kind = kind_of(name)
    if kind is list:
        if isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value):
            return tuple(value)
        raise ValueError(f"{_shown(value)} is not a list of texts")
    if kind is dict:
        return _resources(value)
    if kind is str and isinstance(value, str):
        return value
    if kind is bool and isinstance(value, bool):
        return value
    if kind in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        if kind is int and isinstance(value, float) and not value.is_integer():
            raise ValueError(f"{value} is not a whole number")
        return kind(value)
    words = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
    raise ValueError(f"{_shown(value)} is not {words[kind]}")


def _resources(value: Any) -> dict[str, dict[str, str]]:
    if not isinstance(value, dict):
        raise ValueError("is not a mapping of stages to what their pods ask for")
    for stage, wanted in value.items():
        if not isinstance(wanted, dict) or not all(isinstance(entry, str | int | float) for entry in wanted.values()):
            raise ValueError(f"{stage}: is not a mapping, e.g. {{cpu_request: 500m, memory_limit: 4Gi}}")
    return {str(stage): {str(key): str(entry) for key, entry in wanted.items()} for stage, wanted in value.items()}


def _parsed(name: str, text: str) -> Any:
    if kind_of(name) is str:
        return text
    try:
        value = yaml_text.load(text) if text.strip() else None
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is not YAML") from error
    if kind_of(name) is list and (value is None or isinstance(value, str)):
        return tuple(text.replace(",", " ").split())
    return _typed(name, value)


def _impossible(run: Run) -> Iterator[Problem]:
    """What is wrong with single values."""
    for name, entry in FIELDS.items():
        choices = entry.metadata["settings"].get("choices")
        if choices and getattr(run, name) not in choices:
            yield Problem(name, f"{getattr(run, name)!r} is not one of {', '.join(choices)}; take one of them")
    least = {"num_processes": 0, "num_workers": 0, "prefetch": 0, "num_nodes": 1, "gpus_per_node": -1}
    least |= {"num_utts_per_parquet": 1, "average_num": 1, "subsets_at_once": 1}
    for name, smallest in least.items():
        if getattr(run, name) < smallest:
            yield Problem(name, f"{getattr(run, name)} is less than {smallest}; give {smallest} or more")
    for stage, wanted in run.resources.items():
        if stage not in RESOURCE_STAGES:
            yield Problem("resources", f"{stage}: no such stage; there are {', '.join(RESOURCE_STAGES)}")
        for kind in sorted(wanted.keys() - set(RESOURCE_KINDS)):
            yield Problem("resources", f"{stage}: {kind}: not one of {', '.join(RESOURCE_KINDS)}; take one of them")
    if run.data_root and "://" not in run.data_root and not run.data_root.startswith("/"):
        text = (
            f"{run.data_root}: is not a whole path, and tasks have other working directories; begin it with / or s3://"
        )
        yield Problem("data_root", text)
    yield from impossible(run)
    if not 0 <= run.max_reject_share <= 1:
        yield Problem("max_reject_share", f"{run.max_reject_share} is not a share; give 0 to 1")
    for name in ("start_stage", "stop_stage"):
        if not FIRST_STAGE <= getattr(run, name) <= LAST_STAGE:
            yield Problem(name, f"{getattr(run, name)} is no stage; give {FIRST_STAGE} (download) to {LAST_STAGE}")
    if FIRST_STAGE <= run.stop_stage < run.start_stage <= LAST_STAGE:
        yield Problem("start_stage", f"{run.start_stage} is above stop_stage {run.stop_stage}; exchange them")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
