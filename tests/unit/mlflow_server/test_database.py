"""MLflow's database in a file is there whole or not at all, however its making ends."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cosyflow.cli import main
from cosyflow.disk import ROOM
from cosyflow.mlflow_server.database import UNFINISHED
from tests.unit.disks import fill
from tests.unit.packages import CHECKOUT

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
MOMENTS = ("lock", "first table", "tables", "database", "version")
"""What is there when the kill comes; an equal number of processes is stopped in each way."""


def register(folder: Path) -> subprocess.Popen[str]:
    words = [f"llm={folder / 'llm.pt'}", "--output_dir", str(folder / "out"), "--mlflow_uri"]
    return subprocess.Popen(
        [sys.executable, "-m", "cosyflow", "register", *words, f"sqlite:///{folder}/mlflow.db"],
        cwd=CHECKOUT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def is_reached(moment: str, folder: Path) -> bool:
    database = folder / "mlflow.db"
    new = next(iter(folder.glob(f".mlflow.db.*{UNFINISHED}")), None)
    if moment == "lock":
        return (folder / ".mlflow.db.lock").exists()
    if moment == "first table":
        return new is not None and new.stat().st_size > 0
    if moment == "tables":
        return new is not None and new.stat().st_size > 150_000
    if moment == "database":
        return database.exists()
    return database.exists() and count_versions(database) > 0


def is_whole(database: Path) -> bool:
    """Whether its migration has ended, which writes its number last."""
    with sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True) as connection:
        return connection.execute("SELECT count(*) FROM alembic_version").fetchone()[0] == 1


def count_versions(database: Path) -> int:
    try:
        with sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM model_versions").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_registration_that_is_stopped_at_any_moment_ends_with_one_version(
    number: signal.Signals, tmp_path: Path
) -> None:
    """One process after the other is stopped, each a little further than the one before; the last may finish."""
    (tmp_path / "llm.pt").write_bytes(b"weights")
    for moment in MOMENTS:
        process = register(tmp_path)
        deadline = time.monotonic() + 300
        while process.poll() is None and not is_reached(moment, tmp_path) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(number)
        output, _ = process.communicate(timeout=300)
        assert "Traceback" not in output
        assert not (tmp_path / "mlflow.db").exists() or is_whole(tmp_path / "mlflow.db"), moment
    last = register(tmp_path)
    output, _ = last.communicate(timeout=300)
    assert last.returncode == 0, output
    address = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(address, address)
    assert [version.version for version in client.search_model_versions("name='llm'")] in ([1], ["1"])
    assert int(client.get_model_version_by_alias("llm", "candidate").version) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llm.pt", "mlflow.db", "out"]


@pytest.mark.slow
def test_several_first_uses_at_once_make_one_database(tmp_path: Path) -> None:
    program = "import sys; from cosyflow.mlflow_server import connect; connect(sys.argv[1]).search_registered_models()"
    words = [sys.executable, "-c", program, f"sqlite:///{tmp_path}/deep/mlflow.db"]
    processes = [subprocess.Popen(words, cwd=CHECKOUT, env=ENVIRONMENT, stderr=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["mlflow.db"]


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_same_command_goes_on_when_there_is_room(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the database is made, and when it is there."""
    (tmp_path / "llm.pt").write_bytes(b"weights")
    database, half = small_disk / "mlflow.db", 200_000
    for name, left in (("first", half), ("second", 0)):
        words = [f"{name}={tmp_path / 'llm.pt'}", "--output_dir", str(tmp_path / name)]
        ballast, before = fill(small_disk, left), database.exists()
        assert main(["register", *words, "--mlflow_uri", f"sqlite:///{database}"]) == 1
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        assert f"error: {database}: database or disk is full; {ROOM}" in errors.splitlines()[-1]
        assert database.exists() == before
        assert not list(small_disk.glob(f"*{UNFINISHED}*"))
        ballast.unlink()
        assert main(["register", *words, "--mlflow_uri", f"sqlite:///{database}"]) == 0
    assert count_versions(database) == 2


@pytest.mark.medium
def test_a_database_that_was_left_unfinished_is_named_with_what_to_do(
    empty_database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a kill left it where MLflow made it in its place: a table has its new column, the database an old revision."""
    unfinished = tmp_path / "unfinished.db"  # of another name, since this process has the other one open
    empty_database.rename(unfinished)
    with sqlite3.connect(unfinished) as connection:
        connection.execute("DROP TABLE model_versions")
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    (tmp_path / "llm.pt").write_bytes(b"weights")
    words = ["register", f"llm={tmp_path / 'llm.pt'}", "--output_dir", str(tmp_path / "out"), "--mlflow_uri"]
    assert main([*words, f"sqlite:///{unfinished}"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert str(unfinished) in line
    assert "left unfinished" in line
    assert "move the file elsewhere" in line
