"""Whatever the files are: one digest of a folder if and only if names and contents are the same."""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.content import Digests, combine
from cosyflow.storage.local import LEASES, is_temporary


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=6)
PATHS = st.lists(NAMES, min_size=1, max_size=2).map("/".join)
TREES = st.dictionaries(PATHS, st.binary(max_size=4), min_size=1, max_size=6)


def usable(tree: dict[str, bytes]) -> dict[str, bytes]:
    """Without names that no folder can hold or that are not content, and without files where folders are."""
    folders = {path.partition("/")[0] for path in tree if "/" in path}
    return {
        path: data
        for path, data in tree.items()
        if path not in folders
        and not any(part in (".", "..", LEASES) or is_temporary(part) for part in path.split("/"))
    }


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trees")


def digest_of(tree: dict[str, bytes], order: list[str], scratch: Path) -> str:
    shutil.rmtree(scratch)
    scratch.mkdir()
    for path in order:
        file = scratch / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tree[path])
    found = Digests().tree(str(scratch))
    assert found == {path: sha256(data) for path, data in tree.items()}
    shuffled = list(found.items())
    random.shuffle(shuffled)
    assert combine(dict(shuffled)) == combine(found)
    return combine(found)


@pytest.mark.medium
@settings(max_examples=60, deadline=None)
@given(TREES.map(usable), TREES.map(usable), st.randoms())
def test_folders_have_one_digest_if_and_only_if_they_are_equal(
    scratch: Path, one: dict[str, bytes], other: dict[str, bytes], chance: random.Random
) -> None:
    order = list(one)
    first = digest_of(one, order, scratch)
    chance.shuffle(order)
    assert digest_of(one, order, scratch) == first
    assert (digest_of(other, list(other), scratch) == first) == (one == other)


@given(st.dictionaries(st.text(max_size=5), st.text("0123456789abcdef ", max_size=5), max_size=5), st.data())
def test_any_change_of_a_name_or_a_digest_changes_the_whole(digests: dict[str, str], data: st.DataObject) -> None:
    whole = combine(digests)
    assert combine(dict(reversed(digests.items()))) == whole
    added = data.draw(st.text(max_size=5).filter(lambda name: name not in digests))
    assert combine(digests | {added: ""}) != whole
    if digests:
        name = data.draw(st.sampled_from(sorted(digests)))
        rest = {other: digest for other, digest in digests.items() if other != name}
        assert combine(rest) != whole
        assert combine(digests | {name: f"{digests[name]}0"}) != whole
        assert combine(rest | {added: digests[name]}) != whole
