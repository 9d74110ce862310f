"""No secret stays anywhere: given in addresses, variables and files to a whole run, parts of which fail, none is found.

All that the run leaves is searched: files of every kind, what was printed, the list of processes while it ran, MLflow's
database, the objects in the store, and the compiled pipeline.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import boto3
import pyarrow.parquet as pq
import pytest

from tests.outside.commands import OF_OTHER_RUNS, ROOT
from tests.outside.tiny_run import DEV, MARKS, TRAIN, Places, make_places

pytestmark = MARKS

BUCKET = "secrets"
SECRETS = {
    "access key": "AKIAPLANTED7ACCESS2K",
    "secret key": "planted+Secret/Key0123456789abcdefghijkl",
    "mlflow": "planted-mlflow:p@ss/word",
    "download": "planted-download-password",
    "netrc": "planted-netrc-password",
    "hugging face": "hf_plantedHuggingFaceToken",
    "kfp": "planted-kfp-token",
    "signature": "0planted0signature0of0an0address",
    "wrong": "planted-wrong-password",
}
USERS = {"mlflow": "tracker", "download": "reader", "wrong": "tracker", "netrc": "reader"}


def spellings(name: str) -> set[bytes]:
    """How a secret may be written: as it is, in an address, in JSON, in a header."""
    secret = SECRETS[name]
    texts = {
        secret,
        quote(secret),
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        base64.b64encode(secret.encode()).decode(),
    }
    if name in USERS:
        texts.add(header(USERS[name], secret).removeprefix("Basic "))
    return {text.encode() for text in texts}


def header(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


PATTERNS = {spelled: name for name in SECRETS for spelled in spellings(name)}


def found_in(content: bytes) -> set[str]:
    """The names of the secrets in a content."""
    return {name for spelled, name in PATTERNS.items() if spelled in content}


def found_in_file(path: Path) -> set[str]:
    """Also within the members of an archive (a checkpoint is one) and the columns of a parquet file."""
    found = found_in(path.read_bytes()) | found_in(str(path).encode())
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found |= {name for member in archive.namelist() for name in found_in(archive.read(member))}
    if path.suffix in (".parquet", ".tar") and path.read_bytes()[:4] == b"PAR1":
        table = pq.read_table(path)
        found |= found_in(str(table.schema.metadata).encode())
        texts = [column for column in table.columns if str(column.type) in ("string", "large_string")]
        found |= {name for column in texts for text in column.to_pylist() for name in found_in((text or "").encode())}
    return found


@dataclass
class World:
    """What runs need, and what they have printed and shown in the list of processes."""

    places: Places
    environment: Mapping[str, str]
    mlflow: str
    archives: str
    printed: dict[str, str] = field(default_factory=dict)
    processes: set[bytes] = field(default_factory=set)

    @property
    def data_root(self) -> str:
        return f"s3://{BUCKET}/data"

    def run(self, label: str, words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a command while it looks at the command lines of all processes but that one."""
        command = [sys.executable, "-m", *words]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # left out is the command that was typed, also as what it forks, before that is another program
        typed = b"".join(word.encode() + b"\0" for word in command)
        with self._watching(typed):
            out, err = process.communicate(timeout=1200)
        self.printed[label] = out + err
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    @contextmanager
    def _watching(self, typed: bytes) -> Iterator[None]:
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(0.2):
                for place in Path("/proc").glob("[0-9]*/cmdline"):
                    with suppress(OSError):
                        self.processes.add(place.read_bytes())
            self.processes.discard(typed)

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def pipeline(self, label: str, mlflow: str, data_url: str, *more: str) -> subprocess.CompletedProcess[str]:
        given = {
            "--run-dir": str(self.places.folder / "runs" / label),
            "--data_root": self.data_root,
            "--data-url": data_url,
            "--recipe": "cosyvoice2.tiny",
            "--pretrained_dir": str(self.places.folder / "pretrained"),
            "--train-subsets": TRAIN,
            "--dev_subsets": DEV,
            "--test-subsets": "none",
            "--num_processes": "1",
            "--num-workers": "0",
            "--gpus-per-node": "0",
            "--average_num": "1",
            "--mlflow-uri": mlflow,
        }
        options = [word for pair in given.items() for word in pair]
        settings = ["train_conf.max_epoch=1", "train_conf.log_interval=1"]
        words = ["pipelines", "run", *options, "--no-pin-memory", "--no-use_amp", "--overrides", *settings, *more]
        return self.run(label, words)


