"""Show the tab as a page of its own in the browser, without a WebUI; Ctrl-C ends it, and what trains goes on."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import webbrowser
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from lora_trainer import packages
from lora_trainer.commands.queued import running_job
from lora_trainer.config import BadInput, Problem
from lora_trainer.hosts.standalone import Standalone
from lora_trainer.jobs.queue import Queue

LIST = packages.ROOT / "lora_trainer" / "serving" / "web_packages.txt"
KNOWN = ("3.41.", "4.")  # versions of gradio that the tab was tried in
OPEN_TO_ALL = (
    "Everybody who can reach this machine can use this page: train, see the pictures, delete LoRAs."
    " With --auth USER:PASSWORD it asks for a password."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=7861, help="of the page's address, 0 for any that is free (7861)")
    parser.add_argument("--listen", action="store_true", help="to other machines, too")
    parser.add_argument(
        "--auth", type=user, action="append", default=[], metavar="USER:PASSWORD", help="ask for it; may be repeated"
    )
    parser.add_argument(
        "--folder", type=Path, default=packages.ROOT, help="of models, datasets and jobs (the extension's own)"
    )
    parser.add_argument(
        "--python", default=sys.executable, metavar="PROGRAM", help="the Python that trains, if it is another one"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def user(text: str) -> tuple[str, str]:
    """For argparse: a name and a password."""
    name, colon, password = text.partition(":")
    if not (name and colon and password):
        raise argparse.ArgumentTypeError(f"{text!r} is no USER:PASSWORD")
    return name, password


def run(arguments: argparse.Namespace) -> int:
    door = listening(arguments.port, arguments.listen)
    address = f"http://{'localhost' if arguments.listen else '127.0.0.1'}:{door.getsockname()[1]}/"
    get_gradio()
    from lora_trainer.serving.server import Door, serve

    host = Standalone(folder=arguments.folder.expanduser().absolute(), python=arguments.python)
    host.set_up()
    queue = Queue(host.folder / "jobs")

    def ready() -> None:
        print(f"The page is at {address} (Ctrl-C ends it).", flush=True)
        if arguments.listen and not arguments.auth:
            print(OPEN_TO_ALL, file=sys.stderr, flush=True)
        if arguments.open:
            webbrowser.open(address)

    with suppress(KeyboardInterrupt):  # the server has ended already
        serve(host, queue, Door(door, arguments.listen, dict(arguments.auth)), ready)
    if job := running_job(queue):
        print(f"Job {job.id} goes on by itself; `serve` and `queue start` watch it again.", file=sys.stderr)
    queue.close()
    return 0


def listening(port: int, remotely: bool) -> socket.socket:
    """A socket of that port. BadInput where another program has it."""
    door = socket.socket()
    if sys.platform != "win32":  # where it would share the port with another program
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind(("0.0.0.0" if remotely else "127.0.0.1", port))
        door.listen()
    except (OSError, OverflowError) as error:
        door.close()
        raise BadInput(Problem("port", port, f"cannot be had ({error})", "Name another with --port.")) from error
    return door


def get_gradio() -> None:
    """Makes gradio importable: the running Python's own, or else one in a private folder. PackageProblem."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    found = next((str(found.version) for found in metadata.distributions(name="gradio")), "")
    if not found.startswith(KNOWN):
        folder = packages.Folder(packages.WEB, packages.read_list(LIST), with_dependencies=True)
        packages.install(folder)
        sys.path.insert(0, str(folder.path))
