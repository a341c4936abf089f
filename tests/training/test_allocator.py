"""What the process gives back to the system, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

MEASURE = """
import resource, torch
from lora_trainer.training.allocator import give_back_memory, keep_freed_memory
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def pages_of_a_block():
    start = faults()
    torch.ones(12 * 2**20)
    return faults() - start
{before}
print(min(pages_of_a_block() for _ in range(60)))  # the heap takes a while to settle
"""


def faults_of_a_block_taken_again(before: str) -> int:
    code = MEASURE.format(before=before)
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_a_freed_block_is_taken_again_without_asking_the_system():
    pages = 48 * 2**20 // 4096
    assert faults_of_a_block_taken_again("") > pages / 2
    assert faults_of_a_block_taken_again("keep_freed_memory()") < pages / 10


def test_giving_back_is_harmless_anywhere():
    from lora_trainer.training.allocator import give_back_memory, keep_freed_memory

    keep_freed_memory()
    give_back_memory()
