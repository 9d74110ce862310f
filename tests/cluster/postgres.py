"""A Postgres server in a namespace of the test cluster, which has an image of it made on this machine."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path
from typing import Any

from tests.cluster.node_images import CLUSTER_TOOLS

IMAGE = "localhost/cosyflow-test/postgres:15"
USER_ID = 1000
USER = "mlflow"
PROGRAMS = "/usr/lib/postgresql/15/bin"
START = f"""
set -eu
PATH={PROGRAMS}:$PATH
printenv PASSWORD >/tmp/password
initdb --pgdata=/tmp/database --username={USER} --pwfile=/tmp/password --auth=scram-sha-256 --encoding=UTF8 >/dev/null
echo 'host all all all scram-sha-256' >>/tmp/database/pg_hba.conf
exec postgres -D /tmp/database -c listen_addresses='*' -c unix_socket_directories=/tmp -c jit=off
"""
INSTALL = (
    "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends postgresql"
    f" >/dev/null && useradd --uid {USER_ID} {USER}"
    " && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /usr/share/doc /usr/share/locale"
    " && rm -rf /usr/lib/postgresql/15/lib/bitcode /usr/lib/x86_64-linux-gnu/libLLVM*"  # of its compiler of queries
)


def make_image() -> None:
    """Makes the image where the cluster lacks it: Debian's Postgres."""
    tool = CLUSTER_TOOLS / "image"
    if IMAGE in subprocess.run([tool, "list"], check=True, capture_output=True, text=True).stdout.split():
        return
    settings = [word for path in sorted(Path("/etc/apt/apt.conf.d").glob("99*")) for word in ("--bind", str(path))]
    build = [tool, "build", IMAGE, "--from", "localhost/debian:bookworm", *settings, "--run", INSTALL]
    subprocess.run(build, check=True)


def objects(namespace: str) -> list[dict[str, Any]]:
    """A server `postgres`, and the Secret `mlflow-database` that k8s/components/mlflow-postgres refers to."""
    place = {"name": "postgres", "namespace": namespace}
    password = secrets.token_hex(16)
    uri = f"postgresql://{USER}:{password}@postgres:5432/postgres"
    container = {
        "name": "postgres",
        "image": IMAGE,
        "command": ["bash", "-c", START],
        "env": [
            {
                "name": "PASSWORD",
                "valueFrom": {"secretKeyRef": {"name": "mlflow-database", "key": "password"}},
            }
        ],
        "readinessProbe": {"exec": {"command": [f"{PROGRAMS}/pg_isready", "--host=/tmp"]}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - a volume
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    labels = {"app": "postgres"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "mlflow-database", "namespace": namespace},
            "stringData": {"uri": uri, "password": password},
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": {**place, "labels": labels}, "spec": pod},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": place,
            "spec": {"selector": labels, "ports": [{"port": 5432}]},
        },
    ]


def query(namespace: str, sql: str) -> str:
    """What Postgres answers, a row a line."""
    ask = f'PGPASSWORD=$PASSWORD {PROGRAMS}/psql --host=/tmp --username={USER} --dbname=postgres -Atc "$0"'
    command = ["kubectl", "--namespace", namespace, "exec", "postgres", "--", "bash", "-c", ask, sql]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
