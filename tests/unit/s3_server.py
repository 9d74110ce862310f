"""An S3 server in memory: moto's, with conditional writes as a store makes them.

Between moto's look whether an object is there and its write another request may come; here the two are one. At the
address `localhost` the condition is not known, and the object is overwritten.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

CONDITION = "HTTP_IF_NONE_MATCH"

Answer = Iterable[bytes]
App = Callable[[dict[str, Any], Any], Answer]


def with_conditions(app: App) -> App:
    lock = threading.Lock()

    def answer(environ: dict[str, Any], start_response: Any) -> Answer:
        if environ.get("HTTP_HOST", "").startswith("localhost"):
            environ.pop(CONDITION, None)
        if environ["REQUEST_METHOD"] != "PUT" or CONDITION not in environ:
            return app(environ, start_response)
        with lock:
            return app(environ, start_response)

    return answer


if __name__ == "__main__":
    application = with_conditions(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True)