def with_login(address: str, name: str) -> str:
    return address.replace("://", f"://{USERS[name]}:{quote(SECRETS[name], safe='')}@")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("secrets")
    places = make_places(folder)
    for name in ("tmp", "home", "mlflow"):
        (folder / name).mkdir()
    (folder / "home" / ".netrc").write_text(f"machine elsewhere login reader password {SECRETS['netrc']}\n")
    with ExitStack() as stack:
        s3 = stack.enter_context(_server("tests.unit.s3_server", folder / "s3.log"))
        database = f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"
        login = header(USERS["mlflow"], SECRETS["mlflow"])
        mlflow = stack.enter_context(_server("tests.outside.login_server", folder / "mlflow.log", database, login))
        login = header(USERS["download"], SECRETS["download"])
        archives = stack.enter_context(
            _server("tests.outside.login_server", folder / "web.log", str(places.archives), login)
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OF_OTHER_RUNS)} | {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "TMPDIR": str(folder / "tmp"),
            "HOME": str(folder / "home"),
            "AWS_ENDPOINT_URL_S3": s3,
            "AWS_ACCESS_KEY_ID": SECRETS["access key"],
            "AWS_SECRET_ACCESS_KEY": SECRETS["secret key"],
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "120",  # a busy machine's server is no reason to leave metrics out
            "HF_TOKEN": SECRETS["hugging face"],
            "KFP_TOKEN": SECRETS["kfp"],
        }
        _store(s3).create_bucket(Bucket=BUCKET)
        yield World(places, environment, mlflow, archives)


