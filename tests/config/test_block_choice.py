"""Texts that choose blocks: what they name, as sd-scripts reads them, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.config.block_choice import chosen_blocks


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("all", range(19)),
        ("none", ()),
        (" All ", range(19)),
        ("0-5,8", (0, 1, 2, 3, 4, 5, 8)),
        (" 3 , 1 - 2 ", (1, 2, 3)),
        ("18", (18,)),
        ("4-4", (4,)),
        ("2,2,0-3", (0, 1, 2, 3)),
    ],
)
def test_what_a_text_chooses(text: str, blocks: tuple[int, ...]) -> None:
    assert chosen_blocks(text, 19) == frozenset(blocks)


@given(st.frozensets(st.integers(0, 37), min_size=1))
def test_numbers_name_themselves(blocks: frozenset[int]) -> None:
    assert chosen_blocks(",".join(map(str, blocks)), 38) == blocks


@pytest.mark.parametrize("text", ["", "some", "1,,2", "5-3", "-1", "1-", "1.5", "0x1", "1;2", "all,1", "12345"])
def test_what_is_no_choice(text: str) -> None:
    with pytest.raises(ValueError, match="numbers such as 0-5,8"):
        chosen_blocks(text, 38)


@pytest.mark.parametrize("text", ["19", "0-19", "3,40-41"])
def test_a_block_that_is_not_there(text: str) -> None:
    with pytest.raises(ValueError, match="the last one is 18"):
        chosen_blocks(text, 19)
