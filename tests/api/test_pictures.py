"""Pictures by the API: pages of them, thumbnails, and those that are left out and put back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.dataset.store import Dataset
from tests.api.conftest import V1, Client, png

HERE = f"{V1}/datasets/many"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A set of 25 pictures: those of even number have a caption, every fifth one is blue."""
    folder = tmp_path / "datasets" / "many" / "10_many"
    folder.mkdir(parents=True)
    for number in range(25):
        (folder / f"p{number}.png").write_bytes(png(size=(64 + number, 64)))
        if number % 2 == 0:
            tags = "many, blue" if number % 5 == 0 else "many, Red_Hair"
            (folder / f"p{number}.txt").write_text(tags, encoding="utf-8")
    return folder.parent


def shown(client: Client, query: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = client.get(f"{HERE}/pictures{query}").json()
    return answer


def files(answer: dict[str, Any]) -> list[str]:
    return [picture["file"] for picture in answer["pictures"]]


def test_a_page_has_its_pictures_in_natural_order(client: Client, many: Path) -> None:
    page = shown(client, "?offset=8&limit=4")
    assert (page["count"], page["offset"], files(page)) == (25, 8, ["p8.png", "p9.png", "p10.png", "p11.png"])
    first = page["pictures"][0]
    assert (first["path"], first["width"], first["height"]) == ("10_many/p8.png", 72, 64)
    assert (first["caption"], first["line"]) == ("many, Red_Hair", "many, Red_Hair")
    assert files(shown(client, "?offset=25")) == [] and files(shown(client, "?limit=0")) == []


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("?tag=blue", [0, 10, 20]),
        ("?tag=red%20hair", [2, 4, 6, 8, 12, 14, 16, 18, 22, 24]),
        ("?tag=nothing", []),
        ("?without_caption=1", range(1, 25, 2)),
        ("?search=P1", [1, *range(10, 20)]),
        ("?search=BLUE", [0, 10, 20]),
        ("?tag=blue&search=p1", [10]),
    ],
)
def test_a_query_finds_the_pictures_it_names(client: Client, many: Path, query: str, numbers: range) -> None:
    answer = shown(client, query)
    assert files(answer) == [f"p{number}.png" for number in numbers] and answer["count"] == len(numbers)


def test_the_place_of_a_picture_is_that_in_the_list(client: Client, many: Path) -> None:
    picture = shown(client)["pictures"][17]
    assert shown(client, f"?limit=0&place_of={picture['id']}")["place"] == 17
    assert shown(client, "?place_of=999999")["place"] is None


@pytest.mark.parametrize("query", ["?offset=-1", "?limit=x", "?limit=100000", "?place_of=a"])
def test_a_page_that_cannot_be_is_refused(client: Client, many: Path, query: str) -> None:
    assert client.get(f"{HERE}/pictures{query}").status_code == 422


def test_a_thumbnail_is_small_and_may_be_kept_while_its_picture_stays(client: Client, many: Path) -> None:
    large = many / "10_many" / "p3.png"
    Image.new("RGB", (1200, 600), "blue").save(large)
    client.get(f"{V1}/datasets/many")  # looks at the folder again
    picture = shown(client)["pictures"][3]
    address = f"{HERE}/pictures/{picture['id']}/thumbnail"
    answer = client.get(f"{address}?stamp={picture['stamp']}")
    assert answer.headers["content-type"] == "image/jpeg" and "immutable" in answer.headers["cache-control"]
    assert Image.open(io.BytesIO(answer.content)).size == (256, 128)
    large.write_bytes(png("red"))
    later = client.get(f"{address}?stamp={picture['stamp']}")
    assert "immutable" not in later.headers["cache-control"]
    assert Image.open(io.BytesIO(later.content)).size == (64, 64)
    client.get(f"{V1}/datasets/many")
    assert shown(client)["pictures"][3]["stamp"] != picture["stamp"]


def test_a_thumbnail_of_the_original_is_as_it_came(client: Client, many: Path) -> None:
    with Dataset.open(many) as dataset:
        entry = dataset.entries()[0]
        dataset.replace_picture(entry, lambda path: Image.new("RGB", (32, 32)).save(path), "cut")
    address = f"{HERE}/pictures/{entry.id}/thumbnail"
    sizes = [Image.open(io.BytesIO(client.get(address + query).content)).size for query in ("", "?original=1")]
    assert sizes == [(32, 32), (64, 64)]


