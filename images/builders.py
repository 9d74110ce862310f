"""The programs that build images, behind one set of calls: Docker and buildah."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cosyflow.errors import CosyFlowError


class Builder:
    """Docker, or a program that is called alike.

    Every method raises CosyFlowError when the program fails; what it printed stands above.
    """

    program = "docker"

    def exists(self, reference: str) -> bool:
        return self._asks("image", "inspect", reference)

    def build(self, context: Path, dockerfile: Path, reference: str, arguments: Mapping[str, str]) -> None:
        given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        self._run("build", *given, "--file", str(dockerfile), "--tag", reference, str(context))

    def layers(self, reference: str) -> list[str]:
        """The digests of an image's unpacked layers, in hexadecimal."""
        return self._digests("image", "inspect", "--format", "{{range .RootFS.Layers}}{{.}} {{end}}", reference)

    @contextmanager
    def archive(self, reference: str) -> Iterator[IO[bytes]]:
        """A docker-archive as a stream, to be read to its end: what containerd imports and `docker load` reads."""
        with subprocess.Popen([self.program, *self._save(reference)], stdout=subprocess.PIPE) as saving:
            assert saving.stdout is not None  # noqa: S101 - it is a pipe
            yield saving.stdout
        if saving.returncode:
            raise CosyFlowError(f"{self.program} cannot save {reference}; its messages stand above")

    def _save(self, reference: str) -> list[str]:
        return ["save", reference]

    def push(self, reference: str) -> str:
        """Sends an image to its registry. Returns it as NAME@sha256:DIGEST."""
        self._run("push", "--quiet", reference)
        name = reference.rpartition(":")[0]
        digests = self._output("image", "inspect", "--format", '{{join .RepoDigests "\\n"}}', reference).split()
        found = [digest for digest in digests if digest.startswith(f"{name}@sha256:")]
        if not found:
            raise CosyFlowError(f"{reference}: {self.program} gives no digest of what it pushed")
        return found[0]

    def _run(self, *arguments: str) -> None:
        if subprocess.run([self.program, *arguments], check=False).returncode:
            raise CosyFlowError(f"{self.program} {arguments[0]} failed; its messages stand above")

    def _asks(self, *arguments: str) -> bool:
        return not subprocess.run([self.program, *arguments], check=False, capture_output=True).returncode

    def _digests(self, *arguments: str) -> list[str]:
        return [digest.removeprefix("sha256:") for digest in self._output(*arguments).split()]

    def _output(self, *arguments: str) -> str:
        return subprocess.run([self.program, *arguments], check=True, capture_output=True, text=True).stdout


class Buildah(Builder):
    program = "buildah"

    def exists(self, reference: str) -> bool:
        return self._asks("inspect", "--type", "image", reference)

    def build(self, context: Path, dockerfile: Path, reference: str, arguments: Mapping[str, str]) -> None:
        given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        # Without a cache of steps: what is built has its tag, and a kept step is a second copy of gigabytes.
        options = ["--layers=false", "--format", "docker"]
        self._run("bud", *options, *given, "--file", str(dockerfile), "--tag", reference, str(context))

    def layers(self, reference: str) -> list[str]:
        digests = "{{range .OCIv1.RootFS.DiffIDs}}{{.}} {{end}}"
        return self._digests("inspect", "--type", "image", "--format", digests, reference)

    def _save(self, reference: str) -> list[str]:
        return ["push", "--quiet", reference, f"docker-archive:/dev/stdout:{reference}"]

    def push(self, reference: str) -> str:
        digest = Path(f"build/images/{reference.replace('/', '_')}.digest")
        digest.parent.mkdir(parents=True, exist_ok=True)
        self._run("push", "--quiet", "--digestfile", str(digest), reference, f"docker://{reference}")
        return f"{reference.rpartition(':')[0]}@{digest.read_text(encoding='utf-8').strip()}"


BUILDERS: Mapping[str, type[Builder]] = {"docker": Builder, "buildah": Buildah}


def find_builder(name: str, known: Sequence[str] = tuple(BUILDERS)) -> Builder:
    """The builder of a name, or for "auto" the first that works here."""
    for candidate in known if name == "auto" else [name]:
        working = (
            shutil.which(candidate)
            and not subprocess.run([candidate, "info"], check=False, capture_output=True).returncode
        )
        if working:
            return BUILDERS[candidate]()
    raise CosyFlowError(f"none of {', '.join(known)} works here: install one, or start Docker's service")
