"""The pages that show something: overview, contract, controls, rights, acts; nothing here changes anything."""

from collections.abc import Callable
from typing import TypeVar

from fedmkt.console.visit import Answer, Visit
from fedmkt.contract.reading.contents import Reading, read
from fedmkt.contract.reading.review import review
from fedmkt.deploy.acts import verify_acts
from fedmkt.deploy.budgets import Budgets, read_budgets
from fedmkt.deploy.control_sheet import Judged, judge, ordered
from fedmkt.deploy.rights import Rights, read_rights
from fedmkt.errors import AuditError, FedmktError
from fedmkt.report.contract import form_of

MOST_ACTS = 300
T = TypeVar("T")


def overview(visit: Visit) -> Answer:
    """Show contracts and their state, runs and how far they are, budgets spent and left."""
    budgets, broken = _tried(lambda: read_budgets(visit.folder), Budgets((), ()))
    return visit.show("overview.html.j2", shelf=visit.shelf, budgets=budgets, broken=broken)


def contract_review(visit: Visit) -> Answer:
    """Show how a contract stands, what it changes and discloses, and to an approver the forms to decide."""
    entry = visit.shelf.contract(visit.ids["contract"])
    before = visit.shelf.before(entry)
    document = review(entry.contract, None if before is None else before.contract, visit.language)
    return visit.show(
        "contract.html.j2", entry=entry, before=before, after=visit.shelf.after(entry), document=document,
        form=form_of, tab="review",
    )  # fmt: skip


def contract_text(visit: Visit) -> Answer:
    """Show the whole contract as people read it, with approvals and signatures."""
    entry = visit.shelf.contract(visit.ids["contract"])
    document = read(Reading(entry.signed, entry.statements, visit.now), visit.language)
    return visit.show("text.html.j2", entry=entry, document=document, form=form_of, tab="text")


def contract_controls(visit: Visit) -> Answer:
    """Show what each control says of a contract at this party."""
    entry = visit.shelf.contract(visit.ids["contract"])
    judged: Judged | None = None
    if entry.file is not None:
        judged = judge(entry.file, visit.folder.root, visit.now)
    later = [control.id for control in ordered() if control.contract is None]
    return visit.show("judged.html.j2", entry=entry, judged=judged, later=later, tab="controls")


def controls(visit: Visit) -> Answer:
    """List the controls."""
    return visit.show("controls.html.j2", controls=ordered())


def rights(visit: Visit) -> Answer:
    """Show how many have withdrawn and which models to train again; counts and days only."""
    found, broken = _tried(lambda: read_rights(visit.folder), Rights(0, {}, None, None, ()))
    return visit.show("rights.html.j2", rights=found, broken=broken)


def acts(visit: Visit) -> Answer:
    """Show the last acts, after verifying that none was changed."""
    try:
        chain = verify_acts(visit.folder.root)
    except AuditError as error:
        return visit.show("acts.html.j2", acts=(), count=0, broken=str(error))
    found = () if chain is None else chain.acts
    return visit.show("acts.html.j2", acts=found[: -MOST_ACTS - 1 : -1], count=len(found), broken="")


def _tried(read_it: Callable[[], T], nothing: T) -> tuple[T, str]:
    """Let one part of a page fail alone, in one line."""
    try:
        return read_it(), ""
    except FedmktError as error:
        return nothing, str(error)
