"""What is made from the settings for programs and for people."""

from __future__ import annotations

import json

from lora_trainer.config import PANELS, SETTINGS, schema, settings_table


def test_the_schema_is_json_with_every_setting() -> None:
    made = json.loads(json.dumps(schema()))
    assert set(made["properties"]) == set(SETTINGS)
    assert made["required"] == ["base_model", "subsets"] and made["additionalProperties"] is False


def test_bounds_and_types_in_the_schema() -> None:
    made = schema()["properties"]
    assert {"type": "integer", "minimum": 1, "maximum": 1024, "default": 32}.items() <= made["rank"].items()
    assert {"type": "number", "exclusiveMinimum": 0} in made["alpha"]["anyOf"]
    assert made["save_precision"]["enum"] == ["fp16", "fp32", "bf16"]
    assert made["unet_lr"]["anyOf"] == [{"type": "number", "minimum": 0}, {"type": "null"}]
    side = {"type": "integer", "minimum": 64, "maximum": 4096, "multipleOf": 8}
    assert made["resolution"]["anyOf"][0] == {"type": "array", "items": side, "minItems": 2, "maxItems": 2}
    assert made["resolution"]["x-family-defaults"]["sd15"] == [512, 512]


def test_folders_in_the_schema() -> None:
    part = schema()["properties"]["subsets"]["items"]
    assert part["type"] == "object" and part["required"] == ["folder"]
    assert part["properties"]["is_regularisation"]["type"] == "boolean"


def test_the_table_has_every_setting_once() -> None:
    lines = settings_table().splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [
        row.name for panel in PANELS for row in SETTINGS.values() if row.panel == panel
    ]
    assert all(row.replace("\\|", "").count("|") == 6 for row in rows)
    rank = next(row for row in rows if row.startswith("| `rank`"))
    assert "a whole number from 1 to 1024" in rank and "| `32` |" in rank and "`network_dim`" in rank
