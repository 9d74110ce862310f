"""Opens web addresses with the login or signature that is known for them, which no other server gets to see."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from cosyflow.credentials import login_for, with_query

AUTHORIZATION = "Authorization"


def open_url(
    url: str, timeout: float, headers: Mapping[str, str] | None = None, method: str = "GET", login: str = ""
) -> http.client.HTTPResponse:
    """The answer of a server.

    Args:
        url: http(s), without credentials; callers refuse other schemes.
        login: value of the header Authorization, where it is not the one that `login_for` knows.

    Raises:
        OSError, http.client.HTTPException: as urllib.request.urlopen does. Messages of ours name `url`, as the address
            that was asked for may carry a signature.
    """
    request = urllib.request.Request(with_query(url), headers=dict(headers or {}), method=method)  # noqa: S310
    _log_in(request, url, login)
    answer: http.client.HTTPResponse = urllib.request.build_opener(_Redirects(url, login)).open(
        request, timeout=timeout
    )
    return answer


def _log_in(request: urllib.request.Request, url: str, login: str = "") -> None:
    known = None if login else login_for(url)
    header = login or (known.header if known else "")
    if header:
        request.add_unredirected_header(AUTHORIZATION, header)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """A redirected request is authorized anew: by what is known for the server that it goes to."""

    def __init__(self, url: str, login: str) -> None:
        self._origin = urlsplit(url)
        self._login = login

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            there = urlsplit(newurl)
            if (there.scheme, there.netloc) == (self._origin.scheme, self._origin.netloc):
                _log_in(request, newurl, self._login)
            elif there.scheme == "https":
                _log_in(request, newurl)
        return request
