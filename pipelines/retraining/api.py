"""The API of a Kubeflow Pipelines server: requests that end, and what their failures mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cosyflow.errors import CosyFlowError, OutageError

CONNECT_SECONDS, READ_SECONDS = 5.0, 60.0
PAGE = 100
TRANSIENT_STATUS = (408, 429)
CONFLICT = 409


class ConflictError(CosyFlowError):
    """There is one of this name already, or it was changed meanwhile."""


@dataclass(frozen=True)
class Api:
    """The services of a server's API; each request ends after some time.

    Attributes:
        host: URL of the API.
        token: for a server that asks for one; a path to a file is read again for each request, as a cluster renews it.
    """

    host: str
    token: str | Path | None = None

    @cached_property
    def runs(self) -> Any:
        return self._service("RunServiceApi")

    @cached_property
    def experiments(self) -> Any:
        return self._service("ExperimentServiceApi")

    @cached_property
    def pipelines(self) -> Any:
        return self._service("PipelineServiceApi")

    @cached_property
    def uploads(self) -> Any:
        return self._service("PipelineUploadServiceApi")

    def ask(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """The answer to a call of a service.

        Raises:
            OutageError: the server does not answer, or not yet.
            ConflictError: see there.
            CosyFlowError: it refuses.
        """
        with self._meaning():
            return call(*arguments, **options, _request_timeout=(CONNECT_SECONDS, READ_SECONDS))

    def pages(self, call: Callable[..., Any], key: str, *arguments: Any, **options: Any) -> Iterator[Any]:
        """What a call lists, from all pages. Raises as `ask` does.

        Args:
            key: where a page has its entries.
        """
        token = ""
        while True:
            page = self.ask(call, *arguments, page_token=token, page_size=PAGE, **options)
            yield from getattr(page, key) or []
            token = page.next_page_token or ""
            if not token:
                return

    def _service(self, name: str) -> Any:
        import kfp_server_api

        return getattr(kfp_server_api, name)(self._client)

    @cached_property
    def _client(self) -> Any:
        import kfp_server_api

        host = self.host if "://" in self.host else f"https://{self.host}"
        configuration = kfp_server_api.Configuration(host=host.rstrip("/"), api_key_prefix={"authorization": "Bearer"})
        if isinstance(self.token, Path):
            configuration.refresh_api_key_hook = self._read_token
            self._read_token(configuration)
        elif self.token:
            configuration.api_key["authorization"] = self.token
        return kfp_server_api.ApiClient(configuration)

    def _read_token(self, configuration: Any) -> None:
        if isinstance(self.token, Path):
            try:
                configuration.api_key["authorization"] = self.token.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise CosyFlowError(f"{self.token}: no token can be read ({error}); mount one") from error

    @contextmanager
    def _meaning(self) -> Iterator[None]:
        """Within the `with` body what the client raises becomes an error that says whether trying again may help."""
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            text = f"{self.host}: status {error.status}: {error.body or error.reason}"
            if error.status in (None, 0, *TRANSIENT_STATUS) or error.status >= 500:
                raise OutageError(f"{text}; try again later") from error
            raise (ConflictError if error.status == CONFLICT else CosyFlowError)(text) from error
        except (HTTPError, OSError) as error:
            text = f"{self.host}: no answer from a Kubeflow Pipelines server ({error}); try again later"
            raise OutageError(text) from error


def equals(key: str, value: str) -> str:
    """A filter of what has a value."""
    return _filter("EQUALS", key, value)


def contains(key: str, value: str) -> str:
    """A filter of what has a text in it."""
    return _filter("IS_SUBSTRING", key, value)


def _filter(operation: str, key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": operation, "key": key, "stringValue": value}]})
