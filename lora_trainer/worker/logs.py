"""A job's curves and previews for TensorBoard, and its events as lines of its log."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lora_trainer.jobs.events import Report

_NOT_IN_THE_LOG = ("phase", "progress", "download", "heeded")


def told_to(*listeners: Report) -> Report:
    """A report that tells each of them."""

    def report(kind: str, /, **facts: Any) -> None:
        for listener in listeners:
            listener(kind, **facts)

    return report


def print_line(kind: str, /, **facts: Any) -> None:
    """Whatever does not come with every step or picture. A full disk, where the log lies, ends nothing."""
    if kind not in _NOT_IN_THE_LOG:
        told = ", ".join(f"{name} {value}" for name, value in facts.items())
        with suppress(OSError):
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {kind}: {told}", flush=True)


class Board:
    """A listener that writes TensorBoard's files into `folder`; a disk that refuses them ends nothing.

    tensorboardX's SummaryWriter is not used: it writes in a thread, which a full disk ends, and then waits for it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def __call__(self, kind: str, /, **facts: Any) -> None:
        with suppress(OSError):
            if kind == "started":
                self._begin(facts["step"])
            elif kind == "progress" and self._writer:
                rates = {f"rate/{number}": rate for number, rate in enumerate(facts["rates"])}
                curves = {"loss": facts["loss"], "loss average": facts["average"], **rates}
                self._add(facts["step"], *({"tag": tag, "simple_value": value} for tag, value in curves.items()))
            elif kind == "sample" and self._writer:
                self._add(facts["step"], _picture(Path(facts["path"]), f"preview {facts['number'] + 1}"))

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            if self._writer:
                self._writer.close()

    def _begin(self, step: int) -> None:
        """A file of this process's own. What others told of steps after `step` was lost with them and goes away."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(self._folder / "events"), f".{os.getpid()}")
        self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def _add(self, step: int, *values: dict[str, Any]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        self._write(step=step, summary=Summary(value=[Summary.Value(**value) for value in values]))

    def _write(self, **facts: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), **facts))
        self._writer.flush()


def _picture(path: Path, tag: str) -> dict[str, Any]:
    from PIL import Image
    from tensorboardX.proto.summary_pb2 import Summary

    with Image.open(path) as picture:
        width, height = picture.size
    image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=path.read_bytes())
    return {"tag": tag, "image": image}
