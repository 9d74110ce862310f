"""Before the first stage: refuses what cannot work, all of it at once, and says what is to be done."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from cosyflow import storage
from cosyflow.content import Digests
from cosyflow.errors import CosyFlowError, Problem, RefusalError
from cosyflow.run import config, ends
from cosyflow.run.chain import Link, walk, why_broken
from cosyflow.run.config import Run
from cosyflow.run.ends import End
from cosyflow.run.execute import SKIPPED, point_to, skipped
from cosyflow.run.recipes import NO_SUBSETS, is_usable
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from cosyflow.run.stages.pretrained_files import other_files
from cosyflow.stage import LATEST

SUBSET_LISTS = ("train_subsets", "dev_subsets", "test_subsets")
PROBE = ".cosyflow-write-probe"
RECIPE = "recipe"
IMPORTED_BY_CHECKS = "cosyflow.launch.places"
"""What several checks need. Of two threads that import a package and a module of it at once each waits for the other,
until Python ends one with an error."""


@dataclass(frozen=True)
class Plan:
    """A run that can work.

    Attributes:
        uri: of its record.
        links: all its work, done or not.
        warnings: what may be wrong and cannot be seen from here.
    """

    record: Record
    uri: str
    links: tuple[Link, ...]
    warnings: tuple[str, ...] = ()

    @property
    def unfinished(self) -> list[Link]:
        """Work that the run is to do."""
        return [link for link in self.links if link.stage.is_selected(self.record) and link.finished is None]

    def stamp(self, stage: str, run: str) -> str:
        """What a server's cache knows a stage's tasks by, in addition to their inputs.

        Of finished work it is the digest of what was made; work that is missing gets the run's own name, which no
        answer of the cache can have: a cached task could not notice that its output was deleted.
        """
        links = [link for link in self.links if link.stage.name == stage]
        manifests = [link.finished for link in links]
        if any(manifest is None for manifest in manifests) and STAGES[stage].is_selected(self.record):
            return run
        return "-".join(manifest.digest[:12] if manifest else SKIPPED for manifest in manifests)


@dataclass(frozen=True)
class Examined:
    """A run that nothing is wrong with, and how far it is; `digests` holds what was read for that, not yet saved."""

    record: Record
    links: tuple[Link, ...]
    digests: Digests
    warnings: tuple[str, ...]


def check(settings: Mapping[str, Any]) -> Record:
    """The record of a run that can work; nothing is written.

    Args:
        settings: of the run, by name; what is absent has its default.

    Raises:
        RefusalError: something of it is wrong, or a stage outside the range has nothing that can be reused.
    """
    return examine(settings).record


def examine(settings: Mapping[str, Any]) -> Examined:
    """Looks at a run from all sides, and writes nothing. Raises RefusalError with all that is wrong with it."""
    record, problems = look(settings)
    wrong = [problem for problem in problems if not problem.is_warning]
    if wrong or record is None:
        raise RefusalError(wrong)
    _refuse_old_data_root(record)
    digests = Digests(record.digests, writes=False)
    try:
        links = tuple(walk(record, digests))
    except RefusalError:
        raise
    except CosyFlowError as error:
        raise RefusalError([Problem("run", str(error))]) from error
    _refuse_broken_chain(record, links, digests)
    unfit = [
        problem
        for link in links
        if link.work and link.finished is None and link.stage.is_selected(record)
        for problem in link.stage.check_inputs(record, link.work.inputs)
    ]
    if unfit:
        raise RefusalError(unfit)
    problems += _strange_files(record, links, digests)
    if wrong := [problem for problem in problems if not problem.is_warning]:
        raise RefusalError(wrong)
    return Examined(record, links, digests, tuple(map(str, problems)))


def _strange_files(record: Record, links: tuple[Link, ...], digests: Digests) -> list[Problem]:
    """What of the pretrained directory the work to be done reads, and is not what its name says."""
    stages = [link.stage for link in links if link.finished is None and link.stage.is_selected(record)]
    names = dict.fromkeys(name for stage in stages for name in stage.pretrained_files(record))
    try:
        return list(other_files(record, names, digests)) if names else []
    except CosyFlowError as error:
        return [Problem("pretrained_dir", str(error))]


def look(settings: Mapping[str, Any]) -> tuple[Record | None, list[Problem]]:
    """The record of a run, and all that is or may be wrong with it; nothing is written."""
    run, problems = config.repaired(settings)
    named = {problem.setting for problem in problems}
    record, more, replaced = _record(run)
    problems += more
    if record is not None:
        # a default in place of a wrong value was not asked for, so what is wrong with it is nobody's problem
        found = [problem for problem in _problems(record) if problem.setting not in named | replaced]
        problems += [problem for problem in found if RECIPE not in replaced or not _is_of_recipe(problem)]
    return record, list(dict.fromkeys(problems))


def _record(run: Run) -> tuple[Record | None, list[Problem], set[str]]:
    """The record without what is wrong with the recipe or the subsets, and the settings that have defaults instead."""
    problems: list[Problem] = []
    replaced: set[str] = set()
    while True:
        try:
            return Record.of(run), problems, replaced
        except RefusalError as refusal:
            problems += refusal.problems
            wrong = {problem.setting for problem in refusal.problems}
        changes = _without(run, wrong) or _with_default_recipe(run)
        if not changes:
            return None, problems, set()
        replaced |= {name for name, value in changes.items() if name == RECIPE or (name != "overrides" and not value)}
        run = replace(run, **changes)


def _without(run: Run, wrong: set[str]) -> dict[str, Any]:
    """The settings without what is wrong with them; where that cannot be known, without any; else nothing."""
    if wrong & set(SUBSET_LISTS):
        usable = _usable_subsets(run)
        changes = usable if any(getattr(run, name) != usable[name] for name in usable) else dict.fromkeys(usable, ())
    else:
        kept = tuple(override for override in run.overrides if not _is_about(override, wrong))
        changes = {"overrides": kept if kept != run.overrides else ()}
    return {name: value for name, value in changes.items() if value != getattr(run, name)}


def _with_default_recipe(run: Run) -> dict[str, Any]:
    """The default in place of a recipe that is not there or wrong, so that the other settings can be looked at."""
    default = config.default_of(RECIPE)
    return {} if run.recipe == default else {RECIPE: default, "overrides": ()}


def _is_of_recipe(problem: Problem) -> bool:
    """Whether another recipe may not have the problem: it is about a recipe's setting, or a file that one needs."""
    return "." in problem.setting or problem.setting in ("pretrained_dir", "data_url", "average_num")


