"""Who is let in: checked with httpx's own Basic header and with cookies named as gradio names them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI

from lora_trainer.api import Access, mount
from lora_trainer.jobs.queue import Queue
from tests.api.conftest import V1, Client, FakeHost

USERS = {"ゆかり": "ひみつ: 1", "plain": "word"}
REMOTE = "http://sd.example.com:7860"


@pytest.fixture
def client_of(queue: Queue, host: FakeHost, tmp_path: Path) -> Any:
    def make(base: str = "http://127.0.0.1:7860", remote: bool = False, allowed: bool = False, **access: Any) -> Client:
        app = FastAPI()
        who = Access(access.pop("users", None), access.pop("gradio_app", None), remote, allowed)
        mount(app, queue, None, host, who, tmp_path / "datasets")
        return Client(app, base, **access)

    return make


@pytest.mark.parametrize(
    "base", ["http://127.0.0.1:7860", "http://localhost:7860", "http://[::1]:7860", "http://127.1.2.3"]
)
def test_everybody_on_this_machine_may_use_it_where_there_are_no_users(client_of: Any, base: str) -> None:
    assert client_of(base).get(f"{V1}/jobs").status_code == 200


@pytest.mark.parametrize(
    "base", [REMOTE, "http://192.168.1.2:7860", "http://localhost.example.com", "http://abc.gradio.live"]
)
def test_another_name_than_this_machines_own_is_refused_without_users(client_of: Any, base: str) -> None:
    answer = client_of(base).get(f"{V1}/jobs")
    assert answer.status_code == 403 and "--api-auth" in answer.json()["detail"]
    assert client_of(base, allowed=True).get(f"{V1}/jobs").status_code == 200


@pytest.mark.parametrize("route", ["jobs", "config/check"])
def test_from_other_machines_no_path_leads_out_of_the_hosts_folders(
    client_of: Any, config_of: Any, tmp_path: Path, route: str
) -> None:
    outside = str(tmp_path.parent / "secret")
    bad = config_of(
        base_model=outside, vae=outside, output_folder=f"{tmp_path}/Lora/../..", subsets=[{"folder": outside}]
    )
    prepare = {"folder": "zdm", "sources": [outside]}
    remote = client_of(remote=True, users=USERS, auth=("plain", "word"))
    problems = remote.post(f"{V1}/{route}", json={"config": bad, "prepare": prepare}).json()["problems"]
    settings = {each["setting"] for each in problems if "lies outside" in each["problem"]}
    assert settings == {"base_model", "vae", "output_folder", "subsets.1.folder", "prepare.sources"}
    assert remote.post(f"{V1}/jobs", json={"config": config_of()}).status_code == 201
    here = client_of().post(f"{V1}/{route}", json={"config": bad, "prepare": prepare}).json()["problems"]
    assert here and not any("lies outside" in each["problem"] for each in here)


def test_a_host_that_listens_remotely_is_closed_without_users_unless_asked_for(client_of: Any) -> None:
    assert client_of(remote=True).get(f"{V1}/jobs").status_code == 403
    assert client_of(remote=True, allowed=True).get(f"{V1}/jobs").status_code == 200
    assert client_of(remote=True, users=USERS, auth=("plain", "word")).get(f"{V1}/jobs").status_code == 200


def test_what_came_through_a_proxy_is_not_local(client_of: Any) -> None:
    assert client_of(headers={"X-Forwarded-For": "203.0.113.9"}).get(f"{V1}/jobs").status_code == 403


@pytest.mark.parametrize("name", ["[", "", "a]b", "[::1", "127.0.0.1:99999999", "%00"])
def test_a_host_header_that_is_no_name_is_refused(client_of: Any, name: str) -> None:
    assert client_of(headers={"Host": name}).get(f"{V1}/jobs").status_code in (200, 403)
    assert client_of(headers={"Host": name}, users=USERS).get(f"{V1}/jobs").status_code == 401


def test_every_route_asks_for_the_hosts_users(client_of: Any) -> None:
    client = client_of(users=USERS)
    routes = [route for route in client.app.router.routes if route.path.startswith("/lora-trainer/")]
    assert len(routes) > 30
    for route in routes:
        for method in route.methods:
            assert client(method, route.path, json={}).status_code == 401, route.path


@pytest.mark.parametrize("user", USERS)
def test_the_hosts_users_are_let_in_with_their_passwords(client_of: Any, user: str) -> None:
    answer = client_of(users=USERS, auth=(user, USERS[user])).get(f"{V1}/jobs")
    assert answer.status_code == 200


@pytest.mark.parametrize("auth", [("plain", "wörd"), ("plain", ""), ("nobody", "word"), ("", ""), ("plain", "wor")])
def test_others_are_not(client_of: Any, auth: tuple[str, str]) -> None:
    answer = client_of(users=USERS, auth=auth).get(f"{V1}/jobs")
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Basic")


NO_PASSWORDS = ("Basic", "Basic !!!", "Basic /w==", "Bearer cGxhaW46d29yZA==", "Basic cGxhaW4=", "é")


@pytest.mark.parametrize("header", NO_PASSWORDS)
def test_a_header_that_says_nothing_lets_nobody_in(client_of: Any, header: str) -> None:
    client = client_of(users=USERS, headers={"Authorization": header.encode("latin-1")})
    assert client.get(f"{V1}/jobs").status_code == 401


OLD = SimpleNamespace(auth={"a": "b"}, tokens={"good": "a"})
NEW = SimpleNamespace(auth={"a": "b"}, tokens={"good": "a"}, cookie_id="xyz", auth_dependency=None)


COOKIES = (
    (OLD, "access-token"),
    (OLD, "access-token-unsecure"),
    (NEW, "access-token-xyz"),
    (NEW, "access-token-unsecure-xyz"),
)


@pytest.mark.parametrize(("app", "cookie"), COOKIES)
def test_who_has_logged_in_to_gradio_is_let_in(client_of: Any, app: Any, cookie: str) -> None:
    assert client_of(gradio_app=app, cookies={cookie: "good"}).get(f"{V1}/jobs").status_code == 200
    assert client_of(gradio_app=app, cookies={cookie: "bad"}).get(f"{V1}/jobs").status_code == 401
    assert client_of(gradio_app=app, cookies={"other": "good"}).get(f"{V1}/jobs").status_code == 401
    assert client_of(gradio_app=app, cookies={cookie: "good"}, users=USERS).get(f"{V1}/jobs").status_code == 200


def test_a_cookie_of_an_app_without_login_is_worth_nothing(client_of: Any) -> None:
    app = SimpleNamespace(auth=None, tokens={"good": "a"})
    assert client_of(gradio_app=app, users=USERS, cookies={"access-token": "good"}).get(f"{V1}/jobs").status_code == 401


def test_gradios_own_question_is_asked_where_it_has_one(client_of: Any) -> None:
    app = SimpleNamespace(auth=None, tokens={}, auth_dependency=lambda request: request.headers.get("x-user"))
    assert client_of(gradio_app=app, headers={"x-user": "a"}).get(f"{V1}/jobs").status_code == 200
    assert client_of(gradio_app=app).get(f"{V1}/jobs").status_code == 401


OTHERS = ("http://evil.example", "null", "http://127.0.0.1:7861", "http://127.0.0.1", "x", "")
CHANGES = (("POST", "/jobs"), ("DELETE", "/jobs/1"), ("PUT", "/datasets/a/files/a.png"))


@pytest.mark.parametrize("origin", OTHERS)
@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_a_page_of_another_site_changes_nothing(client_of: Any, origin: str, method: str, path: str) -> None:
    answer = client_of(headers={"Origin": origin})(method, V1 + path, json={})
    assert answer.status_code == 403 and "another site" in answer.json()["detail"]


def test_the_hosts_own_page_does(client_of: Any) -> None:
    own = client_of(headers={"Origin": "http://127.0.0.1:7860"})
    assert own.post(f"{V1}/datasets", json={"name": "a"}).status_code == 201
    proxied = {"Origin": "https://sd.example.com", "X-Forwarded-Host": "sd.example.com"}
    through = client_of(headers=proxied, users=USERS, auth=("plain", "word"))
    assert through.post(f"{V1}/datasets", json={"name": "b"}).status_code == 201


def test_a_signed_address_is_good_for_its_own_request_alone(
    queue: Queue, host: FakeHost, app: FastAPI, client: Client, dataset: Path
) -> None:
    access = Access(USERS, None, False, False)
    mount(app, queue, None, host, access, dataset.parent)
    path = f"{V1}/datasets/zdm/files/10_zdm/a.png"
    signed = access.signed("GET", path, 60)
    assert client.get(f"{path}?{signed}").status_code == 200
    assert client.get(path).status_code == 401
    assert client.put(f"{path}?{signed}", content=b"").status_code == 401
    assert client.get(f"{V1}/datasets/zdm/files/10_zdm/a.txt?{signed}").status_code == 401
    assert client.get(f"{path}?{signed.replace('expires=', 'expires=1')}").status_code == 401
    assert client.get(f"{path}?{access.signed('GET', path, -1)}").status_code == 401
    assert client.get(f"{path}?{Access(USERS, None, False, False).signed('GET', path, 60)}").status_code == 401
