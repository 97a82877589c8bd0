"""`bench --tune` measures what a machine may take, and picks by the rules that its page tells."""

import pytest

from bus_worker.bench import tune
from bus_worker.bench.clips import Clip
from bus_worker.bench.contenders import Setup
from bus_worker.bench.tune import Try, advice, choose_shape, choose_slots, shapes
from bus_worker.settings import load_settings


def test_cores_are_shared_out_among_replicas_in_every_way_that_halves_them():
    assert shapes(Setup("", "", replicas=16)) == [(16, 1), (8, 2), (4, 4), (2, 8), (1, 16)]
    assert shapes(Setup("", "", replicas=6)) == [(6, 1), (3, 2), (1, 6)]
    assert shapes(Setup("", "", replicas=1)) == [(1, 1)]
    assert shapes(Setup("", "", device="cuda")) == [(1, 1), (2, 1)]


def test_the_fastest_shape_is_taken_and_of_equals_the_quickest_alone():
    many, few = Try(4, 1, 1, 4, speed=20, alone=0.5), Try(1, 4, 1, 1, speed=12, alone=0.3)
    between = Try(2, 2, 1, 2, speed=19.5, alone=0.4)
    assert choose_shape([many, few]) == many
    assert choose_shape([many, between, few]) == between


def test_more_slots_must_make_a_worker_a_tenth_faster():
    one, two = Try(2, 1, 1, 2, speed=10), Try(2, 1, 2, 4, speed=10.9)
    four = Try(2, 1, 4, 8, speed=11.1)
    assert choose_slots([two, one]) == one
    assert choose_slots([four, two, one]) == four


class Seat:
    """Hears at a speed that its settings say: two replicas are twice as fast, batches win nothing."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    async def hear(self, clips, at_once, *, told, into):  # noqa: ARG002 - as the real one
        seconds = 0.1 if self.setup.replicas == 2 else 0.2
        into.each += [seconds] * len(clips)
        into.audio += sum(clip.seconds for clip in clips)
        into.wall += seconds * len(clips)


async def test_what_is_found_becomes_lines_for_an_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path
):
    class Wanted:
        def read(self):
            return [Clip("a", b"", "a", "en", 2.0)]

    monkeypatch.setattr(tune, "seated", lambda _, setup, __: Seat(setup))
    told: list[str] = []
    found = await tune.tune(Wanted(), Setup("", "base", replicas=2), None, told.append)
    assert [(t.replicas, t.threads) for t in found.by_shape] == [(2, 1), (1, 2)]
    assert [(t.batch, t.slots) for t in found.by_slots] == [(1, 2), (1, 3), (2, 4), (4, 8), (8, 16)]
    assert set(found.sections) == {"shape", "slots"}
    assert len(told) == 2
    text = advice(found)
    assert "2 x 1: 20.0; 1 x 2: 10.0" in text
    lines = dict(line.split("#")[0].strip().split("=") for line in text.splitlines()[1:])
    assert lines == {
        "WHISPER_REPLICAS": "2", "WHISPER_THREADS": "1", "WHISPER__BATCH": "1", "WORKER_SLOTS": "2",
    }  # fmt: skip
    assert load_settings(lines).worker_slots == 2
