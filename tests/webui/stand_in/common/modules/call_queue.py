"""One thing at a time has the GPU."""

from __future__ import annotations

import html
from functools import wraps

from modules import errors, fifo_lock, shared

queue_lock = fifo_lock.FIFOLock()


def wrap_queued_call(func):
    def queued(*args, **kwargs):
        with queue_lock:
            return func(*args, **kwargs)

    return queued


def wrap_gradio_gpu_call(func, extra_outputs=None):
    @wraps(func)
    def queued(*args, **kwargs):
        with queue_lock:
            shared.state.begin(job="task")
            result = func(*args, **kwargs)
            shared.state.end()
        return result

    return wrap_gradio_call_no_job(queued, extra_outputs)


def wrap_gradio_call_no_job(func, extra_outputs=None, add_stats=False):
    """The last output is HTML, which tells an error."""

    @wraps(func)
    def told(*args, **kwargs):
        try:
            return tuple(func(*args, **kwargs))
        except Exception as error:  # noqa: BLE001
            errors.report("Error completing request", exc_info=True)
            words = html.escape(f"{type(error).__name__}: {error}")
            return (*(extra_outputs or [None, ""]), f"<div class='error'>{words}</div>")

    return told


wrap_gradio_call = wrap_gradio_call_no_job
