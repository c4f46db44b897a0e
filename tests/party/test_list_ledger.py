import json
import multiprocessing
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.audit.checkpoint import log_origin
from fedmkt.config.drafts import draft_contract, simulated_party
from fedmkt.config.files import parse_job
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.crypto.prg import SeededRandom
from fedmkt.crypto.sign import Identity
from fedmkt.deploy.folders import PartyFolder
from fedmkt.deploy.places import place_of
from fedmkt.errors import AuditError, PolicyRefused
from fedmkt.party.audit_log import LOG, AuditLog
from fedmkt.party.filters import Dropped
from fedmkt.party.handle import Party
from fedmkt.party.list_ledger import (
    EVENT,
    KEPT_DAYS,
    KEPT_LISTS,
    Counterpart,
    Entry,
    Hashes,
    ListGuard,
    ListLedger,
    counterparts,
    difference,
    logged_heads,
)
from fedmkt.party.node import Place, Sources, open_data, open_party
from fedmkt.party.policy import Policy
from fedmkt.party.store import Store
from fedmkt.protocol.alignment.psi import item_values
from fedmkt.protocol.core import Name
from fedmkt.simulation.run import party_settings
from tests.engine import BANK, DEALER, Killed, Tap, World, job_world

JOB = """
name = "spring"
purpose = "cards"
[bank]
name = "bank"
organisation = "First Bank"
file = "bank.csv"
id = "phone"
id_kind = "raw"
label = "answered"
numbers = ["age"]
[[partners]]
name = "shop"
organisation = "The Shop"
file = "shop.csv"
id = "phone"
id_kind = "raw"
numbers = ["spent"]
"""
START = datetime(2030, 1, 1, tzinfo=UTC)
KEYS = {name: Identity(bytes([i + 1]) * 32).public for i, name in enumerate(("bank", "shop", "coordinator"))}
PEOPLE = [f"person {i}" for i in range(3000)]


def contract_of(text: str = JOB, name: str = "spring", **keys: bytes) -> Contract:
    text = text.replace('name = "spring"', f'name = "{name}"')
    return draft_contract(parse_job(text, "job.toml"), {**KEYS, **keys}, START)


class Home:
    """One party's store and its logs, a folder for each contract; every `open` is a new process."""

    def __init__(self, folder: Path, name: str = "bank") -> None:
        self.folder = folder
        self.name = name
        self.now = START

    def later(self, **time: float) -> "Home":
        self.now += timedelta(**time)
        return self

    def log(self, contract: Contract) -> Path:
        return self.folder / "logs" / digest(contract).hex() / LOG

    def ledger(self) -> ListLedger:
        return ListLedger(Store(self.folder / "store"), SeededRandom(b"ledger"))

    def open(
        self, ids: list[str], contract: Contract | None = None, dropped: Dropped | None = None, **policy: int
    ) -> ListGuard:
        contract = contract or contract_of()
        config = simulated_party(parse_job(JOB, "job.toml"), self.name, KEYS)
        config = config.model_copy(update={"policy": config.policy.model_copy(update=policy)})
        ledger = self.ledger()
        others = sorted(p for p in self.folder.glob(f"logs/*/{LOG}") if p != self.log(contract))
        guard = ListGuard(
            ledger, Policy(config), contract, self.name, ledger.hashes(ids), lambda: self.now,
            (self.log(contract), *others), (dropped or Dropped()).events(),
        )  # fmt: skip
        guard.check()
        return guard

    def match(self, ids: list[str], run: str, contract: Contract | None = None, **policy: int) -> list[str]:
        """Count a run as a party does and log what there is to log; returns the names of these records."""
        contract = contract or contract_of()
        guard = self.open(ids, contract, **policy)
        events = guard.count(run)
        log = AuditLog(
            self.log(contract).parent, log_origin(digest(contract), self.name), Identity(b"i" * 32),
            lambda: self.now, run, self.name, digest(contract),
        )  # fmt: skip
        if events:
            log.append_all(events)
        log.release()
        return [name for name, _ in events]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# ------------------------------------------------------------------------------------- runs


def test_the_sixth_run_with_one_partner_within_thirty_days_is_refused_under_whatever_contract(
    home: Home,
) -> None:
    for number in range(5):
        home.later(days=1).match(PEOPLE, f"run {number}", contract_of(name=f"job-{number}"))
    with pytest.raises(PolicyRefused, match=r"^C10 differencing guard: bank shows sizes"):
        home.open(PEOPLE, contract_of(name="job-5"))
    home.later(days=26, seconds=1).match(PEOPLE, "run 5", contract_of(name="job-5"))


