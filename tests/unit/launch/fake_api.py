"""An API server for the launcher's tests: real HTTP, one namespace of PyTorchJobs, and an operator playing recordings.

A recording (sequences/*.yaml) has a list of steps for each attempt of a job. A step is played `after` some seconds
and may hold the job's new `status`, new statuses of its `pods` by role, lines that a pod `prints`, `events` by object,
an error that the training `leaves` ({kind, message, update}; the kind is a class of cosyflow.errors), and a `fault`:
the next watch ends with 410 (`gone`) or in mid-air (`cut`), the server answers 503 for some `seconds` (`down`), or
somebody deletes the job (`deleted`).
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from cosyflow import errors
from cosyflow.training.failure import ATTEMPT_VARIABLE, WORK_VARIABLE, leave_failure

Object = dict[str, Any]
NAMESPACE = "team-a"
TOKEN = "token-of-the-test"  # noqa: S105
JOBS = re.compile(rf"/apis/[^/]+/v1/namespaces/{NAMESPACE}/[a-z]+")
CORE = f"/api/v1/namespaces/{NAMESPACE}"
SEQUENCES = Path(__file__).parent / "sequences"
START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeCluster:
    """The objects, and the operator."""

    def __init__(self) -> None:
        self.pod_label = "training.kubeflow.org/job-name"
        self.jobs: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        self.events: list[Object] = []
        self.logs: dict[str, list[str]] = {}
        self.recording: list[list[Object]] = []
        self.watch_faults: list[str] = []
        self.cut_at: set[str] = set()
        self.down_until = 0.0
        self.created: list[Object] = []
        self.deleted: list[str] = []
        self.calls: list[str] = []
        self.changed = threading.Condition()
        self.closed = False
        self._version = 100
        self._second = 0

    def play(self, recording: str) -> None:
        self.recording = yaml.safe_load((SEQUENCES / f"{recording}.yaml").read_text())

    def create(self, job: Object, played: bool = True) -> Object:
        with self.changed:
            name = job["metadata"]["name"]
            job["metadata"]["uid"] = f"uid-{len(self.created)}-{name}"
            self._touch(job)
            self.jobs[name] = job
            self.created.append(job)
        if played:
            attempt = int(job["metadata"]["labels"]["cosyflow.dev/attempt"])
            steps = self.recording[attempt] if attempt < len(self.recording) else []
            threading.Thread(target=self._run, args=(name, job["metadata"]["uid"], steps), daemon=True).start()
        return job

    def delete(self, name: str) -> None:
        with self.changed:
            self.jobs.pop(name, None)
            self.deleted.append(name)
            for pod in [pod for pod in self.pods.values() if self._is_of(pod, name)]:
                del self.pods[pod["metadata"]["name"]]
            self._touch(None)

    def pods_of(self, selector: str) -> list[Object]:
        label, _, job = selector.partition("=")
        return [pod for pod in self.pods.values() if pod["metadata"]["labels"].get(label) == job]

    def _is_of(self, pod: Object, job: str) -> bool:
        return bool(pod["metadata"]["labels"].get(self.pod_label) == job)

    def _run(self, name: str, uid: str, steps: Sequence[Object]) -> None:
        for step in steps:
            time.sleep(step.get("after", 0.05))
            with self.changed:
                job = self.jobs.get(name)
                if job is None or job["metadata"]["uid"] != uid:
                    return
                self._play(name, job, step)
            if step.get("fault") == "deleted":
                self.delete(name)

    def _play(self, name: str, job: Object, step: Object) -> None:
        for role, status in step.get("pods", {}).items():
            pod = f"{name}-{role}"
            labels = {self.pod_label: name}
            self.pods[pod] = {"metadata": {"name": pod, "labels": labels}, "status": status}
        for role, lines in step.get("prints", {}).items():
            self.logs.setdefault(f"{name}-{role}", []).extend(f"{self._now()} {line}" for line in lines)
        for role, (reason, message) in step.get("events", {}).items():
            about = {"name": f"{name}-{role}" if role != "job" else name}
            self.events.append({"involvedObject": about, "type": "Warning", "reason": reason, "message": message})
        if "leaves" in step:
            self._leave(job, step["leaves"])
        if "suspend" in step:
            job["spec"]["runPolicy"]["suspend"] = step["suspend"]
        if "status" in step:
            job["status"] = step["status"]
        if step.get("fault") in ("gone", "cut"):
            self.watch_faults.append(step["fault"])
        if step.get("fault") == "down":
            self.down_until = time.monotonic() + step["seconds"]
        self._touch(job)

    @staticmethod
    def _leave(job: Object, error: Object) -> None:
        """What a process of the job's first pod does when it fails, in the environment that the job gives it."""
        (container,) = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
        env = {entry["name"]: entry.get("value", "") for entry in container["env"]}
        arguments = container["args"]
        model_dir = arguments[arguments.index("--model_dir") + 1]
        values = {name: value for name, value in error.items() if name != "kind"}
        raised = getattr(errors, error["kind"])(**values)
        leave_failure(model_dir, env[WORK_VARIABLE], env[ATTEMPT_VARIABLE], raised)

    def _now(self) -> str:
        self._second += 1
        return (START + timedelta(milliseconds=400 * self._second)).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"

    def _touch(self, job: Object | None) -> None:
        self._version += 1
        if job is not None:
            job["metadata"]["resourceVersion"] = str(self._version)
        self.changed.notify_all()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what was called is in FakeCluster.calls."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def _answer(self, respond: Callable[[str, dict[str, str]], None]) -> None:
        cluster = self.server.cluster
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        cluster.calls.append(f"{self.command} {parts.path}" + (" watch" if query.get("watch") else ""))
        self.body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._status(401, "Unauthorized")
        elif time.monotonic() < cluster.down_until:
            self._status(503, "the server is starting")
        else:
            respond(parts.path, query)

    def _get(self, path: str, query: dict[str, str]) -> None:
        cluster = self.server.cluster
        if JOBS.fullmatch(path) and query.get("watch"):
            self._watch(query)
        elif JOBS.fullmatch(path):
            wanted = query["labelSelector"].partition("=")[2]
            found = [
                job for job in cluster.jobs.values() if job["metadata"]["labels"].get("cosyflow.dev/job") == wanted
            ]
            self._json(200, {"items": found})
        elif JOBS.match(path):
            name = path.rpartition("/")[2]
            self._json(200, cluster.jobs[name]) if name in cluster.jobs else self._status(404, f"{name} not found")
        elif path == f"{CORE}/pods":
            self._json(200, {"items": cluster.pods_of(query["labelSelector"])})
        elif path.startswith(f"{CORE}/pods/") and not path.endswith("/log"):
            name = path.rpartition("/")[2]
            self._json(200, cluster.pods[name]) if name in cluster.pods else self._status(404, f"{name} not found")
        elif path == f"{CORE}/events":
            name = query["fieldSelector"].split(",")[0].partition("=")[2]
            self._json(200, {"items": [entry for entry in cluster.events if entry["involvedObject"]["name"] == name]})
        elif path.endswith("/log"):
            self._log(path.split("/")[-2], query)
        else:
            self._status(404, f"{path} not found")

    def _post(self, path: str, query: dict[str, str]) -> None:
        cluster, name = self.server.cluster, self.body["metadata"]["name"]
        if name in cluster.jobs:
            self._status(409, f'pytorchjobs.kubeflow.org "{name}" already exists')
        else:
            self._json(201, cluster.create(self.body))

    def _delete(self, path: str, query: dict[str, str]) -> None:
        name = path.rpartition("/")[2]
        job = self.server.cluster.jobs.get(name)
        if job is None:
            self._status(404, f"{name} not found")
        elif self.body["preconditions"]["uid"] != job["metadata"]["uid"]:
            self._status(409, "the UID in the precondition does not match")
        else:
            self.server.cluster.delete(name)
            self._json(200, {"kind": "Status", "status": "Success"})

    def _watch(self, query: dict[str, str]) -> None:
        """Sends a job when it is no longer at the version that the caller knows."""
        cluster = self.server.cluster
        name, version = query["fieldSelector"].partition("=")[2], query["resourceVersion"]
        until = time.monotonic() + float(query["timeoutSeconds"])
        self._begin_stream()
        with cluster.changed:
            while time.monotonic() < until and not cluster.closed:
                if cluster.watch_faults:
                    if cluster.watch_faults.pop(0) == "cut":
                        self.close_connection = True  # in the middle of a chunk
                        self.wfile.write(b'40\r\n{"type": "MODIF')
                        return
                    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                    self._chunk({"type": "ERROR", "object": gone})
                    break
                job = cluster.jobs.get(name)
                if job is None or job["metadata"]["resourceVersion"] != version:
                    self._chunk(
                        {"type": "MODIFIED" if job else "DELETED", "object": job or {"metadata": {"name": name}}}
                    )
                    break
                cluster.changed.wait(0.2)
        self.wfile.write(b"0\r\n\r\n")

    def _log(self, pod: str, query: dict[str, str]) -> None:
        cluster = self.server.cluster
        if pod not in cluster.pods and pod not in cluster.logs:
            self._status(404, f'pods "{pod}" not found')
            return
        lines = cluster.logs.get(pod, [])
        if not query.get("follow"):
            text = "".join(line.partition(" ")[2] + "\n" for line in lines[-int(query["tailLines"]) :])
            self._begin_stream()
            self._raw_chunk(text.encode())
            self.wfile.write(b"0\r\n\r\n")
            return
        self._begin_stream()
        for line in self._follow(pod, query.get("sinceTime", "")):
            self._raw_chunk(f"{line}\n".encode())
            if "cut the log here" in line and line not in cluster.cut_at:
                cluster.cut_at.add(line)
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
        self.wfile.write(b"0\r\n\r\n")

    def _follow(self, pod: str, since: str) -> Iterator[str]:
        """Lines from the whole second of `since` on, as the kubelet gives them, until the pod has ended."""
        cluster, sent = self.server.cluster, 0
        while not cluster.closed:
            with cluster.changed:
                lines = [line for line in cluster.logs.get(pod, []) if line[:19] >= since[:19]]
                phase = cluster.pods.get(pod, {}).get("status", {}).get("phase")
                ended = phase != "Running" and len(lines) == sent
                if len(lines) == sent and not ended:
                    cluster.changed.wait(0.2)
            yield from lines[sent:]
            sent = len(lines)
            if ended:
                return

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, event: Object) -> None:
        self._raw_chunk(json.dumps(event).encode() + b"\n")

    def _raw_chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    def _json(self, status: int, value: Object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _status(self, code: int, message: str) -> None:
        self._json(code, {"kind": "Status", "code": code, "message": message})


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cluster = FakeCluster()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no trouble."""

    def kubeconfig(self) -> str:
        """A kubeconfig that leads here."""
        context = {"cluster": "fake", "user": "tester", "namespace": NAMESPACE}
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}],
                "users": [{"name": "tester", "user": {"token": TOKEN}}],
                "contexts": [{"name": "test", "context": context}],
                "current-context": "test",
            }
        )
