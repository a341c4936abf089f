"""A run's events as a person or a machine reads them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lora_trainer.jobs.events import Report


@contextmanager
def listener(as_json: bool, show: type[Bar] | type[Phases]) -> Iterator[Report]:
    """One JSON object a line on standard output, or what `show` makes of it on standard error."""
    if as_json:
        yield print_json
        return
    bar = show()
    try:
        yield bar
    finally:
        bar.close()


def print_json(kind: str, /, **facts: Any) -> None:
    print(json.dumps({"event": kind, **facts}, ensure_ascii=False), flush=True)


class Phases:
    """A progress bar for each phase, one after the other; warnings are lines above it."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._name = ""

    def __call__(self, kind: str, /, **facts: Any) -> None:
        if kind == "phase":
            self._show(unit="picture", **facts)
        elif kind == "download":
            self._show(facts["name"], facts["done"], facts["total"], unit="B", unit_scale=True)
        elif kind == "warning":
            self.close()
            print(f"warning: {facts['message']}", file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._name = None, ""

    def _show(self, name: str, done: int, of: int, **look: Any) -> None:
        from tqdm import tqdm

        if name != self._name:
            self.close()
            self._bar = tqdm(desc=name, total=of, file=sys.stderr, dynamic_ncols=True, **look)
            self._name = name
        self._bar.update(done - self._bar.n)


class Bar:
    """A progress bar with step, loss, speed and time left; everything else is a line above it."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, kind: str, /, **facts: Any) -> None:
        show = getattr(self, f"_{kind}", None)
        if show:
            show(**facts)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _started(self, **run: Any) -> None:
        self._say(
            f"{run['name']}: {run['pictures']} pictures, {run['epochs']} epochs, {run['steps']} steps"
            f" on {run['base']} ({run['family']}), seed {run['seed']}"
        )
        if run["step"]:
            self._say(f"Going on after step {run['step']}.")
        self._open(run["steps"], run["step"])

    def _phase(self, name: str, done: int = 0, of: int = 0, **_: Any) -> None:
        self._open().set_description(f"{name} {done}/{of}" if of else name)

    def _progress(self, step: int, steps: int, epoch: int, epochs: int, average: float, **_: Any) -> None:
        bar = self._open(steps, step)
        bar.set_description(f"epoch {epoch}/{epochs}", refresh=False)
        bar.set_postfix(loss=f"{average:.4f}", refresh=False)
        bar.update(step - bar.n)

    def _open(self, steps: int | None = None, step: int = 0) -> Any:
        """The bar, made when something is first told; how many steps there are may be told later."""
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=steps, initial=step, unit="step", file=sys.stderr, dynamic_ncols=True)
        elif steps is not None and self._bar.total != steps:
            self._bar.reset(steps)
            self._bar.update(step)
        return self._bar

    def _saved(self, path: str, **_: Any) -> None:
        self._say(f"saved {path}")

    def _sample(self, path: str, **_: Any) -> None:
        self._say(f"preview {path}")

    def _paused(self, freed: int = 0, **_: Any) -> None:
        self._say(f"Paused; {freed / 2**20:.0f} MiB came off the GPU." if freed else "Paused.")

    def _resumed(self, **_: Any) -> None:
        self._say("Going on.")

    def _adjusted(self, sentence: str, **_: Any) -> None:
        self._say(sentence)

    def _warning(self, message: str, **_: Any) -> None:
        self._say(f"warning: {message}")

    def _stopped(self, step: int, steps: int, **_: Any) -> None:
        self._say(f"Stopped after step {step} of {steps} and saved; train again with the same config to go on.")

    def _finished(self, lora: str, seconds: float | None = None, peak_rss_mb: float = 0, **_: Any) -> None:
        self._open().refresh()
        took = "" if seconds is None else f" in {seconds:.0f} s, peak memory {peak_rss_mb:.0f} MiB"
        self._say(f"Finished{took}: {lora}")  # a worker that only had to publish trained nothing itself

    def _say(self, line: str) -> None:
        if self._bar is None:
            print(line, file=sys.stderr)
        else:
            self._bar.write(line, file=sys.stderr)
