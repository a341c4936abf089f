"""What a person reads of a run's events."""

from __future__ import annotations

import pytest

from lora_trainer.commands.progress import Bar
from lora_trainer.training.ladder import Saving


def test_a_saving_and_an_end_that_only_published_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar("adjusted", **Saving("fp8", "base_precision", "auto", "fp8", "Memory is short: held in 8 bits.").facts())
    bar("finished", lora="out/zdm.safetensors")
    bar.close()
    told = capsys.readouterr().err
    assert "Memory is short: held in 8 bits." in told and "Finished: out/zdm.safetensors" in told
