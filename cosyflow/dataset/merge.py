"""The merge stage: the shards of several subsets become one list to train on and one to validate on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cosyflow import storage
from cosyflow.dataset.shard import DATA_LIST, open_shard, read_list
from cosyflow.errors import CosyFlowError
from cosyflow.stage import StageResult

TRAIN_LIST, DEV_LIST = "train.data.list", "dev.data.list"


def merge_lists(
    parquet_dirs_by_subset: Mapping[str, str], train_subsets: Sequence[str], dev_subsets: Sequence[str], output_dir: str
) -> StageResult:
    """Writes train.data.list and dev.data.list: the `data.list` of each subset, one after the other.

    Args:
        parquet_dirs_by_subset: the parquet stage's folder of each subset that there is; others than those below go into
            neither list.
        train_subsets, dev_subsets: names of subsets, in the order that the lists shall have.
        output_dir: local folder or URI.
    Raises:
        CosyFlowError: a subset is absent or named twice, its list is empty, or a shard in it is absent or damaged.
    """
    lists = {}
    utterances = {}
    for name, subsets in ((TRAIN_LIST, train_subsets), (DEV_LIST, dev_subsets)):
        lists[name] = _concatenate(name, parquet_dirs_by_subset, subsets)
        utterances[name] = sum(map(_count_rows, lists[name]))
    for name, shards in lists.items():
        storage.write_text(storage.join(output_dir, name), "".join(f"{shard}\n" for shard in shards))
    total = sum(utterances.values())
    return StageResult(
        counts={
            "inputs": total,
            "outputs": total,
            "rejects": 0,
            "train_utterances": utterances[TRAIN_LIST],
            "dev_utterances": utterances[DEV_LIST],
            "train_shards": len(lists[TRAIN_LIST]),
            "dev_shards": len(lists[DEV_LIST]),
        },
        files=list(lists),
    )


def _concatenate(name: str, directories: Mapping[str, str], subsets: Sequence[str]) -> list[str]:
    if not subsets:
        raise CosyFlowError(f"{name}: no subset is named for it")
    shards = []
    for place, subset in enumerate(subsets):
        if subset in subsets[:place]:
            raise CosyFlowError(f"{name}: the subset {subset} is named twice")
        if subset not in directories:
            known = ", ".join(sorted(directories)) or "none"
            raise CosyFlowError(f"{name}: there is no subset {subset}; there are: {known}")
        listing = storage.join(directories[subset], DATA_LIST)
        if not storage.exists(listing):
            raise CosyFlowError(
                f"{name}: {listing} of the subset {subset} does not exist; run the stage parquet for it"
            )
        shards += read_list(listing)
    return shards


def _count_rows(shard: str) -> int:
    with open_shard(shard) as file:
        return int(file.metadata.num_rows)
