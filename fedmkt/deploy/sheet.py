"""A contract as people read it before they sign: who, what for, who may learn what, who has signed."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from textwrap import wrap

from pydantic import BaseModel

from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.contract.checks import check_roles
from fedmkt.contract.reading.contents import governance_sections, readers_of, role_of
from fedmkt.contract.reading.document import Voice
from fedmkt.contract.reading.screen import section_lines
from fedmkt.contract.signatures import SignedContract, Standing, signature_standings
from fedmkt.crypto.dsse import Envelope
from fedmkt.crypto.sign import fingerprint
from fedmkt.errors import PolicyRefused
from fedmkt.party.controls.columns import unused_grants
from fedmkt.privacy.disclosure import READERS, plain_text_of
from fedmkt.privacy.superset import epsilon_text

REHEARSAL = (
    "THIS IS A CONTRACT FOR REHEARSALS: FOR INVENTED DATA ONLY. KEYS AND MASKS MAY FOLLOW FROM A KNOWN SEED, "
    "AND THEN NOTHING IN SUCH A RUN IS SECRET."
)


_SECTIONS = {"trees": ("bins", "trees"), "scorecard": ("bins", "scorecard"), "additive": ("additive",)}
"""Terms that only some kinds of model have."""
_TASKS = {
    "train": "train a joint model and score with it",
    "overlap": "count the common customers, shown as a band; no column, no model",
}


@dataclass(frozen=True)
class SignerShown:
    """One signer as people see it; `fingerprint` : what is read over the phone."""

    name: str
    organisation: str
    role: str
    key: str
    fingerprint: str
    signature: Standing


@dataclass(frozen=True)
class Sheet:
    """A contract with the standing of its signatures at one moment; it claims none that does not verify.

    statements : signed ones about it, where they were read too.
    """

    signed: SignedContract
    now: datetime
    statements: tuple[Envelope, ...] = ()

    @property
    def contract(self) -> Contract:
        """What is agreed."""
        return self.signed.contract

    @property
    def digest(self) -> str:
        """The name of the contract everywhere, hexadecimal."""
        return digest(self.contract).hex()

    @property
    def signers(self) -> tuple[SignerShown, ...]:
        """Everyone who must sign, with the standing of each signature."""
        found = signature_standings(self.signed)
        return tuple(
            SignerShown(
                name=signer.name,
                organisation=signer.organisation,
                role=role_of(self.contract, signer),
                key=signer.key,
                fingerprint=fingerprint(bytes.fromhex(signer.key)),
                signature=found[signer.name],
            )
            for signer in self.contract.signers
        )

    @property
    def strangers(self) -> tuple[str, ...]:
        """Names in the file's signatures that are no signers."""
        return tuple(sorted(set(self.signed.signatures) - {s.name for s in self.contract.signers}))

    @property
    def missing(self) -> tuple[str, ...]:
        """Signers without a valid signature."""
        return tuple(s.name for s in self.signers if s.signature != "valid")

    @property
    def is_complete(self) -> bool:
        """Whether exactly the signers have signed, each validly."""
        return not (self.missing or self.strangers)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader should not overlook."""
        return tuple(_warnings(self))

    def to_json(self) -> dict[str, object]:
        """Give the same facts as plain data."""
        return {
            "digest": self.digest,
            "contract": self.contract.model_dump(mode="json", exclude_none=True),
            "rehearsal": self.contract.rehearsal,
            "validity": _validity(self.contract, self.now),
            "signers": [vars(signer) for signer in self.signers],
            "strangers": list(self.strangers),
            "missing": list(self.missing),
            "complete": self.is_complete,
            "disclosures": [
                {"kind": kind, "readers": readers_of(self.contract, kind), "text": plain_text_of(kind)}
                for kind in self.contract.disclosures
            ],
            "warnings": list(self.warnings),
        }

    def lines(self, width: int = 80) -> list[str]:
        """Say it in plain words, in lines of at most `width` characters."""
        contract = self.contract
        lines = [f"contract {contract.name}"]
        if contract.rehearsal:
            lines += wrap(REHEARSAL, width)
        for warning in self.warnings:
            lines += wrap(f"WARNING: {warning}", width, subsequent_indent="  ")
        facts = {
            "digest": self.digest,
            "purpose": contract.purpose,
            "task": _TASKS[contract.task],
            "family": contract.family,
            "valid": f"{_moment(contract.created)} to {_moment(contract.expires)}",
            "now": _validity(contract, self.now),
            "channel": contract.channel,
        }
        lines += [line for name, text in facts.items() for line in _fact(name, text, width)]
        for signer in self.signers:
            lines += _signer_lines(contract, signer, width)
        lines += _auditor_lines(contract, width)
        if contract.task == "train":
            lines += _terms_lines("alignment", contract.align, width)
            lines += _match_lines(contract, width)
            lines += _terms_lines("model", contract.model, width)
            for section in _SECTIONS.get(contract.model.kind, ()):
                lines += _terms_lines(section, getattr(contract, section), width)
        lines += _terms_lines("limits, for all parties", contract.limits, width)
        if contract.task == "train":
            lines += _terms_lines("scores", contract.scores, width)
        if contract.governance is not None:
            say = Voice("en")
            for part in governance_sections(say, contract):
                lines += section_lines(part, say("colon"), width)
        lines += self.disclosure_lines(width)
        return [*lines, *self.signature_lines(width)]

    def disclosure_lines(self, width: int = 80) -> list[str]:
        """Say who may learn what, each disclosure with its whole text."""
        contract = self.contract
        lines = ["", "who may learn what; anything else is refused"]
        for signer in contract.signers:
            learned = [kind for kind in contract.disclosures if signer.name in readers_of(contract, kind)]
            lines += _fact(signer.name, ", ".join(learned) or "nothing", width)
        unused = [kind for kind in contract.disclosures if kind not in READERS]
        if unused:
            lines += _fact("any signer", f"{', '.join(unused)} (no step of this release makes it)", width)
        for kind in contract.disclosures:
            text = f"- {kind}: {plain_text_of(kind)}"
            lines += wrap(text, width, initial_indent="  ", subsequent_indent="    ")
        return lines

    def signature_lines(self, width: int = 80) -> list[str]:
        """Say who has signed and who has not."""
        said = {"valid": "signed", "missing": "has not signed", "invalid": "DOES NOT VERIFY"}
        lines = ["", "signatures"]
        for signer in self.signers:
            lines += _fact(signer.name, said[signer.signature], width)
        for name in self.strangers:
            lines += _fact(name, "IS NO SIGNER OF THIS CONTRACT", width)
        if self.is_complete:
            return [*lines, "  complete: all have signed"]
        waiting = ", ".join(self.missing) or "nothing"
        return [*lines, *wrap(f"missing: {waiting}", width, initial_indent="  ", subsequent_indent="    ")]


def _warnings(sheet: Sheet) -> Iterator[str]:
    contract = sheet.contract
    for signer in sheet.signers:
        if signer.signature == "invalid":
            yield f"the signature of {signer.name} does not verify: the text was changed since"
    for name in sheet.strangers:
        yield f"the file holds a signature of {name}, who is no signer"
    state = _validity(contract, sheet.now)
    if not state.startswith("valid"):
        yield f"the contract is {state}"
    try:
        check_roles(contract)
    except PolicyRefused as error:
        yield str(error)
    for party, columns in unused_grants(contract).items():
        yield f"{party} grants columns that do not take part: {', '.join(columns)}"
    for signer in sheet.signers:
        alphabets = _alphabets(signer.organisation)
        if len(alphabets) > 1:
            yield f"the name {signer.organisation!r} mixes alphabets ({', '.join(alphabets)}): look closely"


def _alphabets(text: str) -> tuple[str, ...]:
    """List the alphabets of a name among those that have look-alikes in each other."""
    found = {unicodedata.name(sign, "").partition(" ")[0] for sign in text if sign.isalpha()}
    return tuple(
        sorted(name.title() for name in found & {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "CHEROKEE"})
    )


def _validity(contract: Contract, now: datetime) -> str:
    if now < contract.created:
        return "not valid yet: it begins in the future"
    if now >= contract.expires:
        return "EXPIRED"
    left = contract.expires - now
    return f"valid for another {left.days} days" if left.days > 1 else "valid for less than two days"


def _moment(value: datetime) -> str:
    return value.strftime("%Y-%m-%d %H:%M:%S UTC")


def _fact(name: str, text: str, width: int) -> list[str]:
    return wrap(f"{name + ':':<12} {text}", width, initial_indent="  ", subsequent_indent=" " * 15)


def _signer_lines(contract: Contract, signer: SignerShown, width: int) -> list[str]:
    facts = {"role": signer.role, "who": signer.organisation, "fingerprint": signer.fingerprint}
    for party in contract.parties:
        if party.name == signer.name:
            facts |= {"ids": ", then ".join(party.id_kinds), "numbers": ", ".join(party.numbers)}
            facts |= {"categories": ", ".join(party.categories), "offset": party.offset or ""}
            facts |= {"weight": party.weight or "", "label": party.label or ""}
    if signer.role == "coordinator":
        facts["data"] = "none; runs the script and deals the masks"
    lines = [line for name, text in facts.items() if text for line in _fact(name, text, width)]
    return ["", signer.name, *lines]


def _auditor_lines(contract: Contract, width: int) -> list[str]:
    auditor = contract.auditor
    if auditor is None:
        return []
    facts = {
        "role": "auditor of the deals; signs nothing, gets the dealer seeds",
        "who": auditor.organisation,
        "key": fingerprint(bytes.fromhex(auditor.key)),
        "seal_key": f"{fingerprint(bytes.fromhex(auditor.seal_key))}, to compare out of band",
    }
    return ["", auditor.name, *(line for name, text in facts.items() for line in _fact(name, text, width))]


def _terms_lines(title: str, terms: BaseModel, width: int) -> list[str]:
    text = ", ".join(f"{name} = {_said(value)}" for name, value in terms.model_dump().items())
    return ["", title, *wrap(text, width, initial_indent="  ", subsequent_indent="  ")]


def _match_lines(contract: Contract, width: int) -> list[str]:
    terms, learned = contract.align, "for each of its people"
    if terms.hidden:
        epsilon = epsilon_text(terms.drop, terms.dummies)
        learned = "nothing" if float(epsilon) == 0 else f"at most epsilon = {epsilon} about each person"
    text = f"the partner learns who is common: {learned}"
    return wrap(text, width, initial_indent="  ", subsequent_indent="  ")


def _said(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
    )
