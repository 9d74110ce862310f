"""Log-probabilities of pairs under the reference model of DPO: computed once, kept in a file, looked up from then on.

Every pair is measured in each layout that it can have, so that every epoch can draw its layouts anew without the
reference model, and policy and reference always see the same sequences.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cosyflow import storage
from cosyflow.config.llm import LMConfig
from cosyflow.dataset.loader import Reader, build_loader
from cosyflow.dataset.plan import Batching, plan_epoch
from cosyflow.dataset.reader import Utterance
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.errors import CosyFlowError
from cosyflow.models.llm.batch import PackedBatch
from cosyflow.training.planned_data import LoaderSettings
from cosyflow.training.ranks import Ranks

PairCollate = Callable[[Sequence[Utterance]], PackedBatch | None]


@dataclass(frozen=True)
class Reference:
    """The reference model of a run, and where to keep what it says."""

    uri: str
    """Its official weights."""
    build: Callable[[], torch.nn.Module]
    """Makes the model, on the device of the run; called only where something is to be measured."""
    directory: str
    """Folder of the files; a resumed run finds them there."""
    log: Callable[[str], None]


@dataclass(frozen=True, eq=False)
class ReferenceTable:
    """What the reference says of a set of pairs. It can be pickled."""

    key: str
    """Identifies model, settings and pairs."""
    values: np.ndarray
    """float32 [pairs, layouts, 2], log-probability of the chosen and of the rejected sequence; the layouts are plain
    and, for a model that has it, interleaved."""
    rows: Mapping[str, int]
    """Place of each utterance in `values`."""

    def look_up(self, utterances: Sequence[str], interleaved: np.ndarray) -> np.ndarray:
        """Those of a batch: float32 [2 * utterances], the chosen sequences, then the rejected ones.

        Args:
            utterances: their names.
            interleaved: bool [utterances], whether interleaving was drawn.
        """
        places = [self.rows[name] for name in utterances]
        layouts = np.minimum(interleaved.astype(np.int64), self.values.shape[1] - 1)
        pairs: np.ndarray = self.values[places, layouts].T.reshape(-1)  # [P, 2] -> [2P]
        return pairs


def reference_tables(
    reference: Reference,
    readers: Sequence[Reader[Utterance]],
    layouts: Sequence[PairCollate],
    config: LMConfig,
    batching: Batching,
    ranks: Ranks,
    loader: LoaderSettings,
) -> list[ReferenceTable]:
    """A table for each reader, equal on every rank: from its file, else measured by all ranks together and written.

    Args:
        reference: the model.
        readers: of pairs.
        layouts: make a batch in one layout each.
        config: settings of the model.
        batching: how pairs are packed.
        ranks: this process among the others.
        loader: how batches are read.

    Raises:
        CosyFlowError: the reference gives a log-probability that is not finite, or a name occurs twice.
    """
    rows = [_rows(reader.index) for reader in readers]
    keys = ranks.share(lambda: _keys(reference, readers, config, len(layouts)))
    files = [storage.join(reference.directory, f"reference_{key[:16]}.npy") for key in keys]
    shapes = [(len(reader.index), len(layouts), 2) for reader in readers]
    kept = ranks.share(lambda: [_read(file, shape) for file, shape in zip(files, shapes, strict=True)])
    model = None
    tables = []
    for key, file, reader, values, places in zip(keys, files, readers, kept, rows, strict=True):
        if values is None:
            model = model or reference.build().eval()
            reference.log(f"measures {len(reader.index)} pairs with the reference {reference.uri}")
            values = _measure(model, reader, layouts, batching, ranks, loader)
            if ranks.is_first:
                _write(file, values)
        tables.append(ReferenceTable(key, values, places))
    return tables


@torch.no_grad()
def _measure(
    model: torch.nn.Module,
    reader: Reader[Utterance],
    layouts: Sequence[PairCollate],
    batching: Batching,
    ranks: Ranks,
    loader: LoaderSettings,
) -> np.ndarray:
    """float32 [pairs, layouts, 2] of all pairs of the reader, of which this rank computes its share."""
    index = reader.index
    share = plan_epoch(index, 0, 0, batching, shuffle=False).share(ranks.rank, ranks.world_size)
    values = np.zeros((len(index), len(layouts), 2), np.float32)
    for layout, collate in enumerate(layouts):
        batches = build_loader(
            share,
            reader,
            collate,
            num_workers=loader.num_workers,
            prefetch=loader.prefetch,
            pin_memory=loader.pin_memory,
        )
        for rows, batch in zip(share, batches, strict=True):
            if batch is not None:
                output = model(batch.to(ranks.device, non_blocking=True), sequence_logprob=True)
                # [2P] -> [P, 2]
                values[rows, layout] = output.per_sequence_logprob.unflatten(0, (2, -1)).T.cpu().numpy()
    # every pair is of one rank and 0 at the others
    total: np.ndarray = np.stack(ranks.gather(values)).sum(axis=0)
    wrong = np.flatnonzero(~np.isfinite(total).all(axis=(1, 2)))
    if len(wrong):
        raise CosyFlowError(
            f"utterance {index.utts[wrong[0]]}: its log-probability under the reference model is not finite;"
            " look at --ref_model"
        )
    return total


def _rows(index: UtteranceIndex) -> dict[str, int]:
    rows = {name: row for row, name in enumerate(index.utts)}
    if len(rows) < len(index):
        name = next(name for row, name in enumerate(index.utts) if rows[name] != row)
        raise CosyFlowError(f"utterance {name}: is twice in the data; --dpo needs a name of its own for each")
    return rows


def _keys(reference: Reference, readers: Sequence[Reader[Utterance]], config: LMConfig, num_layouts: int) -> list[str]:
    model = repr((storage.digest(reference.uri), config, num_layouts))
    return [hashlib.sha256(f"{model} {_digest(reader.index)}".encode()).hexdigest() for reader in readers]


def _digest(index: UtteranceIndex) -> str:
    """Identifies the pairs of an index: their names, shards, texts and lengths."""
    digest = hashlib.sha256("\0".join(index.utts).encode())
    for shard in index.shards:
        digest.update(f"\0{shard}\0{storage.size(shard)}".encode())
    for table in (index.text, index.instruct):
        if table is not None:
            for row in range(len(index)):
                digest.update(table[row].tobytes())
    for numbers in (index.shard, index.row, index.text_len, index.speech_len, index.rejected_len, index.instruct_len):
        digest.update(np.ascontiguousarray(numbers).tobytes())
    return digest.hexdigest()


def _read(uri: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """What an earlier start of the run measured; None where there is no whole file of it."""
    if not storage.exists(uri):
        return None
    try:
        values: np.ndarray = np.load(io.BytesIO(storage.read_bytes(uri)), allow_pickle=False)
    except (ValueError, EOFError):
        return None
    return values if values.shape == shape and values.dtype == np.float32 else None


def _write(uri: str, values: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, values, allow_pickle=False)
    storage.write_bytes(uri, content.getvalue())
