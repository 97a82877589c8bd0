"""Which models are told of, and what OpenAI's names mean."""

import pytest

from bus_worker.embedded import NatsServer
from bus_worker.errors import ModelNotFound, Unavailable
from bus_worker.settings import Settings
from gateway.openai.models import find_model, list_models, model_on_the_bus
from tests.helpers.house import Workers

NAMES = Settings(default_model="pretend")


@pytest.mark.parametrize("name", NAMES.openai_models)
def test_openais_names_mean_the_default_model(name: str):
    assert model_on_the_bus(name, NAMES) is None


def test_other_names_mean_themselves():
    assert model_on_the_bus("large-v3", NAMES) == "large-v3"
    assert model_on_the_bus("whisper-1", Settings(openai_models=())) == "whisper-1"


@pytest.mark.parametrize("name", ["org/model", "a b", "*", ">", "x\n", ""])
def test_what_no_model_can_be_called_is_not_found(name: str):
    with pytest.raises(ModelNotFound):
        model_on_the_bus(name, NAMES)


async def test_every_model_is_told_of_once(workers: Workers):
    for model in ("pretend", "pretend", "large-v3"):
        await workers.start(model=model)
    client = await workers.client()
    assert [model.id for model in (await list_models(client)).data] == ["large-v3", "pretend"]


async def test_a_name_of_openais_is_there_as_long_as_the_default_model_is(workers: Workers):
    await workers.start(model="large-v3")
    client = await workers.client()
    assert (await find_model(client, NAMES, "large-v3")).id == "large-v3"
    assert (await find_model(client, Settings(), "whisper-1")).id == "whisper-1"
    with pytest.raises(ModelNotFound, match="no worker serves 'whisper-1'; served: large-v3"):
        await find_model(client, NAMES, "whisper-1")


async def test_without_a_worker_the_list_is_empty(workers: Workers):
    client = await workers.client()
    assert (await list_models(client)).data == []
    with pytest.raises(ModelNotFound, match="served: none"):
        await find_model(client, NAMES, "pretend")


async def test_without_a_bus_it_is_told_so_in_time(workers: Workers, bus_server: NatsServer):
    client = await workers.client()
    await bus_server.stop()
    with pytest.raises(Unavailable):
        await list_models(client)
