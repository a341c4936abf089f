"""Called by the WebUI at each of its starts, in the WebUI's Python, of which nothing is ever changed.

The tab offers to install the training packages into a folder of the extension. Here that is done only where somebody
has asked for it, by LORA_TRAINER_INSTALL=1 or in the WebUI's settings, as the WebUI starts no sooner than it is over.
"""

import json
import os
import sys
from pathlib import Path

OLDEST, NEWEST = (3, 10), (3, 13)
VARIABLE, OPTION = "LORA_TRAINER_INSTALL", "lora_trainer_install_at_start"


def main() -> None:
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        print(f"LoRA trainer: Python 3.10 to 3.13 is needed, this is {sys.version.split()[0]}.")
        return
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # an embedded Python does not look beside a script
    from lora_trainer import packages

    try:
        if asked():
            packages.ensure()
        elif sentence := packages.lacking():
            print(f"LoRA trainer: {sentence} The tab installs them.")
    except (packages.PackageProblem, OSError) as problem:
        print(f"LoRA trainer: {problem}")


def asked() -> bool:
    """Whether the packages are wanted before the WebUI starts."""
    if VARIABLE in os.environ:
        return os.environ[VARIABLE].lower() not in ("", "0", "false", "no")
    beside = Path(__file__).absolute().parent.parent.parent  # the folder of `extensions`, maybe of --data-dir
    for folder in (beside, Path.cwd()):
        try:
            return json.loads((folder / "config.json").read_text(encoding="utf-8")).get(OPTION) is True
        except (OSError, ValueError, AttributeError):
            continue
    return False


main()