def test_an_early_refusal_needs_no_run_and_counts_none(home: Home) -> None:
    home.match(PEOPLE, "run 0", max_size_runs=1)
    with pytest.raises(PolicyRefused):
        home.open(PEOPLE, contract_of(name="other"), max_size_runs=1)
    assert len(home.ledger().entries()) == 1


def test_a_run_that_was_counted_stays_counted_whatever_became_of_it(home: Home) -> None:
    home.open(PEOPLE).count("aborted")  # nothing else of this run was ever written
    with pytest.raises(PolicyRefused, match=r"C10 .* shows sizes"):
        home.match(PEOPLE, "next", contract_of(name="other"), max_size_runs=1)


def test_a_resumed_run_counts_once_and_is_logged_once(home: Home) -> None:
    assert home.match(PEOPLE, "run", max_size_runs=1) == [EVENT]
    assert home.later(days=2).match(PEOPLE, "run", max_size_runs=1) == []
    assert len(home.ledger().entries()) == 1


def test_a_run_that_was_killed_between_ledger_and_log_is_logged_when_it_resumes(home: Home) -> None:
    home.open(PEOPLE).count("run")
    assert home.match(PEOPLE, "run") == [EVENT]
    assert set(home.ledger().heads()) == logged_heads([home.log(contract_of())])


def test_a_resume_with_another_list_is_refused(home: Home) -> None:
    home.match(PEOPLE, "run")
    with pytest.raises(PolicyRefused, match="not the list that this run began with"):
        home.match(PEOPLE[200:], "run")


def test_another_partner_has_a_count_of_its_own(home: Home) -> None:
    home.match(PEOPLE, "run", max_size_runs=1)
    other = JOB.replace("The Shop", "Another Shop")
    eve = Identity(b"e" * 32).public
    home.match(PEOPLE[1:], "run 2", contract_of(other, shop=eve), max_size_runs=1)


@pytest.mark.parametrize(
    ("job", "keys"),
    [
        (JOB, {"shop": Identity(b"n" * 32).public}),
        (JOB.replace("The Shop", "THE  shop"), {"shop": Identity(b"n" * 32).public}),
        (JOB.replace("The Shop", "Renamed Shop"), {}),
    ],
    ids=["a_new_key", "another_spelling_and_a_new_key", "a_new_name"],
)
def test_a_partner_with_a_new_key_or_a_new_name_is_the_same_partner(
    home: Home, job: str, keys: dict[str, bytes]
) -> None:
    home.match(PEOPLE, "run", max_size_runs=1)
    with pytest.raises(PolicyRefused, match=r"C10 .* shows sizes"):
        home.match(PEOPLE, "run 2", contract_of(job, **keys), max_size_runs=1)


def test_a_partner_that_changes_its_name_and_its_key_in_turn_is_the_same_partner(home: Home) -> None:
    """What it is now shares nothing with what it was at first, only with what it was in between."""
    renamed, key = JOB.replace("The Shop", "Renamed Shop"), Identity(b"n" * 32).public
    home.match(PEOPLE, "run")
    home.match(PEOPLE, "run 2", contract_of(shop=key))
    third = contract_of(renamed, shop=key)
    assert len(home.ledger().earlier(counterparts(third, "bank"))) == 2
    with pytest.raises(PolicyRefused, match=r"C10 .* shows sizes"):
        home.match(PEOPLE, "run 3", third, max_size_runs=2)
    # The list of the first run is compared too.
    with pytest.raises(PolicyRefused, match=r"C10 .* differs from this one"):
        home.match(PEOPLE[1:], "run 3", third)
    both_at_once = contract_of(renamed, shop=Identity(b"o" * 32).public)
    home.match(PEOPLE[1:], "run 3", both_at_once, max_size_runs=1)


def test_with_two_partners_a_run_counts_for_both(home: Home) -> None:
    both = (
        JOB + '[[partners]]\nname = "telco"\norganisation = "Telco"\nfile = "t"\nid = "p"\nid_kind = "raw"\n'
    )
    both += 'numbers = ["calls"]\n'
    contract = draft_contract(
        parse_job(both, "job.toml"), {**KEYS, "telco": Identity(b"t" * 32).public}, START
    )
    assert [c.organisation for c in counterparts(contract, "bank")] == ["the shop", "telco"]
    assert [c.organisation for c in counterparts(contract, "telco")] == ["first bank", "the shop"]
    home.match(PEOPLE, "run", contract, max_size_runs=1)
    with pytest.raises(PolicyRefused, match=r"C10 .* shows sizes"):
        home.match(PEOPLE, "run 2", max_size_runs=1)


