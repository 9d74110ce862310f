"""MLflow's server, or a folder's files, for those who log in: `python -m tests.outside.login_server PORT WHAT`.

SERVER_LOGIN of the environment is what the header Authorization must have; WHAT is the address of MLflow's database, or
a folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cosyflow.standins.server import RangeHandler

Answer = Iterable[bytes]
App = Callable[[dict[str, Any], Any], Answer]


def behind_login(app: App, login: str) -> App:
    def answer(environ: dict[str, Any], start_response: Any) -> Answer:
        if environ.get("HTTP_AUTHORIZATION") == login or environ["PATH_INFO"] == "/health":
            return app(environ, start_response)
        start_response("401 UNAUTHORIZED", [("WWW-Authenticate", "Basic"), ("Content-Type", "text/plain")])
        # as careless servers do
        return [f"You sent {environ.get('HTTP_AUTHORIZATION')}, which is wrong.".encode()]

    return answer


class Files(RangeHandler):
    """Serves files to those who log in."""

    login = ""

    def do_GET(self) -> None:  # noqa: N802
        if self.headers.get("Authorization") == self.login:
            super().do_GET()
        else:
            self.send_error(401)

    def do_HEAD(self) -> None:  # noqa: N802
        if self.headers.get("Authorization") == self.login:
            super().do_HEAD()
        else:
            self.send_error(401)


def main(port: int, login: str, what: str) -> None:
    if "://" not in what:
        Files.login = login
        ThreadingHTTPServer(("127.0.0.1", port), partial(Files, directory=what)).serve_forever()
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = str(Path(what.removeprefix("sqlite:///")).parent / "artifacts")
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = os.environ["_MLFLOW_SERVER_REGISTRY_STORE"] = what
    from mlflow.server import app
    from werkzeug.serving import run_simple

    run_simple("127.0.0.1", port, behind_login(app, login), threaded=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), os.environ["SERVER_LOGIN"], sys.argv[2])