@contextmanager
def _server(module: str, log: Path, *words: str) -> Iterator[str]:
    """A server in a process of its own; of two words the second is the login, which only its environment has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "SERVER_LOGIN": words[1] if len(words) > 1 else "", "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        command = [sys.executable, "-m", module, str(port), *words[:1]]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def _store(endpoint: str) -> boto3.client:
    keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)


@pytest.fixture(scope="module")
def runs(world: World) -> World:
    """A whole run whose addresses carry credentials, the same without, and what fails."""
    whole = world.pipeline("whole", with_login(world.mlflow, "mlflow"), with_login(world.archives, "download"))
    assert whole.returncode == 0, whole.stdout + whole.stderr

    logins = world.places.folder / "home" / "logins"
    logins.write_text(f"machine 127.0.0.1 login {USERS['download']} password {SECRETS['download']}\n")
    variables = {
        "MLFLOW_TRACKING_USERNAME": USERS["mlflow"],
        "MLFLOW_TRACKING_PASSWORD": SECRETS["mlflow"],
        "COSYFLOW_CREDENTIALS": str(logins),
    }
    world.environment = {**world.environment, **variables}
    again = world.pipeline("again", world.mlflow, world.archives)
    assert again.returncode == 0, again.stdout + again.stderr

    wrong_login = with_login(world.mlflow, "wrong")
    weights = next(iter((world.places.folder / "pretrained").glob("*.onnx")))
    signed = f"{world.archives}?X-Amz-Signature={SECRETS['signature']}"
    run_file = world.places.folder / "run.yaml"
    run_file.write_text(f"mlflow_uri: {with_login(world.mlflow, 'mlflow')}\ndata_root: {world.data_root}\n")
    keyed = f"s3://{SECRETS['access key']}:{SECRETS['secret key']}@{BUCKET}/x"
    output = str(world.places.folder / "out")
    failing = {
        "wrong archive": (2, ["pipelines", "check", "--data_root", world.data_root, "--data_url", signed]),
        "wrong login": (
            1, ["cosyflow", "register", f"m={weights}", "--output_dir", output, "--mlflow_uri", wrong_login],
        ),
        "download": (
            1, ["cosyflow", "download", "--part", DEV, "--data_url", with_login(world.archives, "wrong"),
                "--output_dir", output],
        ),
        "no driver": (
            1, ["cosyflow", "models", "list", "m", "--mlflow_uri", f"postgresql://u:{SECRETS['wrong']}@127.0.0.1:9/m"],
        ),
        "key in an address": (2, ["pipelines", "check", "--data_root", keyed]),
        "key for a command": (2, ["cosyflow", "gc", "--data_root", keyed]),
        "submitted": (2, ["pipelines", "submit", "--host", "http://127.0.0.1:9", "--run", str(run_file)]),
        "wrong option": (
            2, ["cosyflow", "download", "--part", DEV, "--output_dir", output, "--no", with_login("http://h", "wrong")],
        ),
        "shown": (0, ["pipelines", "show", "--run", str(run_file)]),
        "compiled": (0, ["pipelines", "compile", "--output", output, "--run", str(run_file)]),
    }  # fmt: skip
    for label, (status, words) in failing.items():
        ended = world.run(label, words)
        assert ended.returncode == status, f"{label}: {ended.stdout}{ended.stderr}"
    (world.places.folder / "home" / ".netrc").unlink()
    logins.unlink()
    run_file.unlink()
    return world


def test_the_same_work_has_the_same_key_with_and_without_credentials(runs: World) -> None:
    summary = json.loads((runs.places.folder / "runs" / "again" / "summary.json").read_text())
    assert {stage["state"] for stage in summary["stages"]} == {"reused"}


def test_no_secret_is_in_what_was_printed(runs: World) -> None:
    assert {label: found for label, text in runs.printed.items() if (found := found_in(text.encode()))} == {}


def test_no_secret_is_in_any_file(runs: World) -> None:
    """Of the folder with everything: logs, the run's folder, temporary files, the home, MLflow's database."""
    files = [path for path in runs.places.folder.rglob("*") if path.is_file() and path.name != "s3.log"]
    assert {path.name for path in files} >= {"mlflow.db", "run.log", "report.md", "summary.json", "cosyvoice.yaml"}
    assert {path: found for path in files if (found := found_in_file(path))} == {}


def test_no_secret_is_in_any_object_of_the_store(runs: World, tmp_path: Path) -> None:
    store = _store(runs.environment["AWS_ENDPOINT_URL_S3"])
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    names = {Path(key).name for key in keys}
    assert names >= {"manifest.json", "train.log", "mlflow_run.json", "epoch_0_whole.yaml", "epoch_0_whole.pt"}
    found = {}
    for number, key in enumerate(keys):
        copy = tmp_path / f"{number}{Path(key).suffix}"
        store.download_file(BUCKET, key, str(copy))
        found[key] = found_in_file(copy) | found_in(key.encode())
    assert {key: secrets for key, secrets in found.items() if secrets} == {}


def test_no_secret_is_in_the_list_of_processes(runs: World) -> None:
    assert len(runs.processes) > 10
    assert b"cosyflow.training" in b"".join(runs.processes)
    assert {line: found for line in runs.processes if (found := found_in(line))} == {}


@pytest.mark.parametrize("name", SECRETS)
def test_the_search_finds_each_secret_in_each_kind_of_file(name: str, tmp_path: Path) -> None:
    text = f"before {SECRETS[name]} after"
    (tmp_path / "log").write_text(text)
    (tmp_path / "address").write_text(quote(text))
    with zipfile.ZipFile(tmp_path / "weights.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", text * 20)
    import pyarrow as pa

    pq.write_table(pa.table({"text": [text] * 20}), tmp_path / "part.parquet", compression="gzip")
    assert {path.name for path in tmp_path.iterdir() if name not in found_in_file(path)} == set()