# ------------------------------------------------------------------------------ differences


@pytest.mark.parametrize(("left_out", "added"), [(1, 0), (0, 1), (99, 0), (49, 50)])
def test_a_list_that_differs_by_a_few_ids_from_any_earlier_one_is_refused(
    home: Home, left_out: int, added: int
) -> None:
    home.match(PEOPLE[:2000], "run 0")
    home.match(PEOPLE[1000:3000], "run 1", contract_of(name="second"))
    with pytest.raises(PolicyRefused, match=r"C10 .* differs from this one"):
        home.open([*PEOPLE[left_out:2000], *PEOPLE[2000 : 2000 + added]], contract_of(name="third"))


@pytest.mark.parametrize(("left_out", "added"), [(0, 0), (100, 0), (0, 100), (50, 50), (1000, 1000)])
def test_an_equal_list_and_one_that_differs_by_many_ids_is_matched(
    home: Home, left_out: int, added: int
) -> None:
    home.match(PEOPLE[:2000], "run 0")
    # The order in a file is no difference.
    home.match(
        [*PEOPLE[2000 : 2000 + added], *PEOPLE[left_out:2000][::-1]], "run 1", contract_of(name="second")
    )
    assert len(home.ledger().entries()) == 2


def test_lists_that_were_matched_with_others_only_are_not_compared(home: Home) -> None:
    home.match(PEOPLE, "run 0")
    home.match(
        PEOPLE[1:], "run 1", contract_of(JOB.replace("The Shop", "Other"), shop=KEYS["coordinator"][::-1])
    )


def test_a_second_run_that_began_meanwhile_is_compared_when_it_is_counted(home: Home) -> None:
    first, second = home.open(PEOPLE), home.open(PEOPLE[1:], contract_of(name="second"))
    first.count("run 0")
    with pytest.raises(PolicyRefused, match=r"C10 .* differs from this one"):
        second.count("run 1")
    assert len(home.ledger().entries()) == 1


IDS = st.lists(st.text("abc", max_size=4), unique=True)


@given(IDS, IDS)
@settings(max_examples=200)
def test_the_difference_is_that_of_sets(
    tmp_path_factory: pytest.TempPathFactory, one: list[str], other: list[str]
) -> None:
    ledger = ListLedger(Store(tmp_path_factory.mktemp("store")), SeededRandom(b"x"))
    assert difference(ledger.hashes(one), ledger.hashes(other)) == len(set(one) ^ set(other))


# ---------------------------------------------------------------------------------- keeping


def test_no_id_and_no_bare_hash_of_one_is_in_the_store(home: Home) -> None:
    home.match(PEOPLE[:1000], "run")
    data = b"".join(p.read_bytes() for p in (home.folder / "store").iterdir())
    bare = item_values(contract_of(), "raw", tuple(PEOPLE[:1000]))[:, 0].tobytes()
    assert b"person" not in data
    assert not any(bare[i : i + 8] in data for i in range(0, len(bare), 8))
    assert 8 * 1000 < len(data) < 8 * 1000 + 2000
    assert {p.stat().st_mode & 0o777 for p in (home.folder / "store").iterdir()} == {0o600}


def test_two_stores_hash_one_id_to_unrelated_values(tmp_path: Path) -> None:
    one = ListLedger(Store(tmp_path / "a"), SeededRandom(b"a")).hashes(PEOPLE)
    other = ListLedger(Store(tmp_path / "b"), SeededRandom(b"b")).hashes(PEOPLE)
    assert len(np.intersect1d(one, other)) == 0


def test_items_of_two_contracts_are_unrelated() -> None:
    # The salt of a contract is its digest: equal people of two contracts, also of one renewed, look like others.
    people = tuple(PEOPLE)
    spring = contract_of()
    renewed = spring.model_copy(update={"created": spring.created + timedelta(seconds=1)})
    for other in (contract_of(name="autumn"), renewed):
        one, two = item_values(spring, "raw", people), item_values(other, "raw", people)
        assert not set(map(bytes, one)) & set(map(bytes, two))
        assert (
            len(np.intersect1d(one.view(np.uint16), two.view(np.uint16))) > 0
        )  # of 2^16 values some are equal
        assert abs(np.unpackbits((one ^ two).view(np.uint8)).mean() - 0.5) < 0.005
    assert np.array_equal(item_values(spring, "raw", people), item_values(contract_of(), "raw", people))


