"""Containers and tables that are damaged in any way: an error that names the file, or rejects; never anything else."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.errors import CosyFlowError

from .conftest import Corpus, audio
from .test_layouts import tar


def parquet() -> bytes:
    stream = io.BytesIO()
    rows = [{"bytes": audio(n, "FLAC"), "path": f"{n}.flac"} for n in (1, 2)]
    pq.write_table(pa.table({"audio": rows, "text": ["One.", "Two."]}), stream)
    return stream.getvalue()


def arrow() -> bytes:
    stream = io.BytesIO()
    table = pa.table({"audio": [audio(1, "FLAC")], "text": ["One."]})
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


WHOLE = {
    "a.parquet": parquet(),
    "a.arrow": arrow(),
    "a.tar": tar({"1.txt": "One.", "1.flac": audio(1, "FLAC"), "2.json": '{"text": "Two."}', "2.wav": audio(2)}),
    "a.jsonl": "".join(json.dumps({"path": "x.wav", "text": f"Text {n}."}) + "\n" for n in range(3)).encode(),
    "a.csv": b"path,text\nx.wav,One.\ny.wav,Two.\n",
    "metadata.csv": b"x|One.|One.\ny|Two.|Two.\n",
    "segments": b"a x 0 0.1\nb x 0.1 0.2\n",
}


@pytest.mark.medium
@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(WHOLE)),
    damage=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=4),
    share=st.floats(0, 1),
)
def test_any_damage_is_an_error_or_rejects(
    tmp_path_factory: pytest.TempPathFactory, name: str, damage: list[tuple[float, bytes]], share: float
) -> None:
    root = tmp_path_factory.mktemp("damaged") / "corpus"
    corpus = Corpus(root, str(root))
    content = bytearray(WHOLE[name])
    for place, data in damage:
        start = int(place * len(content))
        content[start : start + len(data)] = data
    corpus.put(name, bytes(content[: int(share * len(content))]))
    corpus.put("x.wav", audio(1))
    if name == "segments":
        for table, lines in {"wav.scp": "x x.wav\n", "text": "a A.\nb B.\n", "utt2spk": "a s\nb s\n"}.items():
            corpus.put(table, lines)
    try:
        summary = corpus.run(within="" if name == "segments" else name)
    except CosyFlowError:
        return
    assert summary.taken
