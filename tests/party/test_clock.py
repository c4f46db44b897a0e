from datetime import UTC, datetime, timedelta

from fedmkt.party.clock import STEP, WatchedClock, uptime

START = datetime(2030, 1, 1, tzinfo=UTC)


class Machine:
    """A machine whose clock can be set while its uptime goes on."""

    def __init__(self) -> None:
        self.now, self.up = START, 100.0

    def wait(self, seconds: float, by: float = 0.0) -> None:
        self.up += seconds
        self.now += timedelta(seconds=seconds + by)


def test_time_that_passes_is_no_step_and_a_clock_that_is_set_is_one() -> None:
    machine = Machine()
    clock = WatchedClock(lambda: machine.now, lambda: machine.up)
    assert clock.look() == (START, 0)
    machine.wait(7200)
    assert clock.look() == (machine.now, 0)
    for by in (3600, -3600, 86_400, -86_400, 5, -5):
        machine.wait(3, by)
        assert clock.look() == (machine.now, by)
        assert clock.look()[1] == 0  # told once
    for by in (4.9, -4.9):
        machine.wait(3, by)
        assert clock.look()[1] == 0
    assert timedelta(seconds=5) == STEP


def test_without_an_uptime_only_a_step_back_is_seen() -> None:
    machine = Machine()
    clock = WatchedClock(lambda: machine.now)
    clock.look()
    machine.wait(3, 3600)
    assert clock.look()[1] == 0
    machine.wait(0, -60)
    assert clock.look()[1] == -60


def test_the_last_record_of_an_earlier_process_shows_a_step_back_and_no_step_ahead() -> None:
    machine = Machine()
    for seen, step in (
        ("2030-01-01T01:00:00.000000Z", -3600),
        ("2029-01-01T00:00:00.000000Z", 0),
        ("2030-01-01T01:00:00", 0),
        ("yesterday", 0),
    ):
        clock = WatchedClock(lambda: machine.now, lambda: machine.up)
        clock.seen(seen)
        assert clock.look() == (START, step)


def test_uptime_goes_on() -> None:
    assert 0 < uptime() <= uptime()
