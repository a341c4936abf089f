"""A host process that can be killed: `python -m benchmarks.faults.host QUEUE` supervises a queue and does as its
standard input says, a word a line. `lend` takes the GPU from the job until `back`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

from benchmarks.faults.jobs import environment
from lora_trainer.hosts.alone import NoHost
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.supervisor import Supervisor

POLL = 0.1  # seconds
TIMEOUT = 120.0  # seconds in which a job gives the GPU away


class HostProcess:
    """Such a process, started; as a context it is ended by the end of its input, as a WebUI that is closed."""

    def __init__(self, queue: Path):
        command = [sys.executable, "-m", "benchmarks.faults.host", str(queue)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), encoding="utf-8"
        )
        self.expect("ready")

    def __enter__(self) -> HostProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()

    def expect(self, word: str) -> None:
        """Waits for the next word that it says: `ready`, `lent` or `back`. RuntimeError where it says another one."""
        assert self._process.stdout
        said = self._process.stdout.readline().strip()
        if said != word:
            raise RuntimeError(f"the host process said {said!r} instead of {word!r}")

    def say(self, word: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    supervisor = Supervisor(Queue(Path(sys.argv[1])), NoHost(), poll=POLL)
    supervisor.start()
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "lend":
            with supervisor.gpu_for_host(TIMEOUT):
                print("lent", flush=True)
                sys.stdin.readline()
            print("back", flush=True)
    supervisor.close()


if __name__ == "__main__":
    main()
