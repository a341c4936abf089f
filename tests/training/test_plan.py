"""What a plan knows of a base and its files before a weight is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lora_trainer.config import BadInput, Config, Subset
from lora_trainer.inspecting.parts import PARTS
from lora_trainer.training.plan import make_plan
from tests.flux_files import make_flux


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Subset, ...]:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "pictures" / "a.png")
    return (Subset(str(tmp_path / "pictures")),)


@pytest.mark.parametrize(("variant", "length"), [("dev", 512), ("schnell", 256)])
def test_a_flux_base_gets_its_parts_and_its_length(
    tmp_path: Path, pictures: tuple[Subset, ...], variant: str, length: int
) -> None:
    files = make_flux(tmp_path / "flux", variant)
    base = str(files.transformer)
    plan = make_plan(Config(base_model=base, subsets=pictures, output_name="x", resolution=(64, 64), buckets=False))

    assert plan.base.parts == files.parts and plan.base.variant == variant
    assert {part: getattr(plan.config, part) for part in PARTS} == {part: str(files.parts[part]) for part in PARTS}
    assert (plan.config.family, plan.config.t5_length) == ("flux", length)


def test_every_missing_part_is_named_with_what_else_is_wrong(tmp_path: Path) -> None:
    files = make_flux(tmp_path / "flux")
    files.t5xxl.unlink()
    files.t5_tokenizer.unlink()
    with pytest.raises(BadInput) as caught:
        make_plan(Config(base_model=str(files.transformer), output_name="x", clip_l=str(files.ae), rank=0))

    told = {problem.setting for problem in caught.value.problems}
    assert told == {"t5xxl", "t5_tokenizer", "clip_l", "rank", "subsets"}
