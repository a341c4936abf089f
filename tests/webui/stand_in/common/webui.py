"""Stands in for webui.py: the page is made, served, and made again at each "Reload UI"."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from modules import call_queue, localization, script_callbacks, scripts, sd_models, shared, timer, ui
from modules.api.api import Api, add_internal
from modules.ui_gradio_extensions import reload_javascript

startup_timer = timer.startup_timer


def main() -> None:
    startup_timer.record("launcher")
    Path(sd_models.model_path).mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    initialize()
    if shared.is_forge:
        from modules_forge import main_thread

        threading.Thread(target=webui, daemon=True).start()
        main_thread.loop()
    else:
        webui()


def initialize() -> None:
    """Once at the start, and again at each reload of the page."""
    sd_models.list_models()
    localization.list_localizations()
    with startup_timer.subcategory("load scripts"):
        scripts.load_scripts()
    if not shared.is_forge and not shared.cmd_opts.skip_load_model_at_start:
        threading.Thread(target=lambda: shared.sd_model).start()


def webui() -> None:
    asyncio.set_event_loop(asyncio.new_event_loop())  # Forge runs this in a thread, where gradio 4 looks for one
    shared.opts.onchange("sd_model_checkpoint", call_queue.wrap_queued_call(sd_models.reload_model_weights))
    while True:
        script_callbacks.before_ui_callback()
        startup_timer.record("scripts before_ui_callback")
        reload_javascript()
        shared.demo = ui.create_ui()
        startup_timer.record("create ui")
        shared.demo.queue(64)
        serve(shared.demo)
        print(f"Startup time: {startup_timer.summary()}.", flush=True)
        while shared.state.wait_for_server_command(timeout=5) != "restart":
            pass
        print("Restarting UI...", flush=True)
        shared.demo.close()
        time.sleep(0.5)
        startup_timer.reset()
        script_callbacks.app_reload_callback()
        script_callbacks.script_unloaded_callback()
        initialize()


def serve(demo) -> None:
    options = shared.cmd_opts
    app, *_ = demo.launch(
        share=options.share,
        server_name="0.0.0.0" if options.listen else None,
        server_port=options.port,
        auth=[tuple(pair.split(":", 1)) for pair in (options.gradio_auth or "").split(",") if pair] or None,
        prevent_thread_lock=True,
        allowed_paths=options.gradio_allowed_path,
        app_kwargs={"docs_url": "/docs", "redoc_url": "/redoc"},
    )
    startup_timer.record("gradio launch")
    app.user_middleware = [each for each in app.user_middleware if each.cls.__name__ != "CORSMiddleware"]
    app.middleware_stack = None
    add_internal(app)
    if options.api:
        Api(app, call_queue.queue_lock)
    startup_timer.record("add APIs")
    with startup_timer.subcategory("app_started_callback"):
        script_callbacks.app_started_callback(demo, app)
    timer.startup_record = startup_timer.dump()
