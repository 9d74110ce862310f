"""Files that a stage needs of the pretrained directory: whether they are there, and those that were released."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cosyflow import storage
from cosyflow.content import Digests
from cosyflow.errors import CosyFlowError, Problem
from cosyflow.families import family
from cosyflow.families.released import ReleasedFile
from cosyflow.pretrained import SUMS, how_to_get, is_stand_in, locate
from cosyflow.run.record import Record

DIGEST_LENGTH = 64


def missing_file(record: Record, *names: str) -> Iterator[Problem]:
    """A problem when the run's pretrained directory has none of these files."""
    directory = record.run.pretrained_dir
    if not directory:
        yield Problem("pretrained_dir", f"is empty, {names[0]} is needed; {how_to_get(*names, version=record.version)}")
        return
    try:
        locate(directory, *names, version=record.version)
    except CosyFlowError as error:
        yield Problem("pretrained_dir", str(error))


def in_pretrained(record: Record, name: str) -> str:
    """The URI of a file of the pretrained directory; "" when it has no such file."""
    directory = record.run.pretrained_dir
    uri = storage.join(directory, name) if directory else ""
    return uri if uri and storage.exists(uri) else ""


def other_files(record: Record, names: Iterable[str], digests: Digests) -> Iterator[Problem]:
    """Files of the pretrained directory that are not what their names say.

    Digests in a file SHA256SUMS of the directory are what its owner asks for, and another content is a problem. The
    released files' own are compared where that list has none, and only warned of: weights may be one's own.
    """
    directory = record.run.pretrained_dir
    asked = read_sums(storage.join(directory, SUMS))
    release = family(record.version).release
    released = release.files if release and not is_stand_in(directory) else {}
    for name in names:
        known = released.get(name, ReleasedFile())
        wanted = asked.get(name, known.sha256)
        uri = in_pretrained(record, name) if wanted else ""
        if not uri or (found := digests.file(uri)) == wanted:
            continue
        if name in asked:
            text = f"{uri}: SHA-256 {found}, {SUMS} says {wanted}; fetch the file again, or correct the list"
            yield Problem("pretrained_dir", text)
        else:
            text = (
                f"{uri}: is not the file of {release}: SHA-256 {found}, not {wanted}; fetch it again, or list"
                f" its digest in {SUMS} next to it if it is meant"
            )
            yield Problem("pretrained_dir", text, is_warning=True)


def read_sums(uri: str) -> dict[str, str]:
    """Digest by name, of a file as `sha256sum` writes it; {} where there is none.

    Raises:
        CosyFlowError: a line is not of that form.
    """
    if not storage.exists(uri):
        return {}
    sums = {}
    for number, line in enumerate(storage.read_text(uri).splitlines(), 1):
        digest, _, name = line.strip().partition(" ")
        if line.strip():
            if len(digest) != DIGEST_LENGTH or not name.strip():
                raise CosyFlowError(f"{uri}:{number}: not a digest and a name, as sha256sum writes them; correct it")
            sums[name.strip().removeprefix("*").removeprefix("./")] = digest.lower()
    return sums
