"""Pictures are made in the main thread, one after the other."""

from __future__ import annotations

import queue
import threading
import traceback

last_exception = None
_waiting: queue.Queue = queue.Queue()


class Task:
    def __init__(self, func, args, kwargs):
        self.func, self.args, self.kwargs = func, args, kwargs
        self.result, self.done = None, threading.Event()

    def work(self):
        global last_exception
        try:
            self.result, last_exception = self.func(*self.args, **self.kwargs), None
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            last_exception = error
        self.done.set()


def loop():
    while True:
        _waiting.get().work()


def run_and_wait_result(func, *args, **kwargs):
    """None where it failed."""
    task = Task(func, args, kwargs)
    _waiting.put(task)
    task.done.wait()
    return task.result
