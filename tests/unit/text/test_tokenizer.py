"""Tokenizers are built from the files of a pretrained directory, and agree with the engines that defined them."""

from __future__ import annotations

import base64
import pickle
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import Qwen2Tokenizer

from cosyflow.errors import CosyFlowError
from cosyflow.standins.text_models import make_qwen2_folder, make_whisper_ranks
from cosyflow.text.special_tokens import COSYVOICE2, COSYVOICE3, WHISPER
from cosyflow.text.tokenizer import Tokenizer, build_tokenizer

VERSIONS = ("cosyvoice", "cosyvoice2", "cosyvoice3")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pretrained")
    make_qwen2_folder(directory / "CosyVoice-BlankEN", seed=0)
    make_whisper_ranks(directory / "multilingual.tiktoken")
    return directory


@pytest.fixture(scope="module")
def tokenizers(directory: Path) -> dict[str, Tokenizer]:
    return {version: build_tokenizer(version, str(directory)) for version in VERSIONS}


@pytest.mark.parametrize("version", VERSIONS)
@given(text=st.text(st.characters(codec="utf-8", max_codepoint=0x9FFF), max_size=40))
@example(text="<|im_start|>")
def test_any_text_comes_back(tokenizers: dict[str, Tokenizer], version: str, text: str) -> None:
    expected = text if version == "cosyvoice" else unicodedata.normalize("NFC", text)
    ids = tokenizers[version].encode(text)
    assert tokenizers[version].decode(ids, skip_special_tokens=False) == expected


@pytest.mark.parametrize(("version", "special"), [("cosyvoice2", COSYVOICE2), ("cosyvoice3", COSYVOICE3)])
def test_ids_are_those_of_transformers(
    directory: Path, tokenizers: dict[str, Tokenizer], version: str, special: tuple[str, ...]
) -> None:
    oracle = Qwen2Tokenizer.from_pretrained(directory / "CosyVoice-BlankEN")
    oracle.add_special_tokens({"additional_special_tokens": list(special[1:])})
    ours = tokenizers[version]
    assert ours.vocab_size == len(oracle)
    texts = [
        "The night train's whistle, 1984: we'll WE'LL go\n\n  now!",
        "[laughter]oh <strong>no</strong> [j][ǐ][AA1] [Aa1]<|endofprompt|>x",
        "naïve café “quotes” 你好，世界 🙂 \t e\u0301",
        " ".join(special),
        "",
    ]
    assert ours.encode_batch(texts) == [ours.encode(text) for text in texts] == oracle(texts)["input_ids"]


def test_special_tokens_are_one_id_each_and_last(tokenizers: dict[str, Tokenizer]) -> None:
    for version, special in (("cosyvoice", WHISPER), ("cosyvoice2", COSYVOICE2), ("cosyvoice3", COSYVOICE3)):
        tokenizer = tokenizers[version]
        first = tokenizer.vocab_size - len(special)
        assert tokenizer.encode("".join(special)) == list(range(first, tokenizer.vocab_size))
        assert tokenizer.decode(range(first, tokenizer.vocab_size)) == ""
        assert tokenizer.token_id(special[-1]) == tokenizer.vocab_size - 1


def test_numbers_of_special_tokens_are_the_released_ones() -> None:
    assert (len(COSYVOICE2), len(COSYVOICE3), len(WHISPER)) == (151663 - 151643, 151924 - 151643, 51866 - 50257)


def test_folder_itself_may_be_named(directory: Path, tokenizers: dict[str, Tokenizer]) -> None:
    named = build_tokenizer("cosyvoice2", str(directory / "CosyVoice-BlankEN"))
    assert named.encode("one two") == tokenizers["cosyvoice2"].encode("one two")


def test_pickled_tokenizer_is_the_same(tokenizers: dict[str, Tokenizer]) -> None:
    copy = pickle.loads(pickle.dumps(tokenizers["cosyvoice3"]))  # noqa: S301 - our own bytes
    assert copy.encode("over [a] hill") == tokenizers["cosyvoice3"].encode("over [a] hill")


def test_ranks_merge_the_lowest_first(tmp_path: Path) -> None:
    pieces = [bytes([byte]) for byte in range(256)] + [b"bc", b"ab", b"abc", b"cd"]
    lines = [f"{base64.b64encode(piece).decode()} {rank}" for rank, piece in enumerate(pieces)]
    (tmp_path / "multilingual.tiktoken").write_text("\n".join([*lines, "= 260"]) + "\n")
    tokenizer = build_tokenizer("cosyvoice", str(tmp_path))
    assert tokenizer.encode("abc") == [258]
    assert tokenizer.encode("abcd") == [258, ord("d")]
    assert tokenizer.encode("cdab") == [259, 257]
    assert tokenizer.vocab_size == 261 + len(WHISPER)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(CosyFlowError, match=r"vocab\.json: no such file; copy CosyVoice-BlankEN from"):
        build_tokenizer("cosyvoice2", str(tmp_path))
    with pytest.raises(CosyFlowError, match=r"multilingual\.tiktoken: no such file; copy whisper/assets"):
        build_tokenizer("cosyvoice", str(tmp_path))
    with pytest.raises(CosyFlowError, match="no model family 'cosyvoice9'"):
        build_tokenizer("cosyvoice9", str(tmp_path))
    ranks = tmp_path / "multilingual.tiktoken"
    for content, reason in (
        ("YQ== 0\nbroken\n", "'broken' is not a token"),
        ("YQ== 0\nYg== 7\n", "ranks are not 0 to 1"),
    ):
        ranks.write_text(content)
        with pytest.raises(CosyFlowError, match=reason):
            build_tokenizer("cosyvoice", str(tmp_path))
