"""Picture folders whose names say how often their pictures are seen: `10_zunda`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PureWindowsPath

from lora_trainer.config.folder_name import repeats_and_class
from lora_trainer.config.settings import Subset


def parts_of(subset: Subset) -> Iterator[Subset]:
    """The subset with what its folder's name says; where the folder is there, one for each such folder in it.

    Repeats and class tokens that the subset states itself come first, as when it is trained on.
    """
    folder = Path(subset.folder).expanduser()
    inner = sorted(folder.iterdir()) if folder.is_dir() else []
    named = [path for path in inner if path.is_dir() and repeats_and_class(path.name)[0] > 0]
    for path in [str(path) for path in named] or [subset.folder]:
        repeats, class_tokens = repeats_and_class(PureWindowsPath(path).name)
        yield replace(
            subset,
            folder=path,
            repeats=subset.repeats or repeats or None,
            class_tokens=subset.class_tokens or class_tokens,
        )
