"""A small web server on this machine that answers requests for parts of files, as the mirrors of OpenSLR do."""

from __future__ import annotations

import http.server
import re
import shutil
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path

ADDRESS = "127.0.0.1"
FIRST_PORT, PORTS = 20_000, 10_000  # below the ports that Linux gives to outgoing connections
POLL_SECONDS = 0.05  # how long the end of the `with` body may wait
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@contextmanager
def serve(directory: Path | str) -> Iterator[str]:
    """Serves the files of a folder for the `with` body; gives the URL.

    A folder keeps its port from run to run when the port is free, so that downloads of an earlier run are known again.
    """
    folder = Path(directory).resolve()
    handler = partial(RangeHandler, directory=str(folder))
    preferred = FIRST_PORT + zlib.crc32(str(folder).encode()) % PORTS
    try:
        server = http.server.ThreadingHTTPServer((ADDRESS, preferred), handler)
    except OSError:
        server = http.server.ThreadingHTTPServer((ADDRESS, 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True)
    thread.start()
    try:
        yield f"http://{ADDRESS}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves whole files and `Range: bytes=FIRST-[LAST]`, silently."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None or not path.is_file():
            super().do_GET()
            return
        size = path.stat().st_size
        first, last = int(asked[1]), min(int(asked[2] or size), size - 1)
        if first > last:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        with path.open("rb") as stream:
            stream.seek(first)
            if last == size - 1:
                shutil.copyfileobj(stream, self.wfile)
            else:
                self.wfile.write(stream.read(last - first + 1))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal belongs to the pipeline's progress."""
