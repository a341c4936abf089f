from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lora_trainer.inspecting import catalogue, describe
from lora_trainer.inspecting.catalogue import Catalogue
from tests.jobs.patience import until


def test_files_are_read_beside_and_known_later(small):
    known, bases = Catalogue(), [small(family).path for family in ("sd15", "sdxl")]

    assert set(known.look(bases)) == set(bases)
    until(lambda: None not in known.look(bases).values())

    assert known.look(bases) == {base: describe(base) for base in bases}


def test_a_file_is_read_again_only_when_it_has_changed(write, monkeypatch):
    read: list[Path] = []

    def described(path: Path) -> dict[str, str]:
        read.append(path)
        return {"kind": str(len(read))}

    monkeypatch.setattr(catalogue, "describe", described)
    known, file = Catalogue(), write({"decoder.conv_in.weight": (2, 4, 3, 3)})

    assert [known.read(file)["kind"], known.read(file)["kind"]] == ["1", "1"]
    os.utime(file, ns=(1, 1))
    assert known.look([file]) == {file: None}
    until(lambda: known.look([file]) == {file: {"kind": "2"}})
    assert read == [file, file]


def test_nobody_waits_for_a_slow_file(write, monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr(catalogue, "describe", lambda path: {"kind": "slow"} if go_on.wait(30) else {})
    known, file = Catalogue(), write({})

    assert [known.look([file]), known.look([file])] == [{file: None}] * 2
    go_on.set()
    until(lambda: known.look([file]) == {file: {"kind": "slow"}})


def test_what_is_no_model_is_told(tmp_path):
    (tmp_path / "page.safetensors").write_text("<html>", encoding="utf-8")

    facts = Catalogue().read(tmp_path / "page.safetensors")

    assert facts["kind"] == "" and "a web page" in facts["problem"]


def test_a_file_that_is_gone_is_told_at_once(tmp_path):
    (facts,) = Catalogue().look([tmp_path / "gone.safetensors"]).values()

    assert facts and "there is no such file" in facts["problem"]


def test_a_hash_is_known_once_it_was_asked_for_and_until_the_file_changes(tmp_path):
    known, file = Catalogue(), tmp_path / "a"
    file.write_bytes(b"abc")

    assert known.known_hash(file) == ""
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert (known.hash(file), known.known_hash(file)) == (sha, sha)
    file.write_bytes(b"abcd")
    assert known.known_hash(file) == ""


@pytest.mark.parametrize(
    ("tensor", "family", "kind"),
    [
        ("double_blocks.1.img_attn.qkv.weight", "flux", "only a piece of a Flux model"),
        ("joint_blocks.0.x", "sd3", "a Stable Diffusion 3 model, which can't be trained"),
    ],
)
def test_the_family_of_a_base_that_cannot_be_trained(write, tensor, family, kind):
    facts = describe(write({tensor: (2, 2)}))

    assert (facts["family"], facts["kind"]) == (family, kind)
