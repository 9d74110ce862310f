"""Settings of the corpus and of what the training reads from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CorpusConf:
    """Which subsets there are and what each is for. Test subsets are prepared and go into neither list."""

    data_url: str = "https://www.openslr.org/resources/60"
    """Where `SUBSET.tar.gz` and `md5sum.txt` are."""
    train_subsets: tuple[str, ...] = ("train-clean-100", "train-clean-360", "train-other-500")
    dev_subsets: tuple[str, ...] = ("dev-clean", "dev-other")
    test_subsets: tuple[str, ...] = ("test-clean", "test-other")

    def __post_init__(self) -> None:
        for name in ("train_subsets", "dev_subsets"):
            if not getattr(self, name):
                raise ValueError(f"{name}: at least one subset is needed")
        every = self.train_subsets + self.dev_subsets + self.test_subsets
        twice = sorted({subset for subset in every if every.count(subset) > 1})
        if twice:
            raise ValueError(f"train_subsets: {twice[0]} is named twice among the train, dev and test subsets")


@dataclass(frozen=True, kw_only=True)
class FilterConf:
    """Which utterances are trained on; all bounds are inclusive. One frame is 10 ms of audio."""

    max_length: int = 6000
    """Frames."""
    min_length: int = 100
    """Frames."""
    token_max_length: int = 200
    """Text tokens."""
    token_min_length: int = 1
    """Text tokens."""
    min_output_input_ratio: float = 0.0005
    """Text tokens a frame."""
    max_output_input_ratio: float = 1.0
    """Text tokens a frame."""

    def __post_init__(self) -> None:
        bounds = (
            ("min_length", "max_length"),
            ("token_min_length", "token_max_length"),
            ("min_output_input_ratio", "max_output_input_ratio"),
        )
        for low, high in bounds:
            if not 0 <= getattr(self, low) <= getattr(self, high):
                raise ValueError(f"{low}: {getattr(self, low)} is not between 0 and {high} ({getattr(self, high)})")