@pytest.mark.parametrize("id", ["999999", "x", "..", "1" * 25])
def test_a_picture_that_is_not_there_has_no_thumbnail(client: Client, many: Path, id: str) -> None:
    assert client.get(f"{HERE}/pictures/{id}/thumbnail").status_code == 404


def test_a_picture_that_cannot_be_read_is_listed_and_has_no_thumbnail(client: Client, many: Path) -> None:
    (many / "10_many" / "p0.png").write_bytes(b"no picture")
    picture = shown(client)["pictures"][0]
    assert (picture["file"], picture["width"]) == ("p0.png", 0)
    assert client.get(f"{HERE}/pictures/{picture['id']}/thumbnail").status_code == 422


def test_what_another_process_changes_is_seen(client: Client, many: Path) -> None:
    before = shown(client)
    with Dataset.open(many) as other:
        other.change_captions("elsewhere", {before["pictures"][1]["id"]: "seen"})
    assert shown(client)["pictures"][1]["caption"] == "seen"


def test_a_set_under_the_name_of_one_that_was_put_aside_is_another_one(client: Client, many: Path) -> None:
    assert shown(client)["count"] == 25
    many.rename(many.with_name("away"))
    (many / "10_many").mkdir(parents=True)
    (many / "10_many" / "only.png").write_bytes(png())
    assert files(shown(client)) == ["only.png"]


def test_pictures_are_left_out_and_put_back_with_their_captions(client: Client, many: Path) -> None:
    before = shown(client)["pictures"]
    wanted = [before[2]["id"], before[3]["id"]]
    answer = client.post(f"{HERE}/leave_out", json={"pictures": [*wanted, 999999]}).json()
    assert sorted(answer["left_out"]) == sorted(wanted)
    assert answer["files"] == ["10_many/p2.png", "10_many/p3.png"]
    assert shown(client)["count"] == 23 and client.get(HERE).json()["left_out"] == 2
    assert client.get(f"{HERE}/left_out").json() == {"files": ["10_many/p2.png", "10_many/p3.png"]}
    back = client.post(f"{HERE}/put_back", json={"files": answer["files"]}).json()
    assert back == {"put_back": answer["files"], "notices": []}
    assert shown(client)["pictures"] == before
    assert (many / "10_many" / "p2.txt").read_text(encoding="utf-8") == "many, Red_Hair"


def test_a_picture_whose_place_is_taken_stays_left_out(client: Client, many: Path) -> None:
    id = shown(client)["pictures"][2]["id"]
    [file] = client.post(f"{HERE}/leave_out", json={"pictures": [id]}).json()["files"]
    (many / "10_many" / "p2.png").write_bytes(png("red"))
    answer = client.post(f"{HERE}/put_back", json={"files": [file]}).json()
    assert answer["put_back"] == [] and file in answer["notices"][0]
    assert (many / "left_out" / file).is_file() and (many / "10_many" / "p2.png").read_bytes() == png("red")


@pytest.mark.parametrize("body", [{"files": ["../../x.png"]}, {"files": ["10_many/p0.png"]}, {"files": [1]}, {}])
def test_only_what_was_left_out_is_put_back(client: Client, many: Path, body: dict[str, Any]) -> None:
    answer = client.post(f"{HERE}/put_back", json=body)
    assert answer.status_code == 422 and answer.json()["problems"]
    assert (many / "10_many" / "p0.png").is_file()


def test_the_summary_counts_what_the_set_holds(client: Client, many: Path) -> None:
    (many / "5_other").mkdir()
    (many / "5_other" / "x.png").write_bytes(png())
    facts = client.get(f"{HERE}?limit=0").json()
    assert {name: facts[name] for name in ("count", "captioned", "cut", "left_out", "pictures")} == {
        "count": 26, "captioned": 13, "cut": 0, "left_out": 0, "pictures": [],
    }  # fmt: skip
    assert sorted((folder["name"], folder["repeats"], folder["pictures"]) for folder in facts["folders"]) == [
        ("10_many", 10, 25),
        ("5_other", 5, 1),
    ]
    (many / "5_other" / "x.png").unlink()
    assert client.get(f"{HERE}?limit=0&quick=1").json()["count"] == 26
    assert client.get(f"{HERE}?limit=0").json()["count"] == 25
