"""The text tokenizers of the families: Whisper's byte-level BPE, and Qwen2's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.families import facet
from cosyflow.families.parts import QWEN2_FOLDER, QWEN2_TOKENIZER, WHISPER_RANKS
from cosyflow.pretrained import how_to_get
from cosyflow.text import special_tokens
from cosyflow.unexpected import reading

EMPTY_PIECE = "="  # the last line of the released rank file, a token of no bytes


class Tokenizer:
    """Turns text into token ids and back. It can be pickled, so data loading workers can have it."""

    def __init__(self, engine: tokenizers.Tokenizer, special: Sequence[str]) -> None:
        self._engine = engine
        engine.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self._engine.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """The token ids of a text; special tokens written out in it get their own ids."""
        ids: list[int] = self._engine.encode(text).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode`, for many texts at once on all cores."""
        return [encoding.ids for encoding in self._engine.encode_batch(list(texts))]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids."""
        text: str = self._engine.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def token_id(self, token: str) -> int:
        """The id of one token, e.g. "<|endofprompt|>". Raises CosyFlowError when the vocabulary lacks it."""
        number: int | None = self._engine.token_to_id(token)
        if number is None:
            raise CosyFlowError(f"the tokenizer has no token {token}")
        return number


def build_tokenizer(version: str, directory: str) -> Tokenizer:
    """Reads the tokenizer of a family.

    Args:
        version: the family.
        directory: the pretrained directory, local or s3://.
    Raises:
        CosyFlowError: there is no such family, or a file is missing or damaged.
    """
    tokenizer: Tokenizer = facet(version, "text").build_tokenizer(directory)
    return tokenizer


def qwen2_tokenizer(directory: str, special: Sequence[str]) -> Tokenizer:
    """Qwen2's tokenizer as transformers reads it, the folder's own special tokens included, with further ones.

    Args:
        directory: the pretrained directory, local or s3://, with the folder `CosyVoice-BlankEN` of `vocab.json` and
            `merges.txt`, or that folder itself.
        special: tokens that come after those of the folder, in the order of their ids.
    Raises:
        CosyFlowError: a file is missing or damaged.
    """
    from transformers import Qwen2Tokenizer

    inner = storage.join(directory, QWEN2_FOLDER)
    folder = inner if storage.exists(storage.join(inner, "vocab.json")) else directory
    for name in QWEN2_TOKENIZER:
        if not storage.exists(storage.join(folder, name)):
            raise CosyFlowError(f"{storage.join(folder, name)}: no such file; {how_to_get(QWEN2_FOLDER)}")
    with storage.local_copy(folder) as path, reading(folder, "a Qwen2 tokenizer", how_to_get(QWEN2_FOLDER)):
        engine = Qwen2Tokenizer.from_pretrained(path, local_files_only=True).backend_tokenizer
        return Tokenizer(engine, special)


def whisper_tokenizer(directory: str) -> Tokenizer:
    """Whisper's multilingual tokenizer, from `multilingual.tiktoken` of a pretrained directory, local or s3://.

    Raises:
        CosyFlowError: the file is missing or damaged.
    """
    path = storage.join(directory, WHISPER_RANKS)
    lines = [line for line in _read(path, WHISPER_RANKS).splitlines() if line]
    vocabulary = dict(_parse_rank(line, path) for line in lines)
    if sorted(vocabulary.values()) != list(range(len(lines))):
        raise CosyFlowError(f"{path}: the ranks are not 0 to {len(lines) - 1}, each once; copy the file again")
    with reading(path, "a tokenizer", how_to_get(WHISPER_RANKS)):
        engine = _byte_level_bpe(vocabulary, _merges(vocabulary))
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        return Tokenizer(engine, special_tokens.WHISPER)


def _parse_rank(line: str, path: str) -> tuple[str, int]:
    try:
        piece, rank = line.split()
        content = b"" if piece == EMPTY_PIECE else base64.b64decode(piece, validate=True)
        return to_byte_alphabet(content), int(rank)
    except (ValueError, binascii.Error) as error:
        raise CosyFlowError(f"{path}: {line[:40]!r} is not a token in base64 with its rank") from error


def _merges(vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Merge rules that do as ranks do: neighbours may join when the result is a token; the lowest rank goes first."""
    rules: list[tuple[str, str]] = []
    for token in sorted(vocabulary, key=vocabulary.__getitem__):
        cuts = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [(left, right) for left, right in cuts if left in vocabulary and right in vocabulary]
        rules += sorted(pairs, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return rules


def _byte_level_bpe(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    engine = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    engine.decoder = decoders.ByteLevel()
    return engine


def to_byte_alphabet(piece: bytes) -> str:
    """Bytes in the alphabet of byte-level BPE (GPT-2): printable Latin-1 as it is, the other bytes from U+0100 on."""
    return "".join(BYTE_ALPHABET[byte] for byte in piece)


def _byte_alphabet() -> list[str]:
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


BYTE_ALPHABET = _byte_alphabet()


def _read(path: str, source: str) -> str:
    if not storage.exists(path):
        raise CosyFlowError(f"{path}: no such file; {how_to_get(source)}")
    return storage.read_text(path)
