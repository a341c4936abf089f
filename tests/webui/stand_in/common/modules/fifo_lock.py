"""First come, first served; not re-entrant. `acquire` waits without a limit of time."""

from __future__ import annotations

import threading


class FIFOLock:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._given = self._served = 0  # turns

    def acquire(self, blocking: bool = True) -> bool:
        with self._changed:
            if not blocking and self._given != self._served:
                return False
            turn, self._given = self._given, self._given + 1
            return self._changed.wait_for(lambda: self._served == turn)

    def release(self) -> None:
        with self._changed:
            self._served += 1
            self._changed.notify_all()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()
