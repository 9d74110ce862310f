"""Judges that a user names: found, checked, loaded. What is wrong with one makes it missing, with the reason."""

from __future__ import annotations

import hashlib
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cosyflow.errors import CosyFlowError
from cosyflow.evaluation.judges import DNSMOS, QUALITY, ROLES, SPEAKER, TRANSCRIPT
from cosyflow.evaluation.judges.load import load_judge
from cosyflow.evaluation.judges.named import Missing, Named, find_judges
from cosyflow.evaluation.judges.packaged import SHA256, SOURCES, _locate
from cosyflow.evaluation.sound import RATE, Sound
from cosyflow.standins.models import make_stand_ins

VOICE = 0.1 * np.random.default_rng(0).normal(size=4 * RATE).astype(np.float32)
SOUND = Sound("noise", VOICE)
WITHIN = """
import resource, sys
from cosyflow.evaluation.judges.load import load_judge
role, path = sys.argv[1:]
load_judge("dnsmos", "absent.onnx", "absent.onnx", "en")  # imports what every judge needs
import torch, distillmos
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 20),) * 2)
print(load_judge(role, path, path, "en").reason)
"""


def of_package(name: str) -> str:
    """The weights of a judge where its package has them."""
    return str(_locate(*SOURCES[name]))


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two real judges under usual names."""
    for name in ("dnsmos.onnx", "dvector.pt"):
        shutil.copy(of_package(name), tmp_path / name)
    return tmp_path


def test_judges_are_found_by_usual_names_and_the_others_are_missing(folder: Path) -> None:
    found = find_judges(str(folder))
    assert found[DNSMOS] == Named(DNSMOS, str(folder / "dnsmos.onnx"), SHA256["dnsmos.onnx"])
    assert isinstance(found[SPEAKER], Named)
    assert all(isinstance(found[role], Missing) for role in (TRANSCRIPT, QUALITY))
    assert "Whisper" in getattr(found[TRANSCRIPT], "reason", "")


def test_a_list_names_judges_anywhere_and_their_checksums(folder: Path) -> None:
    listing = folder / "mine.yaml"
    listing.write_text(
        f"dnsmos: {{path: dnsmos.onnx, sha256: {SHA256['dnsmos.onnx']}}}\nspeaker: {folder / 'dvector.pt'}\n"
    )
    found = find_judges(str(listing))
    assert isinstance(found[DNSMOS], Named)
    assert isinstance(found[SPEAKER], Named)


def test_a_judge_that_disagrees_with_its_checksum_does_not_judge(folder: Path) -> None:
    (folder / "judges.yaml").write_text(f"dnsmos: {{path: dnsmos.onnx, sha256: '{'0' * 64}'}}\n")
    found = find_judges(str(folder))[DNSMOS]
    assert isinstance(found, Missing)
    assert f"its sha256 is {SHA256['dnsmos.onnx']}, not {'0' * 64}" in found.reason


def test_a_judge_that_is_not_there_is_missing(folder: Path) -> None:
    (folder / "judges.yaml").write_text("quality: gone.pt\n")
    found = find_judges(str(folder))[QUALITY]
    assert isinstance(found, Missing)
    assert "gone.pt: no such file" in found.reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ears: x.onnx", "ears: no such judge; there are transcript, speaker, dnsmos, quality"),
        ("dnsmos: {file: x.onnx}", "dnsmos: write {path: PATH"),
        (f"dnsmos: {{path: x.onnx, sha256: {'0' * 64}}}", "write its 64 digits in quotation marks"),
        ("- dnsmos", "not a list of judges"),
        ("dnsmos: [", "not YAML"),
    ],
)
def test_a_list_of_judges_that_is_none(folder: Path, text: str, message: str) -> None:
    (folder / "judges.yaml").write_text(text)
    with pytest.raises(CosyFlowError, match=message):
        find_judges(str(folder))


def test_no_judges_at_all(tmp_path: Path) -> None:
    assert all(isinstance(judge, Missing) for judge in find_judges("").values())
    with pytest.raises(CosyFlowError, match="no such judges"):
        find_judges(str(tmp_path / "gone"))


@pytest.mark.parametrize("role", ROLES)
def test_a_file_that_is_no_model_does_not_judge(tmp_path: Path, role: str) -> None:
    """Each role by the kind of file that it takes, damaged."""
    path = tmp_path / {TRANSCRIPT: "whisper", SPEAKER: "dvector.pt", DNSMOS: "d.onnx", QUALITY: "q.pt"}[role]
    if role == TRANSCRIPT:
        path.mkdir()
        (path / "model.bin").write_bytes(b"no model")
    else:
        path.write_bytes(b"no model")
    found = load_judge(role, str(path), str(path), "en")
    assert isinstance(found, Missing)
    assert str(path) in found.reason
    assert "\n" not in found.reason


def test_a_stand_in_knows_no_voices(tmp_path: Path) -> None:
    make_stand_ins(tmp_path)
    path = str(tmp_path / "campplus.onnx")
    found = load_judge(SPEAKER, path, path, "en")
    assert isinstance(found, Missing)
    assert "a stand-in" in found.reason


@pytest.mark.medium
def test_a_judge_without_memory_does_not_judge(folder: Path) -> None:
    command = [sys.executable, "-c", WITHIN, SPEAKER, str(folder / "dvector.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "it cannot be loaded" in done.stdout
    assert resource.getrlimit(resource.RLIMIT_AS)  # of the other process alone


def test_dvectors_know_a_sound_from_another(folder: Path) -> None:
    path = str(folder / "dvector.pt")
    voices = load_judge(SPEAKER, path, path, "en")
    assert not isinstance(voices, Missing)
    tone = Sound("tone", np.sin(np.arange(2 * RATE) / 20).astype(np.float32))
    assert voices.hear(SOUND, SOUND) == pytest.approx(1, abs=1e-5)
    assert float(voices.hear(tone, SOUND)) < 0.9


@pytest.mark.medium
def test_noise_is_no_good_speech(folder: Path) -> None:
    path = str(folder / "dnsmos.onnx")
    dnsmos = load_judge(DNSMOS, path, path, "en")
    distillmos = load_judge(QUALITY, of_package("distillmos.pt"), "distillmos.pt", "en")
    for judge in (dnsmos, distillmos):
        assert not isinstance(judge, Missing)
        assert 1 <= float(judge.hear(SOUND, SOUND)) < 2