def _is_about(override: str, settings: set[str]) -> bool:
    key = override.partition("=")[0]
    return any(f"{key}.".startswith(f"{setting}.") or setting.startswith(f"{key}.") for setting in settings)


def _usable_subsets(run: Run) -> dict[str, tuple[str, ...]]:
    """The lists of subsets without names that cannot be, or that were there before."""
    seen: set[str] = set()
    found: dict[str, tuple[str, ...]] = {}
    for use in SUBSET_LISTS:
        names = getattr(run, use)
        is_none = use == "test_subsets" and names == (NO_SUBSETS,)
        found[use] = tuple(name for name in dict.fromkeys(names) if is_none or (is_usable(name) and name not in seen))
        seen.update(names)
    return found


def _problems(record: Record) -> list[Problem]:
    """What the selected stages, all looking at the same time, find wrong."""
    import_module(IMPORTED_BY_CHECKS)
    selected = [stage for stage in STAGES.values() if stage.is_selected(record)]
    with ThreadPoolExecutor(len(selected) + 1) as threads:
        checks = [threads.submit(_check, stage.check, record) for stage in selected]
        checks.append(threads.submit(_check, _no_write_access, record))
        return [problem for one in checks for problem in one.result()]


def plan(settings: Mapping[str, Any], claimed: Callable[[Record], None] = lambda record: None) -> Plan:
    """Checks a run, writes its record, and looks what of it is done.

    Args:
        claimed: called when nothing is wrong and before anything is written; what it raises ends the run.

    Raises:
        RefusalError: something of it is wrong, or a stage outside the range has nothing that can be reused.
    """
    examined = examine(settings)
    claimed(examined.record)
    examined.digests.save()
    uri = examined.record.write()
    for link in examined.links:
        if link.work and link.finished:
            point_to(link.work, examined.record, link.finished)
    return Plan(examined.record, uri, examined.links, examined.warnings)


