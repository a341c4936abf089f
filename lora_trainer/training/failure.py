"""What ends a run that its settings allowed."""

from __future__ import annotations


class TrainingFailed(Exception):
    """One sentence with the cause, one with what to do; what was saved before stays. `reason`: a word for programs."""

    def __init__(self, cause: str, remedy: str, reason: str = "failed"):
        super().__init__(f"{cause} {remedy}")
        self.cause, self.remedy, self.reason = cause, remedy, reason
