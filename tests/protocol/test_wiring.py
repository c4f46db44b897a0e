"""mypy finds a script or a step that is wired wrongly: one run of it over all snippets below."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRELUDE = """
from dataclasses import dataclass

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.core import (
    Call, Caller, Inbox, Masked, Message, Name, Nothing, Outcome, Public, PublicValue, Reply, Script, Sealed, Silent,
    State, Step, Turn, Words, ask, data_parties, inbox_of,
)


@dataclass(frozen=True)
class Apple(Message):
    count: int


@dataclass(frozen=True)
class Pear(Message):
    weight: Masked[Words]


@dataclass(frozen=True)
class Told(PublicValue):
    value: int


def _grow(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Apple, Told]:
    return Outcome(Told(1), send={turn.others[0]: Apple(1)})


def _eat(turn: Turn, inbox: Inbox[Apple]) -> Outcome[Pear, Silent]:
    apples = inbox.every(Apple)
    return Outcome(Silent(), send={turn.others[0]: Pear(Masked(turn.masks.words(turn.me, "t", 0, len(apples))))})


def _store(turn: Turn, inbox: Inbox[Pear]) -> Outcome[Nothing, Told]:
    return Outcome(Told(len(inbox.messages)))


GROW = Step("fruit.grow", _grow, Told)
EAT = Step("fruit.eat", _eat, Silent, reads=(Apple,))
STORE = Step("fruit.store", _store, Told, reads=(Pear,))
"""

RIGHT = {
    "one_call_after_the_other": """
def script(call: Caller, contract: Contract) -> Told:
    bank, shop = data_parties(contract)
    grown = call(bank, GROW)
    eaten = call(shop, EAT, grown.to(shop))
    return call(bank, STORE, eaten.to(bank)).public.value
checked: Script = script
""",
    "rounds_of_several_calls": """
def script(call: Caller, contract: Contract) -> Silent:
    parties = data_parties(contract)
    grown = call.all([ask(p, GROW) for p in parties])
    eaten, stored = call.both([ask(p, EAT, *inbox_of(grown, p)) for p in parties], [ask(parties[0], GROW)])
    number: int = stored[0].public.value.value
    return eaten[number].public.value
""",
}
WRONG = {
    "a_message_to_a_step_that_reads_another": (
        """
def script(call: Caller, contract: Contract) -> Told:
    bank, shop = data_parties(contract)
    grown = call(bank, GROW)
    return call(shop, STORE, grown.to(shop)).public.value
""",
        r'type parameter "In"|"Sealed\[Apple\]"',
    ),
    "a_message_to_a_step_of_a_round_that_reads_another": (
        """
def script(call: Caller, contract: Contract) -> None:
    bank, shop = data_parties(contract)
    grown = call(bank, GROW)
    call.all([ask(shop, STORE, grown.to(shop))])
""",
        r'type parameter "In"|"Sealed\[Apple\]"',
    ),
    "messages_of_a_round_to_a_step_that_reads_others": (
        """
def script(call: Caller, contract: Contract) -> None:
    bank, shop = data_parties(contract)
    eaten = call.all([ask(p, EAT) for p in (bank, shop)])
    call(bank, EAT, *inbox_of(eaten, bank))
""",
        r'type parameter "In"|"Sealed\[Pear\]"',
    ),
    "a_reply_in_place_of_its_sealed_message": (
        """
def script(call: Caller, contract: Contract) -> None:
    bank, shop = data_parties(contract)
    call(shop, EAT, call(bank, GROW))
""",
        r"Reply\[Apple, Told\]",
    ),
    "a_look_into_a_sealed_message": (
        """
def script(call: Caller, contract: Contract) -> int:
    bank, shop = data_parties(contract)
    return call(bank, GROW).to(shop).count
""",
        r'"Sealed\[Apple\]" has no attribute "count"',
    ),
    "a_masked_opening_as_a_public_value": (
        """
def publish(opening: Masked[Words]) -> Public[Masked[Words]]:
    return Public(opening, Name("bank"))
""",
        r'"Masked\[ndarray\[.*\]" of "Public"|type-var',
    ),
    "a_masked_opening_that_a_step_tells": (
        """
def _open(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Masked[Words]]:
    return Outcome(Masked(turn.masks.words(turn.me, "t", 0, 1)))
OPEN = Step("fruit.open", _open, Masked)
""",
        r'"Masked\[.*\]" of "Outcome"|type-var',
    ),
    "a_message_with_an_opening_that_a_step_tells": (
        """
def _open(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Pear]:
    return Outcome(Pear(Masked(turn.masks.words(turn.me, "t", 0, 1))))
""",
        r'"Pear" of "Outcome"|type-var',
    ),
    "a_step_that_tells_another_value_than_it_declares": (
        """
ODD = Step("fruit.odd", _grow, Silent)
def script(call: Caller, contract: Contract) -> Silent:
    return call(data_parties(contract)[0], ODD).public.value
""",
        r"Silent|Told",
    ),
    "a_step_that_sends_another_message_than_it_says": (
        """
def _odd(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Apple, Told]:
    return Outcome(Told(1), send={turn.others[0]: Nothing()})
""",
        r"Nothing.*Apple|dict-item",
    ),
    "a_step_that_returns_no_outcome": (
        """
def _odd(turn: Turn, inbox: Inbox[Nothing]) -> Apple:
    return Apple(1)
ODD = Step("fruit.odd", _odd, Told)
""",
        r"Callable\[\[Turn, Inbox\[Nothing\]\], Apple\]",
    ),
    "a_bare_message_in_a_call": (
        """
def script(call: Caller, contract: Contract) -> None:
    bank, shop = data_parties(contract)
    call(shop, EAT, Apple(3))
""",
        r'"Apple".*"Sealed\[',
    ),
    "words_where_a_masked_opening_belongs": (
        """
def opening(words: Words) -> Pear:
    return Pear(words)
""",
        r'"Pear" has incompatible type',
    ),
    "text_for_a_party": (
        """
def script(call: Caller, contract: Contract) -> None:
    call("bank", GROW)
""",
        r'"str"; expected "Name"',
    ),
    "a_script_that_returns_a_message": (
        """
def script(call: Caller, contract: Contract) -> Apple:
    return Apple(1)
checked: Script = script
""",
        r"Apple.*PublicValue|assignment",
    ),
}


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Run mypy once; return its errors by snippet."""
    folder = tmp_path_factory.mktemp("wiring")
    for name, text in RIGHT.items():
        (folder / f"{name}.py").write_text(PRELUDE + text)
    for name, (text, _) in WRONG.items():
        (folder / f"{name}.py").write_text(PRELUDE + text)
    done = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-error-summary", "--no-pretty",
            "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache"), str(folder),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[str, list[str]] = {name: [] for name in (*RIGHT, *WRONG)}
    prelude = PRELUDE.count("\n")
    for line in done.stdout.splitlines():
        if match := re.match(r".*?(\w+)\.py:(\d+): error: (.*)", line):
            assert int(match[2]) > prelude, f"the prelude itself is wrong: {line}"
            found[match[1]].append(match[3])
    return found


@pytest.mark.parametrize("name", RIGHT)
def test_mypy_accepts(name: str, errors: dict[str, list[str]]) -> None:
    assert errors[name] == []


@pytest.mark.parametrize("name", WRONG)
def test_mypy_refuses(name: str, errors: dict[str, list[str]]) -> None:
    assert errors[name], "mypy found nothing"
    assert any(re.search(WRONG[name][1], error) for error in errors[name]), errors[name]
