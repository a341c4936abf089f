"""A program that supervises a queue until it is killed: `python stub_host.py FOLDER`; with `lease`, for the GPU."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lora_trainer.hosts.alone import NoHost
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.supervisor import Supervisor

STUB = Path(__file__).with_name("stub_worker.py")


def command(python: str, folder: Path) -> list[str]:
    return [python, str(STUB), str(folder)]


def main() -> None:
    supervisor = Supervisor(Queue(Path(sys.argv[1])), NoHost(name="the stub"), 0.01, command)
    supervisor.start()
    print(supervisor.watching or "supervises", flush=True)
    if "lease" in sys.argv:
        sys.stdin.readline()
        with supervisor.gpu_for_host(30) as freed:
            print(freed, flush=True)
            time.sleep(600)
    time.sleep(600)


if __name__ == "__main__":
    main()
