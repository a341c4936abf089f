"""Runs the tests in any supported Python, and sets up what they need first: `python tests [PART ...]`.

A part is a file or folder of tests, or a word in the names of the tests to run; options of pytest are passed on.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS.parent))

from lora_trainer import packages  # noqa: E402  # found by the line above, from whichever folder this is started

TOOLS = ("pytest", "hypothesis", "ruff", "mypy")


def set_up() -> None:
    """Makes the trainer's packages and the test tools importable, here and in child processes."""
    packages.ensure()
    if not (packages.is_installed() and all(map(importlib.util.find_spec, TOOLS))):
        tools = packages.Folder("tools", packages.read_list(TESTS / "packages.txt"), with_dependencies=True)
        # Their torch is the one that is there: pip would fetch another.
        originals = packages.Folder("originals", packages.read_list(TESTS / "originals.txt"), with_dependencies=False)
        for folder in (tools, originals):
            packages.install(folder)
            sys.path.insert(0, str(folder.path))
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # those of the running Python are none of ours
    packages.activate()  # before the tools on the path, which it leaves alone as they come before the Python's own
    os.environ.update(packages.environment_for_child())


def selection(words: list[str]) -> list[str]:
    """pytest's arguments for the parts named on the command line."""
    arguments, names = [], []
    for word in words:
        places = (place / word.partition("::")[0] for place in (Path.cwd(), TESTS.parent, TESTS))
        found = next((place for place in places if place.exists()), None)
        if word.startswith("-"):
            arguments.append(word)
        elif found:
            arguments.append("".join((str(found.resolve()), *word.partition("::")[1:])))
        else:
            names.append(word)
    return arguments + (["-k", " or ".join(names)] if names else [])


def main() -> int:
    arguments = selection(sys.argv[1:])
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests' models are so small that threads only cost time
    try:
        set_up()
    except packages.PackageProblem as problem:
        print(problem, file=sys.stderr)
        return 1
    import pytest

    os.chdir(TESTS.parent)
    return int(pytest.main(arguments))


if __name__ == "__main__":
    sys.exit(main())
