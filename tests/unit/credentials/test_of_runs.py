"""A run whose addresses carry credentials: clean records, equal keys here, a refusal where a server keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.errors import RefusalError
from cosyflow.launch.settings import read_settings
from cosyflow.run.config import from_parameters
from cosyflow.run.entry import begin
from cosyflow.run.plan import look
from cosyflow.run.record import Record
from pipelines.commands import main

CARRIES = {
    "mlflow_uri": "http://user:hush@host:5000",
    "data_url": "https://host/speech?X-Amz-Signature=hushhush",
    "overrides": ["corpus.data_url=http://user:hush@host"],
}
SUBMIT = ["submit", "--host", "http://127.0.0.1:9", "--data-root", "s3://bucket/x"]
WAY = "cosyflow-logins"


def test_a_record_and_the_keys_are_those_of_the_clean_addresses(tmp_path: Path) -> None:
    clean = {"mlflow_uri": "http://host:5000", "data_url": "https://host/speech"}
    records = [
        Record.of(from_parameters({"data_root": str(tmp_path), "overrides": overrides, **addresses}))
        for addresses, overrides in (
            ({name: CARRIES[name] for name in clean}, CARRIES["overrides"]),
            (clean, ["corpus.data_url=http://host"]),
        )
    ]
    assert records[0] == records[1]
    assert records[0].digest == records[1].digest
    assert "hush" not in Path(records[0].write()).read_text()
    assert "hush" not in records[0].run.to_yaml()


def test_a_recipe_file_may_carry_them_too(tmp_path: Path) -> None:
    recipe = Path("conf/cosyvoice2.tiny.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(f"{recipe}\ncorpus:\n  data_url: http://user:hush@host/a\n")
    run = from_parameters({"data_root": str(tmp_path), "recipe": str(tmp_path / "recipe.yaml")})
    assert Record.of(run).data_url == "http://host/a"


def test_a_key_in_the_data_roots_address_is_refused_with_the_right_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--data-root", "s3://KEY:hush/hush@bucket/x"]) == 2
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("error: data_root: ")]
    assert line.startswith("error: data_root: s3://bucket/x came with a key")
    assert "AWS_SECRET_ACCESS_KEY" in line
    assert "hush" not in "".join(lines)


@pytest.mark.parametrize("way", ["options", "file"])
@pytest.mark.parametrize("name", CARRIES)
def test_submit_refuses_them(name: str, way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = CARRIES[name]
    file = tmp_path / "run.yaml"
    file.write_text(f"{name}: {value}\n")
    words = ["--run", str(file)] if way == "file" else [f"--{name}", *([value] if isinstance(value, str) else value)]
    assert main([*SUBMIT, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {name}: carries credentials")
    assert WAY in line
    assert "hush" not in line


@pytest.mark.parametrize("as_text", [True, False], ids=["run", "parameter"])
def test_the_plan_of_a_server_refuses_them_and_leaves_none(
    as_text: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSYFLOW_RUN", "run-1")
    address = CARRIES["mlflow_uri"]
    parameters = {"data_root": str(tmp_path), **({} if as_text else {"mlflow_uri": address})}
    with pytest.raises(SystemExit) as ended:
        begin(f"mlflow_uri: {address}\n" if as_text else "", parameters)
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: mlflow_uri: carries credentials")
    left = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "hush" not in left + shown.out + shown.err


@pytest.mark.medium
def test_the_check_of_a_run_whose_training_is_a_job_refuses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    settings = {"data_root": "s3://bucket/x", "launcher": "pytorchjob", "mlflow_uri": CARRIES["mlflow_uri"]}
    _, problems = look(settings)
    (problem,) = [problem for problem in problems if problem.setting == "mlflow_uri" and "pods" in problem.text]
    assert WAY in problem.text


def test_a_jobs_file_names_secrets_and_has_none(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("env: [{name: MLFLOW_TRACKING_PASSWORD, value: hush}]")
    with pytest.raises(RefusalError, match=r"MLFLOW_TRACKING_PASSWORD .*secretKeyRef") as caught:
        read_settings(str(job))
    assert "hush" not in str(caught.value)
    job.write_text("env: [{name: MLFLOW_TRACKING_PASSWORD, valueFrom: {secretKeyRef: {name: logins, key: password}}}]")
    assert read_settings(str(job)).env
