from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from lora_trainer.hosts.host import HostProblem
from lora_trainer.hosts.webui import WebUI, gpu
from tests.jobs.patience import until


@pytest.fixture(autouse=True)
def nothing_let_go() -> Iterator[None]:
    gpu._had_a_model.clear()
    yield
    gpu._had_a_model.clear()


def test_a1111_lets_go_of_every_model_once_no_picture_is_being_made(modules: SimpleNamespace) -> None:
    modules.call_queue.queue_lock.acquire()
    freeing = threading.Thread(target=WebUI().free_gpu)
    freeing.start()
    assert modules.done == []
    modules.call_queue.queue_lock.release()
    freeing.join()
    assert modules.done == ["undo model", "trash model", "trash other", "delete base vae", "torch_gc"]
    data = modules.sd_models.model_data
    assert data.sd_model is None and data.loaded_sd_models == []
    WebUI().free_gpu()
    assert modules.done[5:] == ["delete base vae", "torch_gc"]


def test_a1111_waits_for_a_model_that_is_being_loaded(modules: SimpleNamespace) -> None:
    """As at its start, where nobody has the queue's lock."""
    modules.sd_models.model_data.lock.acquire()
    freeing = threading.Thread(target=WebUI().free_gpu)
    freeing.start()
    until(modules.call_queue.queue_lock.locked)
    assert modules.done == []
    modules.sd_models.model_data.lock.release()
    freeing.join()
    assert "trash model" in modules.done


def test_no_look_at_the_model_loads_it_while_a_training_has_the_gpu(modules: SimpleNamespace) -> None:
    """Not even where it had never been loaded."""
    data = modules.sd_models.model_data
    data.sd_model, data.was_loaded_at_least_once = None, False
    data.loaded_sd_models.clear()
    WebUI().free_gpu()
    assert data.get_sd_model() is None
    WebUI().take_gpu_back()
    assert "load" not in modules.done


def test_a1111_has_its_model_again_afterwards(modules: SimpleNamespace) -> None:
    host, data = WebUI(), modules.sd_models.model_data
    host.free_gpu()
    host.free_gpu()
    host.take_gpu_back()
    assert data.sd_model == "model" and modules.done.count("load") == 1
    host.take_gpu_back()
    assert modules.done.count("load") == 1


def test_a_model_that_a_picture_has_loaded_is_not_loaded_twice(modules: SimpleNamespace) -> None:
    host = WebUI()
    host.free_gpu()
    modules.sd_models.model_data.sd_model = "another"
    host.take_gpu_back()
    assert modules.sd_models.model_data.sd_model == "another" and "load" not in modules.done


def test_a_model_that_cannot_be_loaded_again(modules: SimpleNamespace) -> None:
    host, data = WebUI(), modules.sd_models.model_data
    host.free_gpu()
    data.loads = False
    with pytest.raises(HostProblem, match="could not load its model"):
        host.take_gpu_back()
    assert not modules.call_queue.queue_lock.locked()
    data.loads = True
    host.take_gpu_back()
    assert data.sd_model == "model"


def test_forge_lets_go_of_its_model_and_loads_it_by_itself(forge: SimpleNamespace) -> None:
    WebUI().free_gpu()
    assert forge.done == ["unload_all_models", "set placeholder", "torch_gc"]
    assert forge.sd_models.model_data.forge_hash == ""
    WebUI().take_gpu_back()
    assert len(forge.done) == 3


def test_its_kin_let_go_as_both_do(kin: SimpleNamespace) -> None:
    WebUI().free_gpu()
    assert kin.done == ["unload_all_models", "trash model", "trash other", "delete base vae", "torch_gc"]
    WebUI().take_gpu_back()
    assert kin.sd_models.model_data.sd_model == "model"


def test_a_webui_that_starts_while_a_training_runs_loads_no_model_until_it_has_the_gpu(
    modules: SimpleNamespace,
) -> None:
    data = modules.sd_models.model_data
    data.sd_model, data.was_loaded_at_least_once = None, False
    gpu.start_without_model()
    assert data.get_sd_model() is None
    WebUI().take_gpu_back()
    assert data.sd_model == "model"


def test_a_webui_that_was_to_start_without_a_model_gets_none(modules: SimpleNamespace) -> None:
    data = modules.sd_models.model_data
    data.sd_model, data.was_loaded_at_least_once = None, False
    modules.shared.cmd_opts.skip_load_model_at_start = True
    gpu.start_without_model()
    WebUI().take_gpu_back()
    assert data.get_sd_model() is None and modules.done == []


def test_a_page_that_is_reloaded_keeps_the_model_that_is_there(modules: SimpleNamespace) -> None:
    gpu.start_without_model()
    assert modules.sd_models.model_data.sd_model == "model" and not gpu._had_a_model.is_set()


def test_forge_starts_without_a_model_anyway(forge: SimpleNamespace) -> None:
    gpu.start_without_model()
    gpu.spare_embeddings()
    assert not gpu._had_a_model.is_set()


def test_the_cards_can_be_refreshed_without_a_model(modules: SimpleNamespace) -> None:
    """A1111 asks the model how long an embedding is."""
    gpu.spare_embeddings()
    database, data = modules.sd_hijack.model_hijack.embedding_db, modules.sd_models.model_data
    database.load_textual_inversion_embeddings(force_reload=True)
    data.sd_model = None
    database.load_textual_inversion_embeddings(force_reload=True)
    assert modules.done == ["embeddings True"]
    data.was_loaded_at_least_once = False  # a look loads it then
    database.load_textual_inversion_embeddings()
    assert modules.done == ["embeddings True", "embeddings False"]
