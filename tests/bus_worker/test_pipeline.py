"""Order, needs and gives, options, lives and blame."""

import asyncio
import contextlib
import threading

import pytest
from pydantic import BaseModel, Field

from bus_worker import errors
from bus_worker.messages import ModelInfo
from bus_worker.pipeline import Pipeline
from bus_worker.plugin import Draft, NoOptions, Stage, stage


class Gain(BaseModel):
    gain: float = Field(1.0, gt=0)
    secret: int = 7


@stage(gives=("samples",))
async def give(draft: Draft, options: NoOptions) -> None:
    """Give samples."""
    draft.extras["walked"] = ["give"]


@stage(Gain, needs=("samples",), gives=("text",), per_request=("gain",))
async def loud(draft: Draft, options: Gain) -> None:
    """Say how loud."""
    draft.extras["walked"].append("loud")
    draft.text = f"{options.gain} {options.secret}"


@stage(needs=("speech",))
async def picky(draft: Draft, options: NoOptions) -> None:
    """Need what nobody gives."""


@stage(needs=("samples",))
async def stop_here(draft: Draft, options: NoOptions) -> None:
    """End the walk."""
    draft.finish()


def line(*stages: Stage, **options) -> Pipeline:
    return Pipeline.order(
        [s.name for s in stages],
        {s.name: s for s in stages},
        lambda s: s.options(**options.get(s.name, {})),
    )


async def test_stages_run_in_order_and_are_timed():
    draft = Draft()
    seconds = await line(give, loud, loud={"gain": 2.0}).run(draft)
    assert draft.extras["walked"] == ["give", "loud"]
    assert list(seconds) == ["give", "loud"]
    assert draft.text == "2.0 7"


async def test_a_stage_may_end_the_walk():
    draft = Draft()
    seconds = await line(give, stop_here, loud).run(draft)
    assert list(seconds) == ["give", "stop_here"]
    assert draft.text == ""


def test_an_unmet_need_refuses_naming_both_files():
    with pytest.raises(errors.BadPlugin) as caught:
        Pipeline.order(["loud", "give"], {"loud": loud, "give": give})
    assert "'loud'" in caught.value.message
    assert "'samples'" in caught.value.message
    assert "stands after it" in caught.value.message
    assert caught.value.message.count("test_pipeline.py") == 2


def test_a_need_that_no_stage_gives_says_so():
    with pytest.raises(errors.BadPlugin, match="no stage found gives it"):
        line(give, picky)


def test_a_need_whose_giver_is_left_out_names_it():
    with pytest.raises(errors.BadPlugin, match=r"'give'.*is not in PIPELINE"):
        Pipeline.order(["loud"], {"loud": loud, "give": give})


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["give", "nope"], "'nope' that does not exist; there are give"),
        (["give", "give"], "twice"),
        ([], "empty"),
    ],
)
def test_a_wrong_list_refuses(names, says):
    with pytest.raises(errors.BadPlugin, match=says):
        Pipeline.order(names, {"give": give})


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            {"loud": {"secret": 1}},
            r"stages\.loud\.secret' is the operator's; a request may set gain",
        ),
        ({"loud": {"volume": 1}}, r"stages\.loud\.volume' does not exist"),
        ({"loud": {"gain": -1}}, r"stages\.loud\.gain"),
        ({"give": {"x": 1}}, "a request may set none"),
        ({"quiet": {}}, "'quiet'"),
    ],
)
def test_a_request_may_not_set_it(overrides, says):
    with pytest.raises(errors.BadRequest, match=says):
        line(give, loud).options_for(overrides)


async def test_a_requests_option_goes_over_the_operators_for_that_request_only():
    pipeline = line(give, loud, loud={"gain": 2.0, "secret": 9})
    draft, other = Draft(), Draft()
    await pipeline.run(draft, pipeline.options_for({"loud": {"gain": 5.0}}))
    await pipeline.run(other)
    assert (draft.text, other.text) == ("5.0 9", "2.0 9")


async def test_a_plain_function_runs_in_a_thread():
    where: list[threading.Thread] = []

    @stage()
    def blocking(draft: Draft, options: NoOptions) -> None:
        """Block."""
        where.append(threading.current_thread())

    async with line(blocking).open() as pipeline:
        await pipeline.run(Draft())
    assert where[0] is not threading.main_thread()


async def test_lives_open_side_by_side_and_close_where_they_opened():
    tasks: dict[str, asyncio.Task] = {}
    both = asyncio.Barrier(2)

    def living(name: str) -> Stage:
        @contextlib.asynccontextmanager
        async def life(options: NoOptions):
            async with asyncio.timeout(30), asyncio.TaskGroup():
                await both.wait()
                tasks[name] = asyncio.current_task()
                yield f"{name}'s"
                assert asyncio.current_task() is tasks[name]
                del tasks[name]

        async def run(draft: Draft, options: NoOptions, opened: str) -> None:
            draft.extras[name] = opened

        run.__name__ = name
        return stage(open=life)(run)

    draft = Draft()
    async with line(living("a"), living("b")).open() as pipeline:
        await pipeline.run(draft)
        assert set(tasks) == {"a", "b"}
    assert draft.extras == {"a": "a's", "b": "b's"}
    assert tasks == {}


async def test_a_stage_that_cannot_open_is_one_sentence_and_the_others_close():
    closed: list[str] = []

    @contextlib.asynccontextmanager
    async def good_life(options: NoOptions):
        try:
            yield 1
        finally:
            closed.append("good")

    @contextlib.asynccontextmanager
    async def bad_life(options: NoOptions):
        raise OSError("no such device")
        yield

    @stage(open=good_life)
    async def good(draft: Draft, options: NoOptions, opened: int) -> None: ...

    @stage(open=bad_life)
    async def bad(draft: Draft, options: NoOptions, opened: int) -> None: ...

    with pytest.raises(errors.BadPlugin, match=r"'bad' .*cannot open: OSError: no such device"):
        async with line(good, bad).open():
            pass
    assert closed == ["good"]


async def test_a_stages_own_setup_error_comes_through():
    @contextlib.asynccontextmanager
    async def life(options: NoOptions):
        raise errors.ModelUnavailable("no network")
        yield

    @stage(open=life)
    async def bad(draft: Draft, options: NoOptions, opened: int) -> None: ...

    with pytest.raises(errors.ModelUnavailable, match="no network"):
        async with line(bad).open():
            pass


async def test_what_serves_a_model_is_found():
    class Engine:
        model = ModelInfo("m", "r")
        slots = 3

    @contextlib.asynccontextmanager
    async def life(options: NoOptions):
        yield Engine()

    @stage(open=life)
    async def engine(draft: Draft, options: NoOptions, opened: Engine) -> None: ...

    closed = line(engine)
    assert closed.model is None
    async with closed.open() as pipeline:
        assert pipeline.model == ModelInfo("m", "r")
        assert pipeline.serves.slots == 3


async def test_a_cancelled_draft_goes_no_further():
    draft = Draft()
    draft.give_up()
    with pytest.raises(errors.Cancelled):
        await line(give).run(draft)
    assert "walked" not in draft.extras


async def test_a_failing_stage_is_named():
    @stage()
    async def bad(draft: Draft, options: NoOptions) -> None:
        """Fail."""
        raise ZeroDivisionError("inside")

    with pytest.raises(errors.Failed) as caught:
        await line(bad).run(Draft())
    assert caught.value.details == {"stage": "bad"}
    assert "inside" not in caught.value.message
