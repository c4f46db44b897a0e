"""Folders of a bank, a partner and a coordinator that ran a small job, without any process: `ran(place)`.

Everything is as after a deployment: keys, settings and contract by the functions behind the commands, and each
party opened by the function that its worker calls. Only the messages travel in memory.
"""

import contextlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedmkt.config.files import parse_job
from fedmkt.config.job import JobConfig
from fedmkt.config.tables import BankConfig
from fedmkt.contract.signatures import SignedContract, sign
from fedmkt.deploy.contracts import draft
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder, load_coordinator_folder, read_identity
from fedmkt.deploy.messages import Serve
from fedmkt.deploy.places import place_of
from fedmkt.deploy.take_part import open_own_party
from fedmkt.party.handle import Party
from fedmkt.party.node import Sources, open_party
from fedmkt.protocol.core import Name
from fedmkt.protocol.pipeline import Finished, main_job
from fedmkt.simulation.world import generate, write_world
from fedmkt.transport.driver import Coordinator
from fedmkt.transport.memory import MemoryEndpoint
from tests.deploy.offices import Office

POLICY = "min_list = 300\nmin_common = 300\nmin_support = 20\nmax_runs = 5\n"


@dataclass
class Circle:
    """Three organisations and their signed contract, each with a folder of its own below `root`."""

    root: Path
    job: JobConfig
    signed: SignedContract

    def folder(self, name: str) -> Path:
        """Return an organisation's folder."""
        return self.root / name

    def own(self, name: str) -> Path:
        """Return what it keeps of the contract."""
        (found,) = (self.folder(name) / "state" / "contracts").iterdir()
        return found

    def open(self, name: str) -> Party:
        """Open a participant as its worker does."""
        if name != self.job.coordinator.name:
            return open_own_party(PartyFolder(self.folder(name)), Serve(self.signed, b""))
        home = CoordinatorFolder(self.folder(name))
        config = load_coordinator_folder(home).party({s.name: s.key for s in self.signed.contract.signers})
        place = place_of(home, self.signed.contract)
        place.keep_contract(self.signed)
        return open_party(name, self.signed, config, None, place, Sources.of(None, name))

    def run(self, number: int = 1) -> Finished:
        """Run the job once, from the first message to the closed logs."""
        with contextlib.ExitStack() as stack:
            endpoints = {}
            for signer in self.signed.contract.signers:
                endpoints[Name(signer.name)] = MemoryEndpoint(self.open(signer.name))
                stack.callback(endpoints[Name(signer.name)].close)
            receipts = self.root / f"receipts-{number}"
            done = Coordinator(self.signed.contract, main_job, endpoints, receipts).run()
        assert isinstance(done, Finished)
        return done


def circle(root: Path, passes: int = 3, more: str = "", head: str = "") -> Circle:
    """Found the three organisations, with tables, policies and a contract that all have signed.

    more : sections of the job besides; head : what stands before all sections.
    """
    path = write_world(generate(3, 1000, 1200, 700), root / "files", minimum=300)
    text = path.read_text().replace("[model]\n", f"[model]\niterations = {passes}\n")
    path.write_text(head + text + more)
    job = parse_job(path.read_text(), str(path))
    centre = Office(root / job.coordinator.name, job.coordinator.name, job.coordinator.organisation).found()
    parties = {
        p.name: Office(
            root / p.name, p.name, p.organisation, "bank" if isinstance(p, BankConfig) else "partner"
        )
        for p in job.parties
    }
    for office in parties.values():
        office.join(centre.admit(office.request()))
    offices = {**parties, job.coordinator.name: centre}
    identities = {name: read_identity(office.folder.identity) for name, office in offices.items()}
    keys = {name: identity.public.hex() for name, identity in identities.items()}
    contract = draft(path, keys, datetime.now(UTC)).contract
    signed = SignedContract(
        contract=contract, signatures={name: sign(contract, name, i) for name, i in identities.items()}
    )
    purposes = f"purposes = [{json.dumps(job.purpose)}]\n"
    for name, office in parties.items():
        _settle(office, job, name, keys, purposes)
    _replace(centre.home.config, "purposes = []", purposes.strip())
    for name in ("min_list", "min_common", "min_support"):
        _set(centre.home.config, name, 20 if name == "min_support" else 300)
    _set(centre.home.config, "disclosures", list(job.disclosures))
    return Circle(root, job, signed)


def _settle(office: Office, job: JobConfig, name: str, keys: dict[str, str], purposes: str) -> None:
    party, folder = job.party(name), office.folder
    lines = ["[pinned]", *(f"{signer} = {json.dumps(key)}" for signer, key in keys.items() if signer != name)]
    text = folder.config.read_text().replace("[pinned]", "\n".join(lines))
    folder.config.write_text(text)
    columns = json.dumps(list(party.columns))
    policy = f"{POLICY}disclosures = {json.dumps(list(job.disclosures))}\n"
    folder.policy.write_text(f"{purposes}columns = {columns}\n{policy}")
    values: dict[str, object] = {
        "file": str(office.root.parent / "files" / party.file), "id": party.id, "id_kind": party.id_kind,
        "country": party.country, "numbers": list(party.numbers), "categories": list(party.categories),
    }  # fmt: skip
    if isinstance(party, BankConfig):
        values["label"] = party.label
    folder.schema.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, (path, text)
    path.write_text(text.replace(old, new))


def _set(path: Path, name: str, value: int | list[str]) -> None:
    lines = path.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(f"{name} =")]
    place = next(i for i, line in enumerate(kept) if line.startswith("[policy]"))
    path.write_text(
        "\n".join([*kept[: place + 1], f"{name} = {json.dumps(value)}", *kept[place + 1 :]]) + "\n"
    )
