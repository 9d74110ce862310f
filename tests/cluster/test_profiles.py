"""A team's part of the store: a Kubeflow profile's keys, which open `private-artifacts/NAMESPACE` and nothing else."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cosyflow import storage
from cosyflow.cli import main
from cosyflow.errors import CosyFlowError
from cosyflow.training.process import run
from tests.cluster.conftest import BUCKET, SPEECH, STORE_HERE
from tests.cluster.small_training import has_checkpoint, make_arguments

TEAM = "team-speech"


@pytest.fixture
def team_store(store_environment: Any) -> Iterator[str]:
    """An empty prefix that the team may use, with the team's keys, for an hour, in the environment."""
    from minio.credentials import AssumeRoleProvider

    objects = {
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
        "Resource": [f"arn:aws:s3:::{BUCKET}/private-artifacts/{TEAM}/*"],
    }
    listing = {
        "Effect": "Allow",
        "Action": ["s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{BUCKET}"],
        "Condition": {"StringLike": {"s3:prefix": [f"private-artifacts/{TEAM}/*"]}},
    }
    keys = AssumeRoleProvider(
        sts_endpoint=STORE_HERE,
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        policy=json.dumps({"Version": "2012-10-17", "Statement": [objects, listing]}),
    ).retrieve()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", keys.access_key)
        environment.setenv("AWS_SECRET_ACCESS_KEY", keys.secret_key)
        environment.setenv("AWS_SESSION_TOKEN", keys.session_token or "")
        prefix = f"s3://{BUCKET}/private-artifacts/{TEAM}/{uuid.uuid4().hex[:12]}"
        yield prefix
        storage.remove(prefix)


def test_a_stage_reads_and_writes_there(team_store: str) -> None:
    if not SPEECH.is_dir():
        pytest.skip(f"no recorded speech at {SPEECH}")
    recordings, made = storage.join(team_store, "dev-clean"), storage.join(team_store, "prepared")
    storage.upload_tree(SPEECH / "dev-clean", recordings)
    assert main(["prepare", "--src_dir", recordings, "--des_dir", made]) == 0
    listed = storage.read_text(storage.join(made, "wav.scp")).splitlines()
    assert len(listed) == len(list((SPEECH / "dev-clean").rglob("*.wav")))


def test_a_training_reads_and_writes_there_and_goes_on(team_store: str, tmp_path: Path) -> None:
    arguments = make_arguments(team_store, tmp_path)
    run(replace(arguments, max_steps=5))
    assert has_checkpoint(arguments)
    ending = run(replace(arguments, max_steps=10))
    assert ending.position.update == 10


@pytest.mark.parametrize("place", ["private-artifacts/other-team", "elsewhere"])
def test_another_place_is_refused_by_its_name(team_store: str, place: str) -> None:
    uri = f"s3://{BUCKET}/{place}/file"
    with pytest.raises(CosyFlowError, match=rf"^{uri}: .*AccessDenied"):
        storage.write_text(uri, "text")
    with pytest.raises(CosyFlowError, match=rf"^{uri}: .*AccessDenied"):
        storage.read_text(uri)
