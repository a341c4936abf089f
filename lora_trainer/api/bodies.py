"""What a client sends, read with limits and checked before anything is done with it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any

from fastapi import Depends, Request

from lora_trainer.api.answers import Refused, problem
from lora_trainer.config import BadInput, Problem

MOST_BYTES = 1 << 20
MOST_BYTES_OF_FILES = 32 << 20
DEEPEST = 32
LARGEST = 1 << 63  # what SQLite and TOML hold
NUMBER = re.compile(r"\d{1,18}", re.ASCII)

Body = dict[str, Any]
KINDS = {
    str: "text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    int: "a whole number",
    float: "a number",
}


async def read_object(request: Request) -> Body:
    """The JSON object that a request holds. Refused (413, 415) or BadInput where it holds no such thing."""
    return await _object(request, MOST_BYTES)


async def read_files(request: Request) -> Body:
    """The same of a request that holds whole files."""
    return await _object(request, MOST_BYTES_OF_FILES)


async def _object(request: Request, most: int) -> Body:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise Refused(415, "Send the request as JSON, with the header Content-Type: application/json.")
    data = b"".join([block async for block in blocks(request, most)])
    value = _parsed(data)
    if not isinstance(value, dict):
        raise problem("body", None, "is not a JSON object", "Send one {...}.")
    return value


async def read_options(request: Request) -> Body:
    """The same of a request that may also hold nothing at all."""
    length = request.headers.get("content-length", "0")
    empty = length == "0" and "transfer-encoding" not in request.headers
    return {} if empty else await read_object(request)


OBJECT = Depends(read_object)
FILES = Depends(read_files)
OPTIONS = Depends(read_options)


async def blocks(request: Request, most: int) -> AsyncIterator[bytes]:
    """The request's bytes as they come. Refused (413) once there are more than `most`."""
    too_large = Refused(413, f"The request is larger than {most >> 10} KiB, and is not taken.")
    announced = request.headers.get("content-length", "0")
    if not NUMBER.fullmatch(announced) or int(announced) > most:
        raise too_large
    count = 0
    async for block in request.stream():
        count += len(block)
        if count > most:
            raise too_large
        yield block


def fields(body: Mapping[str, Any], kinds: Mapping[str, type], required: Collection[str] = ()) -> Body:
    """The body, every key of which is known and of its kind. Raises BadInput with all that is wrong."""
    remedy = f"Use {', '.join(kinds)}." if kinds else "Leave it out."
    faults = [Problem(key, body[key], "is not known here", remedy) for key in body if key not in kinds]
    for name, kind in kinds.items():
        if name not in body and name in required:
            faults.append(Problem(name, None, "is missing", f"Give {KINDS[kind]}."))
        elif name in body and not _is(body[name], kind):
            faults.append(Problem(name, body[name], f"must be {KINDS[kind]}", f"Give {KINDS[kind]}."))
    if faults:
        raise BadInput(faults)
    return dict(body)


def number(request: Request, name: str, default: int | None, most: int = LARGEST - 1) -> int | None:
    """A whole number of the address's query, `default` where there is none. Raises BadInput."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not NUMBER.fullmatch(text) or int(text) > most:
        raise problem(name, text, f"must be a whole number from 0 to {most}", "Give one, or leave it out.")
    return int(text)


def job_number(text: str) -> int:
    """The number of a job in an address. Refused (404) where that is no number."""
    if not NUMBER.fullmatch(text):
        raise Refused(404, f"There is no job {text[:80]!r}: jobs have numbers.")
    return int(text)


def _parsed(data: bytes) -> Any:
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise problem("body", None, "is not in UTF-8", "Send it in UTF-8.") from None
    except RecursionError:
        raise problem("body", None, "is nested too deeply", "Send a plainer one.") from None
    except ValueError as error:
        raise problem("body", None, f"is not JSON ({error})", "Correct it.") from None
    if fault := next(_faults(value), None):
        raise problem("body", None, fault, "Correct it.")
    return value


def _faults(value: Any) -> Iterator[str]:
    """What JSON can say and files, databases and other programs cannot hold."""
    pending = [(value, 0)]
    while pending:
        found, depth = pending.pop()
        if depth > DEEPEST:
            yield "is nested too deeply"
        elif isinstance(found, dict):
            pending += [(inner, depth + 1) for pair in found.items() for inner in pair]
        elif isinstance(found, list):
            pending += [(inner, depth + 1) for inner in found]
        elif isinstance(found, str) and ("\0" in found or not found.isprintable() and _is_broken(found)):
            yield "has a text with a NUL or half a letter in it"
        elif isinstance(found, float) and not math.isfinite(found):
            yield "has a number that is not finite"
        elif isinstance(found, int) and not -LARGEST < found < LARGEST:
            yield "has a number that 64 bits do not hold"


def _is_broken(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _is(value: Any, kind: type) -> bool:
    """JSON's 1 is a number, too; its true is none."""
    kinds = (int, float) if kind is float else (kind,)
    return isinstance(value, kinds) and not (int in kinds and isinstance(value, bool))
