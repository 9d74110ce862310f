"""Every block of the pages says how it is tested, and every command in them is one that there is."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from cosyflow.cli.main import STAGES, TOOLS, build_parser
from cosyflow.evaluation.judges import ROLES
from cosyflow.evaluation.judges.named import find_judges
from cosyflow.launch.settings import read_settings as read_job
from cosyflow.run import config
from cosyflow.run.record import Record
from pipelines.commands import build_parser as build_pipelines_parser
from pipelines.options import read_settings
from pipelines.retraining.model import read as read_retraining
from tests.documents import ROOT, Block, blocks, commands, headings, inline_commands, links, name_of, pages, prose

PAGES = pages()
BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.info.startswith(("bash", "console"))]
PROGRAMS_OF_OTHERS = {
    "hf",
    "modelscope",
    "sha256sum",
    "aws",
    "docker",
    "git",
    "grep",
    "kind",
    "openssl",
    "pip",
    "sed",
    ".",
    "cd",
    "mkdir",
    "cp",
}
OWN_FOLDERS = re.compile(r"(\.ci|conf|docs|images|k8s|tests|pipelines|components)/\S+")
MAKE_VARIABLE = re.compile(r"([A-Z_]+)=.*")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PIPELINES = ["python", "-m", "pipelines"]
A_RUN = ("run", "submit", "check", "show", "keys")


def test_the_pages_have_blocks() -> None:
    assert len(PAGES) >= 12
    assert len(SHELL) >= 25


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_says_how_it_is_tested(block: Block) -> None:
    assert block.is_marked, f'{block}: "{block.info}" is not one of the marks that tests/documents.py lists'


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_in_marked_blocks_only(page: Path) -> None:
    loose = r"^(?: {4}|\t)\s*(?:\$ |\.venv/bin/)?(?:cosyflow|python|make|kubectl|kfp|KUBECONFIG=\S+) .*"
    assert re.findall(loose, prose(page), re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for path, heading in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)}: there is no {path}"
        assert not heading or heading in headings(target), f"{name_of(page)}: {target.name} has no heading #{heading}"


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_a_block_is_what_a_shell_takes(block: Block) -> None:
    checked = subprocess.run(["bash", "-n"], input=block.script, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert block.script.strip()


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_the_commands_of_a_block_are_there_with_their_options(block: Block) -> None:
    for words in commands(block.script):
        check(words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_commands_in_sentences_are_there_with_their_options(page: Path) -> None:
    for words in inline_commands(page):
        check_names(words)


@pytest.mark.medium  # kubectl is asked for each command
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here")
def test_the_commands_of_kubectl_have_their_options() -> None:
    found = commands_of("kubectl")
    assert found
    for words in found:
        known = options_of_kubectl(tuple(command_of(words)))
        assert [word for word in options_of(words) if word not in known] == [], " ".join(words)


@pytest.mark.medium  # the SDK is loaded
def test_the_commands_of_kfp_have_their_options() -> None:
    import click
    from kfp.cli import cli  # its --help asks a server

    found = commands_of("kfp")
    assert found
    for words in found:
        command = cli.cli
        known = list(command.params)
        for word in list(command_of(words))[1:]:  # "run", "submit"
            command = command.get_command(click.Context(command), word)
            known += command.params
        names = {option for parameter in known for option in parameter.opts}
        assert [word for word in options_of(words) if word not in names] == [], " ".join(words)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.info.startswith("yaml")], ids=str)
def test_a_file_is_read_as_what_it_is(block: Block, tmp_path: Path) -> None:
    if block.mark == "retraining":
        assert read_retraining(yaml.safe_load(block.text), str(block)).name
    elif block.mark == "job":
        (tmp_path / "job.yaml").write_text(block.text)
        assert read_job(str(tmp_path / "job.yaml")).image
    elif block.mark == "judges":
        (tmp_path / "judges.yaml").write_text(block.text)
        assert find_judges(str(tmp_path / "judges.yaml")).keys() == ROLES.keys()
    else:
        given = {"run": {}, "resources": {"data_root": "s3://bucket"}}[block.mark]
        assert config.from_parameters({**given, **yaml.safe_load(block.text)}).data_root


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark == "ci"], ids=str)
def test_a_block_of_ci_names_what_ci_makes(block: Block) -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for words in commands(block.script):
        for target in words[1:] if words[0] == "make" else []:
            assert MAKE_VARIABLE.fullmatch(target) or re.search(rf"\bmake {target}\b", script), (
                f".ci/run makes no {target}"
            )


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("a b  # c's\nd 'e f'", [["a", "b"], ["d", "e f"]]),
        ("a \\\n  --b > c | d", [["a", "--b"], ["d"]]),
        ("X=1 .venv/bin/a http://b:1 '' &", [["a", "http://b:1", ""]]),
        ("export X=$(a b)\nfor x in $(c d); do\n e $x\ndone", [["$"], ["a", "b"], ["c", "d"], ["e", "$x"]]),
    ],
)
def test_a_script_falls_into_its_commands(script: str, words: list[list[str]]) -> None:
    assert [found for found in commands(script) if found != ["$"]] == [each for each in words if each != ["$"]]


@pytest.mark.parametrize(
    "command",
    [
        "cosyflow train --no_such 1",
        "cosyflow no-such",
        "cosyflow average --dst_model a.pt",
        "python -m pipelines run --data-root a --no-such",
        "python -m pipelines check --data-root a --recipe cosyvoice9",
        "make no-such",
        "make demo NO_SUCH=1",
        "python tests/bench/export.py --no-such",
        "kind create cluster --config k8s/no-such.yaml",
        "no-such",
    ],
)
def test_a_wrong_command_would_be_found(command: str) -> None:
    with pytest.raises((AssertionError, config.RefusalError)):
        check(command.split())


def check(words: list[str]) -> None:
    """Fails when the command cannot be: unknown words, options or values, files of the checkout that are not there."""
    text = " ".join(words)
    for word in words:
        path = word.partition("=")[2] or word
        if OWN_FOLDERS.fullmatch(path):
            assert (ROOT / path.partition("::")[0]).exists(), f"{text}: there is no {path}"
    if words[0] == "cosyflow":
        parse(build_parser(words[1] if words[1] in (*STAGES, *TOOLS) else None), words[1:])
    elif words[:3] == PIPELINES:
        args = parse(build_pipelines_parser(), words[3:])
        if args.command in A_RUN and not args.run:
            settings = read_settings(args, {"data_root": "exp/data"})
            Record.of(config.from_parameters(config.with_absolute_places(settings)))
    elif words[0] == "make":
        check_names(words)
    elif words[0] == "python":
        program = (ROOT / words[1]).read_text(encoding="utf-8")
        assert [option for option in options_of(words) if f'"{option}"' not in program] == [], text
    elif words[0] not in ("kubectl", "kfp", "$"):
        assert words[0] in PROGRAMS_OF_OTHERS or (ROOT / words[0]).exists(), f"{text}: no such program"


def check_names(words: list[str]) -> None:
    """Fails when a command, an option, a target or a variable is unknown; what a sentence leaves out may be missing."""
    text = " ".join(words)
    if words[0] == "make":
        for word in words[1:]:
            variable = MAKE_VARIABLE.fullmatch(word)
            known = f"$({variable[1]})" in MAKEFILE if variable else re.search(rf"^{word}:", MAKEFILE, re.MULTILINE)
            assert known, f"{text}: the Makefile has no {word}"
        return
    if words[0] == "cosyflow":
        rest = words[1:]
        parsers = {each: subcommands(build_parser(each))[each] for each in (*STAGES, *TOOLS)}
    elif words[:3] == PIPELINES:
        rest, parsers = words[3:], subcommands(build_pipelines_parser())
    else:
        return
    named = [parsers[rest[0]]] if rest and rest[0] in parsers else list(parsers.values())
    assert not rest or rest[0] in parsers or rest[0].isupper() or rest[0].startswith("-"), f"{text}: no such command"
    known = {option for parser in named for option in parser._option_string_actions}
    assert [option for option in options_of(rest) if option not in known | {"--version"}] == [], text


def parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    try:
        return parser.parse_args(words)
    except SystemExit as end:
        raise AssertionError(f"{' '.join(words)}: refused with status {end.code}") from end


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return next(action.choices for action in parser._actions if isinstance(action.choices, dict))


def options_of(words: list[str]) -> Iterator[str]:
    return (word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word))


def command_of(words: list[str]) -> Iterator[str]:
    """A program and its sub-command: the words before the first option, without an option of the program itself."""
    rest = iter(words)
    for word in rest:
        if word in ("--namespace", "--endpoint"):
            next(rest)
        elif word.startswith("-"):
            return
        else:
            yield word


def commands_of(program: str) -> list[list[str]]:
    return [words for block in SHELL for words in commands(block.script) if words[0] == program]


@cache
def options_of_kubectl(command: tuple[str, ...]) -> set[str]:
    """All options that its help shows, the general ones included."""
    shown = [[*command, "--help"], ["kubectl", "options"]]
    texts = [subprocess.run(words, capture_output=True, text=True).stdout for words in shown]
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", "\n".join(texts)))
