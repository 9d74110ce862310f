"""A plan names every file that the run lacks, with where it comes from, and knows released files by their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from cosyflow.families import families, family
from cosyflow.families.parts import QWEN2_FOLDER
from cosyflow.pretrained import STAND_INS_MARK, SUMS
from cosyflow.run.plan import examine
from tests.documents import ROOT
from tests.unit.run.world import Refused, World

Refuse = Callable[..., Refused]
PAGE = (ROOT / "docs" / "pretrained.md").read_text(encoding="utf-8")
RELEASED = [(each.name, name) for each in families() if each.release for name in each.release.files]


def sums(world: World, *names: str) -> str:
    return "".join(f"{hashlib.sha256((world.pretrained / name).read_bytes()).hexdigest()}  {name}\n" for name in names)


def warnings(world: World, name: str) -> list[str]:
    return [line for line in examine(world.settings).warnings if f"/{name}: " in line]


def test_all_that_is_missing_is_told_with_where_it_comes_from(world: World, refused: Refuse) -> None:
    for name in ("campplus.onnx", "speech_tokenizer_v2.onnx", f"{QWEN2_FOLDER}/merges.txt"):
        (world.pretrained / name).unlink()
    lines = refused().problems["pretrained_dir"]
    place = "(FunAudioLLM/CosyVoice2-0.5B on Hugging Face, iic/CosyVoice2-0.5B on ModelScope)"
    assert len(lines) == 3
    for name in ("campplus.onnx", "speech_tokenizer_v2.onnx", "merges.txt"):
        assert [line for line in lines if f"{name}: no such file; copy " in line and place in line], name


def test_a_text_model_without_weights_is_missing_where_nothing_else_is_started_from(
    world: World, refused: Refuse
) -> None:
    (world.pretrained / QWEN2_FOLDER / "model.safetensors").unlink()
    examine(world.settings)  # it starts from llm.pt
    (world.pretrained / "llm.pt").unlink()
    (line,) = refused().problems["pretrained_dir"]
    assert f"{QWEN2_FOLDER}/model.safetensors: no such file" in line


def test_weights_that_are_not_there_are_warned_of_but_not_those_of_stand_ins(world: World) -> None:
    (world.pretrained / "llm.pt").unlink()
    (line,) = [line for line in examine(world.settings).warnings if line.startswith("checkpoint: ")]
    assert "has no llm.pt, so the llm does not start from released weights; copy llm.pt from " in line
    (world.pretrained / STAND_INS_MARK).write_text("{}")
    assert not [line for line in examine(world.settings).warnings if line.startswith("checkpoint: ")]


def test_a_file_that_is_not_the_released_one_is_warned_of(world: World) -> None:
    (line,) = warnings(world, "campplus.onnx")
    assert "is not the file of FunAudioLLM/CosyVoice2-0.5B on Hugging Face" in line
    assert family("cosyvoice2").release.files["campplus.onnx"].sha256 in line
    (world.pretrained / STAND_INS_MARK).write_text("{}")
    assert warnings(world, "campplus.onnx") == []


def test_a_list_of_ones_own_is_what_counts(world: World, refused: Refuse) -> None:
    listed = sums(world, "campplus.onnx", "llm.pt")
    (world.pretrained / SUMS).write_text(listed)
    assert warnings(world, "campplus.onnx") == warnings(world, "llm.pt") == []
    (world.pretrained / "llm.pt").write_text("cut")
    (line,) = refused().problems["pretrained_dir"]
    assert "llm.pt: SHA-256 " in line
    assert f"{SUMS} says {listed.split()[2]}; fetch the file again, or correct the list" in line


def test_a_list_that_is_none_is_refused(world: World, refused: Refuse) -> None:
    (world.pretrained / SUMS).write_text("campplus.onnx 1234\n")
    (line,) = refused().problems["pretrained_dir"]
    assert f"{SUMS}:1: not a digest and a name" in line


def test_files_of_stages_that_are_not_to_work_are_not_looked_at(world: World) -> None:
    examined = examine({**world.settings, "stop_stage": 1})
    assert [line for line in examined.warnings if "campplus.onnx" in line]
    assert not [line for line in examined.warnings if "llm.pt" in line or "speech_tokenizer" in line]


@pytest.mark.parametrize(("version", "name"), RELEASED)
def test_the_page_has_each_released_file(version: str, name: str) -> None:
    release = family(version).release
    file = release.files[name]
    section = PAGE.partition(f"## {release.name}\n")[2].partition("\n## ")[0]
    assert f"`{release.hugging_face}`" in section
    assert f"`{release.modelscope}`" in section
    assert (
        f"| `{name}` | {f'{file.size:,}' if file.size else '?'} | {f'`{file.sha256}`' if file.sha256 else '?'} |"
        in section
    )
