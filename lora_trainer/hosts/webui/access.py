"""Who may use our routes in the WebUI: whom its command line, its login and our settings let in."""

from __future__ import annotations

from typing import Any

from lora_trainer.hosts.webui import options

THIS_MACHINE = ("", "localhost", "127.0.0.1", "::1")


def access_of(app: Any) -> Any:
    """The Access to routes on the WebUI's app, which holds its login."""
    from modules import shared

    from lora_trainer.api import Access

    users = (getattr(shared.cmd_opts, "api_auth", None) or "").split(",")
    known = dict(pair.strip().split(":", 1) for pair in users if ":" in pair)
    return Access(known or None, app, _is_reached(shared.cmd_opts), bool(options.value("lora_trainer_open_to_all")))


def _is_reached(flags: Any) -> bool:
    """Whether other machines can reach the WebUI."""
    elsewhere = (getattr(flags, "server_name", None) or "") not in THIS_MACHINE
    return elsewhere or any(getattr(flags, name, None) for name in ("listen", "share", "ngrok"))
