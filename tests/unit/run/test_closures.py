"""Code that makes a stage's outputs cannot change unnoticed: see `closures.py`, which keeps what it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cosyflow.run.stages import STAGES
from tests.unit.run.closures import CHECKOUT, closures, reached, read, undecided

Change = Callable[[str], str]


@pytest.fixture
def asked(tmp_path: Path) -> Callable[[str, Change], set[str]]:
    """The stages that a changed file of a copy of the code asks a decision for."""
    shutil.copytree(CHECKOUT / "cosyflow", tmp_path / "cosyflow", ignore=shutil.ignore_patterns("__pycache__"))
    before = closures(tmp_path)

    def _asked(file: str, change: Change) -> set[str]:
        path = tmp_path / "cosyflow" / file
        text = path.read_text()
        changed = change(text)
        assert changed != text
        path.write_text(changed)
        lines = undecided(before, closures(tmp_path))
        path.write_text(text)
        return {line.partition(":")[0] for line in lines}

    return _asked


def with_comments(text: str) -> str:
    return f'{text}\n# a comment\n"""And some words."""\n'


def with_code(text: str) -> str:
    return f"{text}\nANOTHER = 1\n"


@pytest.mark.medium
def test_changed_code_was_decided_about() -> None:
    lines = undecided(read(), closures())
    assert not lines, "\n".join(lines)


def test_the_file_has_every_stage_with_its_version() -> None:
    assert {name: entry["version"] for name, entry in read().items()} == {
        name: stage.version for name, stage in STAGES.items()
    }, "write it anew: python -m tests.unit.run.closures"


@pytest.mark.medium
def test_only_changed_code_asks(asked: Callable[[str, Change], set[str]]) -> None:
    """One copy for all of these: a copy of the code takes longer than looking at it."""
    extractors = {"speaker-embedding", "speech-token"}
    reads_audio = {"prepare", *extractors, "parquet", "train"}  # training decodes the audio of the shards
    builds_models = {"train", "export"}
    for file, stages in {
        "audio/opener.py": {"download", *reads_audio},  # the stage download imports what is in another layout
        "audio/speech.py": reads_audio - {"prepare"},
        "audio/features.py": reads_audio - {"prepare"},
        "audio/f0.py": {"parquet"},
        "corpus/kaldi.py": {"download", "prepare", *extractors, "parquet"},
        "corpus/libritts.py": {"download", "prepare"},
        "corpus/download.py": {"download"},
        "extract/speech_token.py": {"speech-token"},
        "extract/speaker_embedding.py": {"speaker-embedding"},
        "dataset/parquet.py": {"parquet"},
        "dataset/merge.py": {"merge"},
        "dataset/batching.py": {"train"},
        "config/flow.py": {"parquet", *builds_models},
        "models/llm/speech_lm.py": builds_models,
        "families/cosyvoice2/models.py": {"export"},
        "families/cosyvoice2/export.py": {"export"},
        "families/cosyvoice2/training.py": {"train"},
        "families/cosyvoice2/text.py": {"train"},
        "families/cosyvoice2/recipe.py": {"parquet", "train", "export"},
        "training/loop.py": {"train"},
        "training/process.py": {"train"},  # of a process that the stage starts
        "release/average.py": {"average"},
        "release/export/formats.py": {"export"},
        "release/register.py": {"register"},
        # no say in what is written
        "training/tracking/mlflow.py": set(),
        "training/telemetry.py": set(),
        "training/heartbeat.py": set(),
        "launch/follow/follower.py": set(),
        "synthesis/__init__.py": set(),
        "cli/__init__.py": set(),
        "progress.py": set(),
        "storage/__init__.py": set(),
        "content.py": set(),
        "stage.py": set(),
        "run/report.py": set(),
        "run/record.py": set(),
    }.items():
        assert asked(file, with_code) == stages, file
        assert asked(file, with_comments) == set(), file


@pytest.mark.medium
def test_of_a_stages_own_module_its_work_and_settings_count(asked: Callable[[str, Change], set[str]]) -> None:
    train = "run/stages/train.py"
    assert asked(train, lambda text: text.replace('"keep_best")', '"keep_best", "seed")')) == {"train"}
    assert asked(train, lambda text: text.replace("there is no model of so few epochs", "it is gone")) == set()
    assert asked(train, lambda text: text.replace("correct the path, or leave it empty", "correct it")) == set()
    assert asked("run/stages/merge.py", lambda text: text.replace('"dev.data.list"', '"x"')) == {"train"}
    assert asked("run/stages/merge.py", lambda text: text.replace("{use}/{place}", "{place}")) == {"merge"}
    assert asked("run/stages/rejects.py", with_code) == set()


def test_a_new_version_is_a_decision() -> None:
    kept = {"merge": {"version": 1, "digest": "old"}, "train": {"version": 1, "digest": "old"}}
    now = {"merge": {"version": 2, "digest": "new"}, "train": {"version": 1, "digest": "new"}}
    (line,) = undecided(kept, now)
    assert line == (
        "train: its code has changed: bump the version in cosyflow/run/stages/train.py, or acknowledge with:"
        " python -m tests.unit.run.closures"
    )


def test_imports_for_type_checkers_reach_nothing() -> None:
    assert "cosyflow.training.arguments" in reached("train")  # imported within functions
    assert "cosyflow.dataset.pitch" in reached("parquet")
    assert "cosyflow.dataset.parquet" not in reached("prepare")
