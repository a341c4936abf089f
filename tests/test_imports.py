"""What is hidden while a library is imported, in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lora_trainer.imports import without


def test_a_hidden_package_counts_as_not_installed_and_comes_back():
    import importlib.util

    assert "colorsys" not in sys.modules or sys.modules.pop("colorsys")
    with without("colorsys"):
        assert importlib.util.find_spec("colorsys") is None
        with pytest.raises(ImportError):
            import colorsys
    import colorsys

    assert colorsys.rgb_to_hsv(1, 0, 0) == (0, 1, 1)


def test_a_package_that_is_imported_already_stays():
    with without("sys", "json.decoder"):
        import json

        assert json.loads("[1]") == [1]


def test_the_optimizers_of_bitsandbytes_can_be_had_after_a_training_run_was_imported():
    code = (
        "from lora_trainer.imports import UNUSED, without\n"
        "with without(*UNUSED):\n"
        "    import lora_trainer.training.loop, sys\n"
        "assert 'bitsandbytes' not in sys.modules and 'peft' not in sys.modules\n"
        "import bitsandbytes.optim\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
