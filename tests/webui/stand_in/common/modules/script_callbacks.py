"""What extensions ask to be called for. A callback that fails is reported, and the others are called."""

from __future__ import annotations

from pathlib import Path

from modules import errors, timer

KINDS = ("ui_tabs", "app_started", "ui_settings", "before_ui", "model_loaded", "on_reload", "script_unloaded")
_callbacks = {kind: [] for kind in KINDS}


def clear_callbacks():
    for kept in _callbacks.values():
        kept.clear()


def _add(kind, act):
    _callbacks[kind].append(act)


def _call(kind, *args):
    answers = []
    for act in list(_callbacks[kind]):
        try:
            answers.append(act(*args))
            if kind == "app_started":
                timer.startup_timer.record(Path(act.__code__.co_filename).name)
        except Exception:  # noqa: BLE001
            errors.report(f"Error executing callback {kind} of {act.__module__}", exc_info=True)
    return answers


def on_ui_tabs(callback, *, name=None):
    _add("ui_tabs", callback)


def on_app_started(callback, *, name=None):
    _add("app_started", callback)


def on_ui_settings(callback, *, name=None):
    _add("ui_settings", callback)


def on_before_ui(callback, *, name=None):
    _add("before_ui", callback)


def on_model_loaded(callback, *, name=None):
    _add("model_loaded", callback)


def on_before_reload(callback, *, name=None):
    _add("on_reload", callback)


def on_script_unloaded(callback, *, name=None):
    _add("script_unloaded", callback)


def ui_tabs_callback():
    return [tab for tabs in _call("ui_tabs") for tab in tabs or []]


def app_started_callback(demo, app):
    _call("app_started", demo, app)


def ui_settings_callback():
    _call("ui_settings")


def before_ui_callback():
    _call("before_ui")


def model_loaded_callback(model):
    _call("model_loaded", model)


def app_reload_callback():
    _call("on_reload")


def script_unloaded_callback():
    _call("script_unloaded")
