"""Audio that is of no use counts as wholly wrong, and never as missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosyflow.evaluation.judges import ROLES
from cosyflow.evaluation.judges.named import Missing
from cosyflow.evaluation.listing import Entry
from cosyflow.evaluation.rows import CANDIDATE, judge_row
from cosyflow.evaluation.sound import load_sound
from cosyflow.evaluation.workers import Workers
from tests.unit.evaluation.conftest import record


@pytest.mark.parametrize(
    ("samples", "failure"),
    [
        (np.zeros(0), "empty"),
        (np.full(1000, 0.1), "empty"),
        (np.zeros(16000), "silent"),
        (0.2 * np.sin(np.arange(80000) / 20), "endless"),
        (0.2 * np.sin(np.arange(16000) / 20), ""),
    ],
    ids=["nothing", "a moment", "silence", "five times as long", "as long"],
)
def test_failures_show_in_the_audio(tmp_path: Path, samples: np.ndarray, failure: str) -> None:
    recorded = record(tmp_path / "recorded.wav", 1.0)
    soundfile.write(tmp_path / "spoken.wav", samples, 16000)
    entries = [Entry("a", recorded, "In it.", "A lamp.", recorded)]
    judges = dict.fromkeys(ROLES, Missing("no judges"))
    row = judge_row(
        CANDIDATE, [str(tmp_path / "spoken.wav")], entries, judges, Workers(None), str(tmp_path / "h"), "en"
    )
    assert row.facts[0].failure == failure
    assert row.pairs["failures"] == {"a": (float(bool(failure)), 1.0)}
    assert isinstance(row.pairs["wer"], Missing)


def test_sound_is_16_khz_mono(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "stereo.wav", np.full((48000, 2), 0.25), 48000)
    sound = load_sound(str(tmp_path / "stereo.wav"))
    assert sound.samples.shape == (16000,)
    assert sound.samples.dtype == np.float32
