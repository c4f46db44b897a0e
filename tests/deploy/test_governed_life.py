"""The whole life of a governed contract over real processes, by the commands of docs/contract.md and docs/deploy.md."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.deploy.deployment import COORDINATOR, Deployment, fedmkt
from tests.deploy.e2e import invented_job

PEOPLE = {"ann": ("bank", "data-owner"), "ben": ("bank", "compliance"), "bea": ("bank", "compliance")}
PEOPLE |= {"cleo": ("partner", "data-owner"), "dan": ("partner", "compliance")}


class Governed(Deployment):
    """Three organisations whose contract has terms of governance, and the people who approve it."""

    def _sign(self, requests: Mapping[str, Path]) -> None:
        self.contract.parent.mkdir(parents=True, exist_ok=True)
        for name in PEOPLE:
            fedmkt("contract", "approver-key", name, "--out", self.folder / f"{name}.key")
        for name in self.names:
            policy = self.place(name) / "policy.toml"
            policy.write_text(policy.read_text() + "require_governance = true\n")
        (self.folder / "job.toml").write_text(self.job_file.read_text() + self.terms())
        fedmkt(
            "contract",
            "propose",
            self.folder / "job.toml",
            "--dir",
            self.place("bank"),
            "--out",
            self.contract,
        )
        self.agree(self.contract)

    def terms(self) -> str:
        """Write the section [governance] of the job."""
        purpose = json.dumps(self.job.purpose)
        places = ", ".join(f'{name} = "CN"' for name in (*self.names, COORDINATOR))
        lines = [
            "[governance]", 'countries = ["CN"]', 'use = "service"', f"locations = {{ {places} }}",
            "[governance.impact]", f'sha256 = "{"ab" * 32}"', f"purpose = {purpose}",
            f"parties = {json.dumps(self.names)}", "expires = 2040-01-01T00:00:00Z",
            "[[governance.recipients]]", 'result = "scores"', 'to = "bank"', 'use = "letters"',
        ]  # fmt: skip
        for party in self.job.parties:
            columns = ", ".join(f'{{ name = "{c}", level = 2, kind = "habits" }}' for c in party.columns)
            lines += [
                "[[governance.datasets]]", f'party = "{party.name}"', 'name = "customers"',
                'people = "customers who agreed"', f"purposes = [{purpose}]", 'basis = ["PIPL-13-2"]',
                f"columns = [ {columns} ]",
            ]  # fmt: skip
        for name, (of, role) in PEOPLE.items():
            lines += ["[[governance.approvers]]", f'name = "{name}"', f'party = "{of}"', f'role = "{role}"']
            lines.append((self.folder / f"{name}.pub").read_text())
        return "\n" + "\n".join(lines) + "\n"

    def agree(self, contract: Path) -> None:
        """Approve by two of each party, one of whom denies first; sign by all; verify."""
        fedmkt("contract", "review", contract)
        fedmkt("contract", "sign", contract, "--dir", self.place("bank"), "--yes", code=4)  # nobody approved
        self.say("deny", "ben", contract, "--reason", "who gets the letters")
        for name in ("ann", "ben", "cleo", "dan"):
            self.say("approve", name, contract, "--yes")
        for name in (*self.names, COORDINATOR):
            fedmkt("contract", "sign", contract, "--dir", self.place(name), "--yes")
            fedmkt(
                "contract",
                "verify",
                contract,
                "--dir",
                self.place(name),
                code=0 if name == COORDINATOR else 4,
            )

    def say(self, what: str, name: str, contract: Path, *more: str) -> None:
        """Approve or deny as a person."""
        fedmkt("contract", what, contract, "--as", name, "--key", self.folder / f"{name}.key", *more)

    def start(self, contract: Path, code: int = 0) -> dict[str, object]:
        """Run a contract to its end, or to its refusal."""
        said = fedmkt(
            "run", contract, "--dir", self.place(COORDINATOR), "--wait", "--json", code=code, timeout=300
        )
        return dict(json.loads(said))

    def own(self, name: str, contract: Path) -> Path:
        """Return what a participant keeps of a contract."""
        digest = json.loads(fedmkt("contract", "show", contract, "--json"))["digest"]
        (found,) = (self.place(name) / "state" / "contracts").glob(f"*-{digest[:16]}")
        return found


def rules(it: Governed, name: str, contract: Path) -> list[str]:
    """List what a participant refused of a contract."""
    lines = (it.own(name, contract) / "log" / "log.jsonl").read_text().splitlines()
    return [r["body"]["rule"] for r in map(json.loads, lines) if r["type"] == "policy.refused"]


@pytest.mark.slow  # some 100 commands, three runs and two refusals over real processes: three minutes of CPU
def test_a_governed_contract_lives_and_ends_over_real_processes(tmp_path: Path) -> None:
    it = Governed(tmp_path / "it", invented_job(tmp_path / "data", (1500, 1800, 900), 1), rehearsal=False)
    (tmp_path / "it").mkdir()
    first, second, third = it.contract, tmp_path / "second.toml", tmp_path / "third.toml"
    with it:
        assert it.start(first)["state"] == "done"
        fedmkt("score", it.own("bank", first))
        # Amended: other budgets of use, approved and signed anew; the one before runs no more.
        job = it.folder / "job.toml"
        job.write_text(job.read_text().replace("[governance]\n", "[governance]\nmax_size_runs = 4\n", 1))
        fedmkt("contract", "amend", first, job, "--dir", it.place("bank"), "--out", second)
        assert "5 becomes 4" in fedmkt("contract", "review", second, "--against", first)
        it.agree(second)
        assert it.start(second)["state"] == "done"
        it.start(first, code=4)
        assert re.match("rule replaced: the version", rules(it, COORDINATOR, first)[0])
        # Renewed, and ended by the partner, which tells nobody.
        fedmkt("contract", "renew", second, "--valid-days", 9, "--out", third)
        it.agree(third)
        assert it.start(third)["state"] == "done"
        fedmkt("contract", "revoke", third, "--dir", it.place("partner"), "--reason", "called off", "--yes")
        third.with_name("third.toml.approvals").joinpath("partner.revocation.dsse.json").unlink()
        it.start(third, code=4)
        assert rules(it, "partner", third)[0].startswith("rule revoked: partner ended the contract")
        assert rules(it, "bank", third) == []
    for number, contract in enumerate((first, second, third)):
        out = tmp_path / f"collected-{number}"
        fedmkt("audit", "collect", out, *(it.own(name, contract) for name in (*it.names, COORDINATOR)))
        said = fedmkt("audit", "verify", out)
        assert (
            "approvals: bank 2 of 2" in said and "approvals: partner 2 of 2" in said and "LACKING" not in said
        )
        assert len(list((out / "approvals").iterdir())) >= 5  # with the denial that was taken back
    left = [command for name in (COORDINATOR, *it.names) for _, command in it.processes(name)]
    assert left == []