def leave(plan: Plan, run: str, declared: Mapping[str, str] | None = None) -> None:
    """Leaves what the plan found, and what the run was declared as, for the run's other tasks."""
    found = []
    for link in plan.links:
        if link.finished is not None:
            found.append(End.of(replace(link.finished, reused=True)))
        elif not link.stage.is_selected(plan.record):
            found.append(End.of(skipped(link.stage, link.name)))
    ends.leave_plan(plan.record.run.data_root, found, plan.uri, run, declared)


def _check(find: Any, record: Record) -> list[Problem]:
    try:
        with storage.impatient():  # somebody waits for the answer
            return list(find(record))
    except RefusalError as refusal:
        return list(refusal.problems)
    except CosyFlowError as error:  # an address that cannot be looked at
        return [Problem("run", str(error))]


def _no_write_access(record: Record) -> Iterator[Problem]:
    """A problem when nothing can be written below the data root; what was written to try it is removed again."""
    root = record.run.data_root
    try:
        if storage.is_remote(root):
            probe = storage.join(root, PROBE)
            storage.write_text(probe, "")
            storage.remove(probe)
            if not storage.creates_once(root):
                text = (
                    f"{root}: the store overwrites an object that should only be created (it has no conditional"
                    " writes), so runs at the same time may do equal work twice, and disturb each other; start one at"
                    " a time"
                )
                yield Problem("data_root", text, is_warning=True)
            return
        there = next(path for path in [Path(root).absolute(), *Path(root).absolute().parents] if path.exists())
        if not there.is_dir():
            yield Problem("data_root", f"{root}: {there} is a file; name a folder")
            return
        with tempfile.TemporaryFile(dir=there):
            pass
    except (CosyFlowError, OSError) as error:
        yield Problem("data_root", f"{root}: cannot be written ({error}); give another place, or the right to write")


def _refuse_old_data_root(record: Record) -> None:
    """Work of CosyFlow 0.1 has keys that do not say what it was made of: it can neither be reused nor ignored."""
    for stage in STAGES.values():
        for name in stage.names(record):
            uri = storage.join(stage.place(record, name), LATEST)
            if _is_of_old(uri):
                text = (
                    f"{record.run.data_root}: was made by CosyFlow 0.1 ({uri}), whose work does not say what it was"
                    " made of; give another data root. To go on from a training of it, name its newest checkpoint:"
                    " --resume_from FILE"
                )
                raise RefusalError([Problem("data_root", text)])


def _is_of_old(uri: str) -> bool:
    """Whether a manifest is one of CosyFlow 0.1; what cannot be read is none, and no run depends on it."""
    try:
        return storage.exists(uri) and "version" not in storage.read_json(uri)
    except CosyFlowError:
        return False


def _refuse_broken_chain(record: Record, links: tuple[Link, ...], digests: Digests) -> None:
    """What a run does not do itself it must find done, for just these settings."""
    needed = {before for stage in STAGES.values() if stage.is_selected(record) for before in _all_before(stage.name)}
    broken = [
        link
        for link in links
        if link.stage.name in needed
        and not link.stage.is_selected(record)
        and link.finished is None
        and (link.work is not None or not link.stage.inputs)
    ]
    if broken:
        raise RefusalError(Problem("start_stage", why_broken(link, record, digests)) for link in broken)


def _all_before(stage: str) -> set[str]:
    direct = set(STAGES[stage].inputs)
    return direct.union(*(_all_before(before) for before in direct))
