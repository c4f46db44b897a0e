"""A bank and its partner under a contract with terms of governance that every control allows, opened as in a run.

    office.opens()                              all participants open: every control allowed it
    office.opens(governance={...}, job={...})   the same with changed terms
    office.refuses("C07", governance={...})     some participant refuses by that control, and not a byte left

Real tables in memory, real policies, real logs on disk; what passes is counted byte by byte (`tests.engine.Tap`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fedmkt.audit import statements
from fedmkt.audit.records import Record, read_leaf
from fedmkt.config.drafts import draft_contract
from fedmkt.config.job import JobConfig
from fedmkt.contract.agreement import Contract
from fedmkt.contract.approvals import approval
from fedmkt.contract.canonical import digest
from fedmkt.contract.signatures import SignedContract, sign
from fedmkt.crypto.dsse import Envelope
from fedmkt.crypto.sign import Identity
from fedmkt.errors import PolicyRefused
from fedmkt.party.audit_log import LOG
from fedmkt.party.controls.code import installed_code
from fedmkt.party.controls.control import Flags
from fedmkt.party.filters import Dropped
from fedmkt.party.handle import Party
from fedmkt.party.journal import write_atomically
from fedmkt.party.node import Place, Sources, open_data, open_party
from fedmkt.party.table import Table
from fedmkt.protocol.core import Name
from fedmkt.protocol.pipeline import SCRIPTS
from fedmkt.protocol.session import Answer, Hello
from fedmkt.simulation.run import party_settings
from tests.engine import Tap, World, job_config

NAMES = (Name("bank"), Name("partner"), Name("coordinator"))
IDENTITIES = {name: Identity(bytes([i + 1]) * 32) for i, name in enumerate(NAMES)}
APPROVERS = {
    (name, role): Identity(bytes([16 * i + j]) * 32)
    for i, name in enumerate(("bank", "partner"), 1)
    for j, role in enumerate(("data-owner", "compliance"))
}
FILTERED = Dropped(consent=3, opt_out=0, age=2, minimum_age=18)
SEED = 5
Changes = Mapping[str, Any]


def terms(config: JobConfig, **changes: object) -> dict[str, Any]:
    """Terms of governance for this job that every control allows, with changes."""
    created = Sources.of(SEED, "contract").clock()
    parties = [party.name for party in config.parties]
    found: dict[str, Any] = {
        "datasets": [
            {
                "party": party.name,
                "name": f"customers of {party.name}",
                "people": "customers who agreed",
                "purposes": [config.purpose],
                "basis": ["PIPL-13-1"],
                "minimum_age": 18,
                "columns": [
                    {"name": c, "level": 2, "category": "C1", "kind": "habits"} for c in party.columns
                ],
            }
            for party in config.parties
        ],
        "locations": dict.fromkeys(NAMES, "CN"),
        "countries": ["CN"],
        "impact": {
            "sha256": "ab" * 32,
            "purpose": config.purpose,
            "parties": parties,
            "expires": created.replace(microsecond=0) + timedelta(days=300),
        },
        "approvers": [
            {"name": role, "party": party, "role": role, "key": identity.public.hex()}
            for (party, role), identity in APPROVERS.items()
        ],
        "recipients": [{"result": "scores", "to": "bank", "use": "letters"}],
        "groups": ["region"],
        "code": installed_code(),
    }
    return found | changes


def approvals(contract: Contract, approvers: int = 4) -> tuple[Envelope, ...]:
    """Approve as everybody whom the contract names, or as the first of them."""
    named = contract.governance.approvers if contract.governance else ()
    return tuple(
        statements.sign(approval(contract, one, contract.created), APPROVERS[one.party, one.role])
        for one in named[:approvers]
    )


@dataclass
class Office:
    """The tables of one job, and a new folder for each question."""

    folder: Path
    config: JobConfig
    tables: Mapping[str, Table]
    numbers: Iterator[int] = field(default_factory=count)

    def world(
        self,
        governance: Changes | None = None,
        job: Changes | None = None,
        policy: Changes | None = None,
        dropped: Dropped = FILTERED,
        withdrawn: Callable[[Table], Flags] | None = None,
        approvers: int = 4,
        folder: Path | None = None,
        tables: Mapping[str, Table] | None = None,
    ) -> World:
        """Sign the changed contract. policy : changes at every participant; folder : go on where another world was."""
        folder = folder or self.folder / f"world {next(self.numbers)}"
        values = (
            dict(self.config) | {"governance": terms(self.config, **(governance or {}))} | dict(job or {})
        )
        config = JobConfig.model_validate(values)
        keys = {name: identity.public for name, identity in IDENTITIES.items()}
        contract = draft_contract(config, keys, Sources.of(SEED, "contract").clock())
        signed = SignedContract(
            contract=contract, signatures={n: sign(contract, n, i) for n, i in IDENTITIES.items()}
        )
        lists = {n: replace(t, dropped=dropped) for n, t in (tables or self.tables).items()}
        envelopes = approvals(contract, approvers)

        def open_one(name: Name) -> Party:
            settings = party_settings(config, signed, name)
            stricter = settings.policy.model_copy(update=dict(policy or {}))
            place = place_in(folder, contract, name)
            if not place.identity.exists():
                write_atomically(place.identity, IDENTITIES[name].secret_bytes())
            return open_party(
                name, signed, settings.model_copy(update={"policy": stricter}), lists.get(name), place,
                Sources.of(SEED, name, next(self.numbers) % 200), envelopes, withdrawn=withdrawn,
            )  # fmt: skip

        return World(folder, signed, SCRIPTS[contract.task], IDENTITIES, open_one)

    def opens(self, **options: Any) -> World:
        """Open all participants: what is asked before anything leaves was allowed."""
        world = self.world(**options)
        world.open()
        world.kill()
        return world

    def refuses(self, control: str, world: World | None = None, **options: Any) -> str:
        """See that a participant refuses by this control, before a byte left, and that it logged that; returns why."""
        # Allowed, it would end with Killed as soon as the first answer left.
        world, tap = world or self.world(**options), Tap(stop_after=1)
        with pytest.raises(PolicyRefused, match=rf"^{control} [A-Za-z -]+: ") as refused:
            world.run(tap)
        assert bytes_passed(tap) == 0 and tap.passed == []
        assert str(refused.value) in refusals(world)
        return str(refused.value)


def place_in(folder: Path, contract: Contract, name: str) -> Place:
    """Return a participant's folders: its store is that of all worlds in this folder, its log this contract's."""
    return Place(folder / "parties" / name, folder / "logs" / digest(contract).hex()[:16] / name)


def bytes_passed(tap: Tap) -> int:
    """Add up what participants sent, hellos included."""
    sizes = [e.size for e in tap.envelopes]
    sizes += [len(p.told.signed_bytes()) for p in tap.passed if isinstance(p.told, Hello)]
    return sum(sizes) + sum(len(p.told.receipt.public) for p in tap.passed if isinstance(p.told, Answer))


def records(world: World, name: str) -> list[Record]:
    """Read a participant's log of this contract; none if it never wrote one."""
    path = place_in(world.folder, world.contract, name).logs / LOG
    return [read_leaf(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def refusals(world: World) -> list[str]:
    """List what the participants' logs say was refused."""
    return [
        str(record.body["rule"])
        for name in NAMES
        for record in records(world, name)
        if record.type == "policy.refused"
    ]


def make_office(folder: Path) -> Office:
    """Write a small bank and its partner: 450 and 520 customers, 300 of them common."""
    more = "[policy]\nrequire_governance = true\nrequire_approvals = true\nrequire_filters = true\n"
    config = job_config(folder / "data", rows=(450, 520, 300), iterations=1, more=more)
    config = config.model_copy(update={"limits": config.limits.model_copy(update={"max_runs": 5})})
    return Office(folder, config, {p.name: open_data(p, folder / "data") for p in config.parties})
