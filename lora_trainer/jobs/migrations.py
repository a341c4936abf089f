"""The queue's database, step by step: an older one is brought up by the steps that it lacks."""

from __future__ import annotations

import sqlite3

_JOBS = """
CREATE TABLE job (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL, base TEXT NOT NULL,
    output_folder TEXT NOT NULL, status TEXT NOT NULL, position INTEGER NOT NULL,
    created_at REAL NOT NULL, started_at REAL, ended_at REAL, attempts INTEGER NOT NULL, pid INTEGER,
    step INTEGER NOT NULL, steps INTEGER NOT NULL, epoch INTEGER NOT NULL, epochs INTEGER NOT NULL, loss REAL,
    lora TEXT NOT NULL, reason TEXT NOT NULL, cause TEXT NOT NULL, remedy TEXT NOT NULL, seen INTEGER NOT NULL
);
CREATE INDEX job_status ON job (status, position);
CREATE UNIQUE INDEX job_name ON job (output_folder, name COLLATE NOCASE)
    WHERE kind = 'train' AND status IN ('queued', 'running', 'paused');
"""
_MEASUREMENTS = """
CREATE TABLE measurement (
    at REAL NOT NULL, device TEXT NOT NULL, base TEXT NOT NULL, family TEXT NOT NULL, pixels INTEGER NOT NULL,
    rank INTEGER NOT NULL, train TEXT NOT NULL, precision TEXT NOT NULL, checkpointing INTEGER NOT NULL,
    optimizer TEXT NOT NULL, seconds_per_step REAL NOT NULL, start_seconds REAL NOT NULL, peak_mb REAL NOT NULL,
    accumulation INTEGER NOT NULL, spared TEXT NOT NULL
);
"""
MIGRATIONS = (_JOBS, _MEASUREMENTS)  # only ever added to: PRAGMA user_version counts those that were taken


def version_of(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def migrate(db: sqlite3.Connection) -> None:
    """Takes the steps that the database lacks; to be called within a transaction."""
    for number, step in enumerate(MIGRATIONS[version_of(db) :], version_of(db) + 1):
        for statement in step.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {number}")
