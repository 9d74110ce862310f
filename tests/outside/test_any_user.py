"""Every command works for a user whom the system does not know, without a home, where only one folder is writable.

The commands run in a mount namespace whose file systems are read-only, but for that folder, and as a number that
/etc/passwd does not have, as containers on OpenShift do.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosyflow.checkpoint.official import save_official
from cosyflow.config.load import load_config
from cosyflow.models.flow.model import build_flow
from cosyflow.models.vocoder.hift import HiFTGenerator
from cosyflow.standins.corpus import serve
from cosyflow.training.language_model import build_language_model
from tests.outside.commands import ROOT
from tests.outside.tiny_run import DEV, MARKS, MODEL, TRAIN, Places, make_places, run_options

USER = 12345
CLEAN = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
BIN = Path(sys.executable).parent
COSYFLOW = str(BIN / "cosyflow")
READ_ONLY = """
set -e
mount --make-rprivate /
mount --bind {work} {work}
awk '$2 != "/" {{ print length($2), $2 }}' /proc/mounts | sort -n | cut -d' ' -f2- | while read -r place; do
    case "$place" in {work}|/proc*|/dev*|/sys*) continue ;; esac
    mount -o remount,bind,ro "$(printf '%b' "$place")" 2>/dev/null || true
done
mount -o remount,bind,ro /
cd {work}
exec setpriv --reuid={user} --regid={user} --clear-groups {reads} {command}
"""
"""Programs find the folder as their working directory, and so as the only place for temporary files."""
READS = "--inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
"""The user may read, not write, what only root may: the interpreter of these tests may lie in root's home."""


def _can() -> bool:
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "mount", "awk"))):
        return False
    tried = subprocess.run(["unshare", "--mount", "mount", "--make-rprivate", "/"], capture_output=True)
    return tried.returncode == 0


pytestmark = [*MARKS, pytest.mark.skipif(not _can(), reason="needs root, which may make a namespace of mounts")]


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    """Not below pytest's own folder, which none but its user may enter."""
    with tempfile.TemporaryDirectory(prefix="any-user-") as folder:
        made = make_places(Path(folder))
        made.folder.chmod(0o755)
        for path in (made.folder, *made.folder.rglob("*")):
            os.chown(path, USER, USER)
        yield made


@pytest.fixture(scope="module")
def url(places: Places) -> Iterator[str]:
    with serve(places.archives) as address:
        yield address


def run(places: Places, *words: object) -> str:
    """What a command prints, which must end well."""
    inherited = {name: value for name, value in os.environ.items() if name not in CLEAN}
    environment = inherited | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "1000"}
    command = shlex.join(map(str, words))
    script = READ_ONLY.format(work=places.folder, user=USER, reads=READS, command=command)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


def test_the_stages_and_tools_one_by_one(places: Places, url: str) -> None:
    """Each works on what those before it made; the training is of two processes."""
    work, pretrained = places.folder, places.folder / "pretrained"
    own = work / "own"
    tiny = ("--config", ROOT / "conf/cosyvoice2.tiny.yaml")
    run(places, "touch", work / "writable")
    with pytest.raises(AssertionError, match="Read-only"):
        run(places, "touch", "/tmp/not-writable")  # noqa: S108
    for subset in (TRAIN, DEV):
        folder = own / subset
        run(places, COSYFLOW, "download", "--subset", subset, "--output_dir", own / "speech", "--data_url", url)
        run(places, COSYFLOW, "prepare", "--src_dir", own / "speech/LibriTTS" / subset, "--des_dir", folder)
        onnx = {"speaker-embedding": "campplus.onnx", "speech-token": "speech_tokenizer_v2.onnx"}
        for stage, model in onnx.items():
            run(places, COSYFLOW, stage, "--dir", folder, "--onnx_path", pretrained / model)
        run(places, COSYFLOW, "parquet", "--src_dir", folder, "--des_dir", folder / "parquet")
    subsets = ("--train_subsets", TRAIN, "--dev_subsets", DEV)
    run(places, COSYFLOW, "merge", "--src_dir", own, "--des_dir", own / "lists", *subsets)
    data = ("--train_data", own / "lists/train.data.list", "--cv_data", own / "lists/dev.data.list")
    train = ("--model", "llm", "--model_dir", own / "llm", "--gpus_per_node", 2, "--num_workers", 1, "--no-pin-memory")
    short = ("--set", "train_conf.max_epoch=1")
    run(places, COSYFLOW, "train", *tiny, *data, "--tokenizer_path", pretrained, *train, *short)
    run(places, COSYFLOW, "average", "--src_path", own / "llm", "--dst_model", own / "average.pt", "--num", 1)
    run(places, COSYFLOW, "inspect", own / "average.pt")
    export = ("--model", "llm", "--checkpoint", own / "average.pt", "--output_dir", own / "export")
    run(places, COSYFLOW, "export", *tiny, *export)
    run(places, COSYFLOW, "import", work / "corpus" / DEV, own / "imported", "--dry-run")
    run(places, COSYFLOW, "gc", "--data-root", own)


@pytest.mark.long
def test_the_whole_pipeline_and_what_follows_it(places: Places, url: str) -> None:
    """One command runs every stage, with MLflow's registry as a file; its model is found, and registered by hand."""
    run(places, sys.executable, "-m", "pipelines", "run", *run_options(places, url, "whole"))
    registry = ("--mlflow_uri", places.mlflow_uri)
    assert "version 1" in run(places, COSYFLOW, "models", "lineage", MODEL, "--verify", *registry)
    assert "candidate" in run(places, COSYFLOW, "models", "list", MODEL, *registry)
    (model,) = places.data_root.glob("**/average/*/*/llm.pt")
    run(places, COSYFLOW, "register", f"by-hand={model}", "--output_dir", places.folder / "by-hand", *registry)


def test_a_model_speaks(places: Places) -> None:
    models, config = places.folder / "models", ROOT / "conf/cosyvoice2.tiny.yaml"
    recipe = load_config(config)
    shutil.copytree(places.folder / "pretrained", models)
    save_official(build_language_model(recipe.llm), models / "llm.pt")
    save_official(build_flow(recipe.flow), models / "flow.pt")
    save_official(HiFTGenerator(recipe.hifigan.generator), models / "hift.pt")
    prompt = next((places.corpus / DEV).rglob("*.wav"))
    voice = ("--prompt_wav", prompt, "--prompt_text", prompt.with_suffix(".normalized.txt").read_text())
    model = ("--model_dir", models, "--config", config)
    run(places, COSYFLOW, "synthesize", *model, "--text", "A lamp.", *voice, "-o", "spoken.wav")
    assert (places.folder / "spoken.wav").stat().st_uid == USER
