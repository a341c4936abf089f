"""What the routes shaped like AWS's have in common: https://github.com/awslabs/stable-diffusion-aws-extension.

Every answer is {"statusCode", "debug", "data", "message"}; what is wrong stands in the message, with status 400.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping
from typing import Any

from fastapi import Request, Response

from lora_trainer.api.answers import Answer, Route, problem, status_and_sentence
from lora_trainer.api.bodies import Body, fields, number

WORDS = {200: "OK", 201: "Created", 202: "Accepted"}
DEBUG = {"function_url": None, "log_url": None, "trace_url": None}  # there are no functions of a cloud behind these
PAGE = 10
MOST_IN_PAGE = 1000


class AwsRoute(Route):
    """422 and 409 are 400 there."""

    def told(self, error: Exception) -> Response:
        status, sentence = status_and_sentence(error)
        status = 400 if status in (409, 415, 422) else status
        return shaped(status, None, sentence, getattr(error, "headers", None))


def shaped(status: int, data: Any, message: str = "", headers: dict[str, str] | None = None) -> Response:
    body = {"statusCode": status, "debug": DEBUG, "data": data, "message": message or WORDS[status]}
    return Answer({name: value for name, value in body.items() if value is not None}, status, headers)


def required(body: Body, kinds: Mapping[str, type], names: Collection[str]) -> Body:
    """What is known of the body's keys. BadInput, in that API's own words where one of `names` is missing."""
    missing = [name for name in names if name not in body]
    if missing:
        said = f"object has missing required properties ({json.dumps(sorted(missing))})"
        raise problem("body", None, said, "Give them.")
    return fields({name: value for name, value in body.items() if name in kinds}, kinds)


def names_in(body: Body, key: str, most: int) -> list[str]:
    """The list of names or ids to delete, each once."""
    names = required(body, {key: list}, (key,))[key]
    if not 0 < len(names) <= most or not all(isinstance(name, str) for name in names):
        raise problem(key, None, f"must be a list of 1 to {most} texts", "Give one.")
    return list(dict.fromkeys(names))


def page_of(request: Request) -> tuple[int, str]:
    """How many to list, and the key after which the list goes on ("" for its beginning)."""
    limit = number(request, "limit", PAGE, MOST_IN_PAGE)
    if not limit:
        raise problem("limit", limit, "must be 1 or more", "Leave it out for 10.")
    text = request.query_params.get("exclusive_start_key", "")
    try:
        key = json.loads(base64.b64decode(text, validate=True).decode("utf-8")) if text else {"id": ""}
        if not isinstance(key, dict) or not isinstance(key.get("id"), str):
            raise ValueError("holds no id")
    except (ValueError, RecursionError):
        raise problem("exclusive_start_key", text, "is no key of a list", "Use a last_evaluated_key.") from None
    return limit, str(key["id"])


def last_key(id: str | None) -> str | None:
    """What the answer says where a list goes on."""
    return base64.b64encode(json.dumps({"id": id}).encode("ascii")).decode("ascii") if id is not None else None
