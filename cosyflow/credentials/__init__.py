"""Credentials, and the addresses that carry them.

An address is taken apart where it comes in (`withdraw`): the clean one stands in records, manifests, logs and command
lines, its credentials in the environment of this process and its children alone. Who opens an address asks here for
what it needs (`login_for`, `with_query`, `whole`). Other credentials come from the environment and from files:
see docs/credentials.md.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from cosyflow.errors import CosyFlowError, Problem, RefusalError
from cosyflow.redaction import SECRET_IN_QUERY, WITHDRAWN_VARIABLE, guard_output, is_secret_user, remember

LOGINS_VARIABLE = "COSYFLOW_CREDENTIALS"
NETRC_VARIABLE = "NETRC"
MOUNTED_LOGINS = Path("/var/run/secrets/cosyflow/logins/logins")
"""Where a pod has the file of logins (key `logins` of the Secret `cosyflow-logins`)."""
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
WEB = ("http", "https")
S3 = "s3"
IN_A_CLUSTER = (
    "put the login into the Secret cosyflow-logins (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or `logins`"
    " for downloads; docs/credentials.md)"
)
"""How credentials come to the tasks of a server and the pods of a job."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_EMBEDDED = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>\\]+", re.IGNORECASE)
_PASTED = re.compile(r"(?P<user>[^/?#@:]*:(?!\d*(?:[/?#]|$))[^@]*)@(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True)
class Login:
    """What a server asks for."""

    user: str
    password: str

    @property
    def header(self) -> str:
        """Value of the header Authorization."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")


@dataclass(frozen=True)
class _Parts:
    """An address and what it carries; `query` is the whole of one that has a secret in it."""

    clean: str
    user: str = ""
    password: str = ""
    query: str = ""

    @property
    def carries(self) -> bool:
        return bool(self.user or self.password or self.query)


def protect() -> None:
    """What each process begins with: its output is redacted, and addresses in its environment carry nothing."""
    guard_output()
    tracking_address()


def tracking_address() -> str:
    """MLFLOW_TRACKING_URI without the credentials that it may carry; "" when it is not set."""
    given = os.environ.get(TRACKING_VARIABLE, "")
    clean = withdraw(given)
    if clean != given:
        os.environ[TRACKING_VARIABLE] = clean
    return clean


def withdraw(text: str) -> str:
    """An address without its credentials, which are remembered for this process and its children.

    Of another text, such as KEY=ADDRESS or a file's content, the addresses in it are replaced so.

    Raises:
        CosyFlowError: it is an s3:// address with a key: the environment has those.
    """
    if "://" not in text:
        return text
    if _ADDRESS.match(text) and not re.search(r"\s", text):
        return _withdrawn(text)
    return _EMBEDDED.sub(lambda found: _withdrawn(found[0]), text)


def carries_credentials(text: str) -> bool:
    """Whether an address, or one in a text, carries a password, a token or a signature."""
    if _ADDRESS.match(text) and not re.search(r"\s", text):
        return _take_apart(text).carries
    return any(_take_apart(found[0]).carries for found in _EMBEDDED.finditer(text))


def refuse_carried(settings: Mapping[str, Any]) -> None:
    """Raises RefusalError for settings of a run that carry credentials, where they would be kept or shown."""
    problems = [
        Problem(name, f"carries credentials, which everybody could read there; take them out of it, and {IN_A_CLUSTER}")
        for name, value in settings.items()
        if any(map(carries_credentials, _texts(value)))
    ]
    if problems:
        raise RefusalError(problems)


def withdrawn_from(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with clean addresses. Raises RefusalError for an s3:// address that carries a key."""
    problems, clean = [], {}
    for name, value in settings.items():
        try:
            clean[name] = _clean_value(value)
        except CosyFlowError as error:
            problems.append(Problem(name, str(error)))
    if problems:
        raise RefusalError(problems)
    return clean


def is_withdrawn(clean: str) -> bool:
    """Whether an address came with credentials."""
    return any(entry["clean"] == clean for entry in _entries())


def whole(clean: str) -> str:
    """The address as it came, for what takes its credentials in no other way (a database)."""
    return next((str(entry["uri"]) for entry in _entries() if entry["clean"] == clean), clean)


def with_query(url: str) -> str:
    """A web address with the signature or token that came with it or with a folder above it."""
    for entry in _entries():
        if entry["query"] and (url == entry["clean"] or url.startswith(entry["clean"].rstrip("/") + "/")):
            return f"{url}?{entry['query']}"
    return url


def withdrawn_login(url: str) -> Login | None:
    """The login that came with an address of a web server."""
    for entry in _entries():
        if entry["user"] and _origin(entry["clean"]) == _origin(url):
            return Login(entry["user"], entry["password"])
    return None


def login_for(url: str) -> Login | None:
    """The login for a web server: what came with an address of it, else that of COSYFLOW_CREDENTIALS or a netrc file.

    Raises:
        CosyFlowError: the file that COSYFLOW_CREDENTIALS names cannot be read.
    """
    if login := withdrawn_login(url):
        return login
    parts = urlsplit(url)
    for file, is_asked_for in _login_files():
        hosts = _read_logins(file) if is_asked_for else _read_logins_if_any(file)
        found = hosts.get(parts.netloc) or hosts.get(parts.hostname or "")
        if found:
            remember(found.password)
            return found
    return None


def _withdrawn(uri: str) -> str:
    parts = _take_apart(uri)
    if not parts.carries:
        return uri
    if uri.lower().startswith(f"{S3}://"):
        raise CosyFlowError(
            f"{parts.clean} came with a key and its secret; give it without them, and set AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY in the environment"
        )
    entry = {
        "clean": parts.clean,
        "uri": uri,
        "user": unquote(parts.user),
        "password": unquote(parts.password),
        "query": parts.query,
        "secrets": _secrets_of(parts),
    }
    others = [other for other in _entries() if other["clean"] != parts.clean]
    os.environ[WITHDRAWN_VARIABLE] = json.dumps([entry, *others])
    return parts.clean


def _take_apart(uri: str) -> _Parts:
    scheme, _, rest = uri.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user = password = ""
    if "@" in authority:
        info, _, host = authority.rpartition("@")
        if is_secret_user(scheme, info):
            user, colon, password = info.partition(":")
            if not colon:  # a token alone: servers take it as the name, and as the password
                password = user
            # a database's user is no secret, and with PGPASSWORD it is part of the address
            kept = "" if scheme.lower() in (*WEB, S3) or not user else f"{user}@"
            rest = kept + host + rest[len(authority) :]
    elif pasted := _PASTED.fullmatch(rest):
        user, _, password = pasted["user"].partition(":")
        rest = pasted["rest"]
    address, mark, query = rest.partition("?")
    if mark and SECRET_IN_QUERY.search(f"?{query}"):
        return _Parts(f"{scheme}://{address}", user, password, query)
    return _Parts(f"{scheme}://{rest}", user, password)


def _secrets_of(parts: _Parts) -> list[str]:
    values = [value for key, value in parse_qsl(parts.query) if SECRET_IN_QUERY.match(f"?{key}=x")]
    password = parts.password or parts.user
    found = [password, unquote(password), *values]
    if password:
        found.append(Login(unquote(parts.user), unquote(parts.password)).header.removeprefix("Basic "))
    return sorted({secret for secret in found if secret})


def _entries() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(os.environ.get(WITHDRAWN_VARIABLE) or "[]")
    return found


def _origin(url: str) -> tuple[str, str]:
    scheme, _, rest = url.partition("://")
    return scheme.lower(), re.split(r"[/?#]", rest, maxsplit=1)[0].lower()


def _login_files() -> Iterator[tuple[Path, bool]]:
    """The files that may have a login, and whether somebody asked for it."""
    if named := os.environ.get(LOGINS_VARIABLE):
        yield Path(named).expanduser(), True
    yield MOUNTED_LOGINS, False
    named = os.environ.get(NETRC_VARIABLE)
    yield Path(named or os.path.expanduser("~/.netrc")), False  # noqa: PTH111 - no error without a home


def _read_logins_if_any(file: Path) -> dict[str, Login]:
    """As tools take ~/.netrc: what cannot be read there has no login."""
    try:
        return _read_logins(file)
    except CosyFlowError:
        return {}


def _read_logins(file: Path) -> dict[str, Login]:
    """Logins by host, or host:port. The entry `default` is left out: it would give a password to any server."""
    import netrc

    try:
        hosts = netrc.netrc(str(file)).hosts
    except OSError as error:
        text = f"{file}: cannot be read ({error.strerror}); {LOGINS_VARIABLE} names a file of machine, login, password"
        raise CosyFlowError(text) from error
    except (netrc.NetrcParseError, UnicodeDecodeError) as error:  # whose own message may quote a password
        line = f":{error.lineno}" if isinstance(error, netrc.NetrcParseError) else ""
        text = f"{file}{line}: not lines of `machine HOST login NAME password PASSWORD`; correct the file"
        raise CosyFlowError(text) from None
    return {host: Login(login, password) for host, (login, _, password) in hosts.items() if host != "default"}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for each in value.values() for text in _texts(each))
    elif isinstance(value, list | tuple):
        yield from (text for each in value for text in _texts(each))


def _clean_value(value: Any) -> Any:
    if isinstance(value, str):
        return withdraw(value)
    if isinstance(value, Mapping):
        return {key: _clean_value(each) for key, each in value.items()}
    return type(value)(map(_clean_value, value)) if isinstance(value, list | tuple) else value