def test_lists_are_kept_for_a_year_and_then_removed(home: Home) -> None:
    home.match(PEOPLE[:2000], "run 0")
    kept = len(list((home.folder / "store").iterdir()))
    home.later(days=KEPT_DAYS - 1)
    with pytest.raises(PolicyRefused, match=r"C10 .* differs from this one"):
        home.open(PEOPLE[1:2000], contract_of(name="second"))
    home.later(days=1).match(PEOPLE[1000:3000], "run 1", contract_of(name="third"))
    assert len(list((home.folder / "store").iterdir())) == kept
    home.match(PEOPLE[1:2000], "run 2", contract_of(name="fourth"))
    assert [len(e.forgets) for e in home.ledger().entries()] == [0, 1, 0]


def test_so_many_different_lists_are_kept_and_equal_ones_once(home: Home) -> None:
    for number in range(KEPT_LISTS + 2):
        first = 100 * (number // 2)
        home.later(days=1).match(
            PEOPLE[first : first + 500],
            f"run {number}",
            contract_of(name=f"job-{number}"),
            max_size_runs=1000,
        )
    names = {e.list for e in home.ledger().entries()}
    assert len(names) == KEPT_LISTS // 2 + 1
    assert all(not e.forgets for e in home.ledger().entries())
    for number in range(KEPT_LISTS):
        ids = [f"{number} {i}" for i in range(500)]
        home.later(days=1).match(
            ids, f"more {number}", contract_of(name=f"more-{number}"), max_size_runs=1000
        )
    store = Store(home.folder / "store")
    assert sum(f"lists/{name}" in store for name in {e.list for e in home.ledger().entries()}) == KEPT_LISTS
    home.match(PEOPLE[1:500], "late", contract_of(name="late"), max_size_runs=1000)  # no longer comparable


def test_a_list_that_was_removed_and_matched_again_is_compared_again(home: Home) -> None:
    home.match(PEOPLE[:2000], "run 0")
    home.later(days=KEPT_DAYS).match(PEOPLE[1000:3000], "run 1", contract_of(name="b"))
    home.match(PEOPLE[:2000], "run 2", contract_of(name="c"))
    with pytest.raises(PolicyRefused, match=r"C10 .* differs from this one"):
        home.open(PEOPLE[1:2000], contract_of(name="d"))


def test_the_log_holds_the_head_of_the_ledger_and_counts_of_dropped_rows_and_nothing_else(home: Home) -> None:
    guard = home.open(PEOPLE, dropped=Dropped(consent=7, opt_out=0, age=3))
    assert guard.count("run") == [
        ("consent.filtered", {"dropped": 7}),
        ("optout.applied", {"dropped": 0}),
        ("minors.filtered", {"dropped": 3, "minimum_age": 18}),
        (EVENT, {"ledger": home.ledger().heads()[-1]}),
    ]


# -------------------------------------------------------------------------------- tampering


def played(home: Home) -> Home:
    """Three runs under two contracts."""
    home.match(PEOPLE[:2000], "run 0")
    home.later(days=1).match(PEOPLE[:2000], "run 1", contract_of(name="second"))
    home.later(days=1).match(PEOPLE[1000:3000], "run 2")
    return home


def store_of(home: Home) -> Store:
    return Store(home.folder / "store")


def take_out(home: Home, entry: int) -> None:
    lines = store_of(home)["lists/entries"].splitlines(keepends=True)
    store_of(home).put("lists/entries", b"".join(lines[:entry] + lines[1 + entry :]))


def change(home: Home, old: bytes, new: bytes) -> None:
    data = store_of(home)["lists/entries"]
    assert old in data
    store_of(home).put("lists/entries", data.replace(old, new, 1))


def new_key(home: Home) -> None:
    store_of(home).put("lists/key", b"k" * 32)


def remove_all(home: Home) -> None:
    for path in (home.folder / "store").iterdir():
        path.unlink()


TAMPERING: dict[str, Callable[[Home], None]] = {
    "the_first_run_taken_out": lambda home: take_out(home, 0),
    "the_run_of_the_other_contract_taken_out": lambda home: take_out(home, 1),
    "the_last_run_taken_out": lambda home: take_out(home, 2),
    "a_time_changed": lambda home: change(home, b"2030-01-02", b"2020-01-02"),
    "a_partner_renamed": lambda home: change(home, b"the shop", b"the shoe"),
    "a_run_renamed": lambda home: change(home, b"run 1", b"run 7"),
    "text_that_is_no_entry": lambda home: change(home, b'"forgets":[]', b'"forgets":{}'),
    "another_key": new_key,
    "the_key_removed": lambda home: store_of(home).forget("lists/key"),
    "the_entries_removed": lambda home: store_of(home).forget("lists/entries"),
    "the_whole_store_removed": remove_all,
}


@pytest.mark.parametrize("how", TAMPERING)
@pytest.mark.parametrize("contract", ["spring", "second", "third"])
def test_a_ledger_that_was_changed_is_noticed_under_every_contract(
    home: Home, how: str, contract: str
) -> None:
    TAMPERING[how](played(home))
    with pytest.raises(AuditError, match="ledger of matched lists") as found:
        home.open(PEOPLE[:2000], contract_of(name=contract))
    assert found.value.exit_code == 7


def test_a_ledger_that_was_rolled_back_is_noticed(home: Home) -> None:
    home.match(PEOPLE[:2000], "run 0")
    before = {p: p.read_bytes() for p in (home.folder / "store").iterdir()}
    home.match(PEOPLE[:2000], "run 1", contract_of(name="second"))
    remove_all(home)
    for path, data in before.items():
        path.write_bytes(data)
    with pytest.raises(AuditError, match="an older one was put back"):
        home.open(PEOPLE[:2000], contract_of(name="third"))
    # Noticed by the log of the other contract alone: without it, nobody here would know.
    home.log(contract_of(name="second")).unlink()
    home.open(PEOPLE[:2000], contract_of(name="third"))


@pytest.mark.parametrize("how", ["removed", "changed"])
def test_a_list_that_was_tampered_with_is_noticed_when_it_is_compared(home: Home, how: str) -> None:
    played(home)
    name = f"lists/{home.ledger().entries()[0].list}"
    if how == "removed":
        store_of(home).forget(name)
    else:
        store_of(home).put(name, store_of(home)[name][:-8])
    with pytest.raises(AuditError, match=r"hashes of an earlier list (are missing|were changed)"):
        home.open(PEOPLE[500:2500], contract_of(name="third"))


def test_a_changed_record_of_the_ledger_in_a_log_is_noticed(home: Home) -> None:
    played(home)
    log = home.log(contract_of(name="second"))
    log.write_bytes(log.read_bytes().replace(b'"seq":0', b'"seq": 0'))
    with pytest.raises(AuditError, match="a record of the ledger"):
        home.open(PEOPLE)


def test_what_other_records_say_about_a_ledger_does_not_matter(home: Home) -> None:
    played(home)
    contract = contract_of()
    log = AuditLog(
        home.log(contract).parent, log_origin(digest(contract), "bank"), Identity(b"i" * 32), lambda: START, "",
        "bank", digest(contract),
    )  # fmt: skip
    log.append("policy.refused", {"rule": f'no "{EVENT}" here', "ledger": "f" * 64})
    log.append("policy.refused", {"step": EVENT, "ledger": "f" * 64})
    log.release()
    home.open(PEOPLE[:2000])


def test_an_entry_survives_its_line() -> None:
    entry = Entry(
        "r", "c", "2030-01-01T00:00:00.000000Z", (Counterpart('a "quoted" – name', "k"),), "l", ("x",)
    )
    assert json.loads(entry.leaf())["others"] == [['a "quoted" – name', "k"]]
    assert b"\n" not in entry.leaf()


# ------------------------------------------------------------------------------ many, large


def _count(folder: Path, number: int) -> str:
    home = Home(folder)
    try:
        home.match(PEOPLE, f"run {number}", contract_of(name=f"job-{number}"))
    except PolicyRefused:
        return "refused"
    return "counted"


def test_runs_that_begin_at_once_in_several_processes_are_all_counted(tmp_path: Path) -> None:
    ListLedger(Store(tmp_path / "store"), SeededRandom(b"ledger")).hashes(PEOPLE)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        told = pool.starmap(_count, [(tmp_path, number) for number in range(8)])
    assert sorted(told) == ["counted"] * 5 + ["refused"] * 3
    assert len(Home(tmp_path).ledger().entries()) == 5


def sorted_words(rows: int, seed: int) -> Hashes:
    words = np.frombuffer(SeededRandom(bytes([seed]))(8 * rows), np.uint64).copy()
    words.sort()
    return words


def test_two_lists_of_a_million_are_compared_in_a_moment_and_little_memory() -> None:
    rows = 1_000_000
    one = sorted_words(rows, 1)
    other = np.concatenate([one[7:], sorted_words(5, 2)])
    other.sort()
    tracemalloc.start()
    began = time.process_time()
    assert difference(one, other) == 12
    seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 1 and peak < 3 * 8 * 2 * rows


# ------------------------------------------------------------------------ as a party keeps it


def records_of(world: World, name: str) -> list[tuple[str, dict[str, object]]]:
    lines = (world.folder / "logs" / name / LOG).read_text().splitlines()
    return [(record["type"], record["body"]) for record in map(json.loads, lines)]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A run that was killed soon after sizes were shown."""
    world = job_world(tmp_path_factory.mktemp("job"), iterations=1)
    with pytest.raises(Killed):
        world.run(Tap(stop_after=20))
    return world


@pytest.fixture
def job(begun: World, tmp_path: Path) -> World:
    copytree(begun.folder, tmp_path / "job")
    return job_at(tmp_path / "job", begun)


def job_at(folder: Path, begun: World) -> World:
    """Open the same contract in a copy of its folder."""

    def open_one(name: Name) -> Party:
        config = parse_job((folder / "data" / "job.toml").read_text(), "job.toml")
        table = None if name == DEALER else open_data(config.party(name), folder / "data")
        place = Place(folder / "parties" / name, folder / "logs" / name)
        return open_party(
            name,
            begun.signed,
            party_settings(config, begun.signed, name),
            table,
            place,
            Sources.of(None, name),
        )

    return World(folder, begun.signed, begun.script, begun.identities, open_one)


def test_each_party_with_data_logs_its_ledger_before_it_shows_a_size(job: World) -> None:
    for name in (BANK, "partner"):
        kinds = [kind for kind, _ in records_of(job, name)]
        assert kinds.count(EVENT) == 1 and kinds.index(EVENT) < kinds.index("value.revealed")
        ledger = ListLedger(Store(job.folder_of(Name(name)) / "store"), SeededRandom(b"x"))
        assert dict(records_of(job, name))[EVENT] == {"ledger": ledger.heads()[-1]}
        assert [e.others[0].organisation for e in ledger.entries()] == [
            next(p.organisation for p in job.contract.parties if p.name != name).casefold()
        ]
    assert EVENT not in [kind for kind, _ in records_of(job, DEALER)]


def test_a_killed_run_is_finished_without_being_counted_again(job: World) -> None:
    job.run(resume=True)
    for name in (BANK, "partner"):
        assert [kind for kind, _ in records_of(job, name)].count(EVENT) == 1
        assert len(ListLedger(Store(job.folder_of(Name(name)) / "store"), SeededRandom(b"x")).entries()) == 1


@pytest.mark.parametrize("name", [BANK, "partner"])
def test_a_party_whose_ledger_was_removed_takes_part_in_nothing(job: World, name: str) -> None:
    Store(job.folder_of(Name(name)) / "store").forget("lists/entries")
    with pytest.raises(AuditError, match="ledger of matched lists"):
        job.open()


def test_a_resume_without_somebody_who_opted_out_meanwhile_is_refused(job: World) -> None:
    table = job.folder / "data" / "partner.csv"
    table.write_text("".join(line for i, line in enumerate(table.read_text().splitlines(True)) if i != 1))
    with pytest.raises(PolicyRefused):
        job.run(resume=True)


def test_the_logs_of_all_contracts_of_a_deployed_party_are_compared_with_its_one_ledger(
    tmp_path: Path,
) -> None:
    folder = PartyFolder(tmp_path / "bank")
    first, second = (place_of(folder, contract_of(name=name)) for name in ("first", "second"))
    assert first.store == second.store
    for place in (first, second):
        place.logs.mkdir(parents=True)
        (place.logs / LOG).write_bytes(b"")
    assert first.own_logs == (first.logs / LOG, second.logs / LOG)
    assert second.own_logs == (second.logs / LOG, first.logs / LOG)
