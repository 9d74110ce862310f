"""The merge stage: the shards of several subsets become one list to train on and one to validate on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cosyflow import storage
from cosyflow.dataset.shard import DATA_LIST, open_shard, read_columns, read_list
from cosyflow.errors import CosyFlowError
from cosyflow.progress import say
from cosyflow.stage import StageResult

TRAIN_LIST, DEV_LIST = "train.data.list", "dev.data.list"


def merge_lists(
    parquet_dirs_by_subset: Mapping[str, str], train_subsets: Sequence[str], dev_subsets: Sequence[str], output_dir: str
) -> StageResult:
    """Writes train.data.list and dev.data.list: the `data.list` of each subset, one after the other.

    Args:
        parquet_dirs_by_subset: the parquet stage's folder of each subset that there is; others than those below go into
            neither list.
        train_subsets, dev_subsets: names of subsets, in the order that the lists shall have. Without any to validate on
            that list is empty.
        output_dir: local folder or URI.
    Raises:
        CosyFlowError: a subset is absent or named twice, its list is empty, or a shard in it is absent or damaged.
    """
    lists = {}
    rows = {}
    for name, subsets in ((TRAIN_LIST, train_subsets), (DEV_LIST, dev_subsets)):
        lists[name] = _concatenate(name, parquet_dirs_by_subset, subsets)
        rows[name] = _Rows.of(lists[name])
    train, dev = rows[TRAIN_LIST], rows[DEV_LIST]
    for name, shards in lists.items():
        storage.write_text(storage.join(output_dir, name), "".join(f"{shard}\n" for shard in shards))
    in_both = len(train.utterances & dev.utterances)
    if in_both:
        say("merge", f"warning: {in_both} of {dev.count} utterances to validate on are trained on too")
    total = train.count + dev.count
    return StageResult(
        counts={
            "inputs": total,
            "outputs": total,
            "rejects": 0,
            "train_utterances": train.count,
            "dev_utterances": dev.count,
            "train_shards": len(lists[TRAIN_LIST]),
            "dev_shards": len(lists[DEV_LIST]),
        },
        files=list(lists),
        details={
            "train_speakers": len(train.speakers),
            "dev_speakers": len(dev.speakers),
            "speakers": len(train.speakers | dev.speakers),
            "utterances_in_both": in_both,
        },
    )


@dataclass(frozen=True)
class _Rows:
    """What the shards of a list hold."""

    count: int
    utterances: set[str]
    speakers: set[str]

    @classmethod
    def of(cls, shards: Sequence[str]) -> _Rows:
        count = 0
        names: dict[str, set[str]] = {"utt": set(), "spk": set()}
        for shard in shards:
            with open_shard(shard) as file:
                count += int(file.metadata.num_rows)
                table = read_columns(shard, file, [name for name in names if name in file.schema_arrow.names])
            for name in table.column_names:
                names[name].update(table[name].unique().to_pylist())
        return cls(count, names["utt"], names["spk"])


def _concatenate(name: str, directories: Mapping[str, str], subsets: Sequence[str]) -> list[str]:
    if not subsets and name == TRAIN_LIST:
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
