"""Called by the WebUI at each of its starts, in the WebUI's Python: says what is missing and installs nothing there."""

import sys

OLDEST, NEWEST = (3, 10), (3, 13)


def main() -> None:
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        print(f"LoRA trainer: Python 3.10 to 3.13 is needed, this is {sys.version.split()[0]}.")
        return
    from lora_trainer import packages

    try:
        packages.activate()
    except packages.PackageProblem as problem:
        print(f"LoRA trainer: {problem}")


main()
