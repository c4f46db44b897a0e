"""C03, C04, C05 and C16: who must not be on a list.

The filters themselves (`party.filters`) take these people off while the list is read. Here a party asks whether each
filter that its contract calls for was applied: a count of dropped people is there, be it none.
"""

from collections.abc import Iterator

from fedmkt.party.controls.control import Breach, Control, RowsAsked

BY_CONSENT = ("PIPL-13-1", "GDPR-6-1-a")
"""The legal bases that are a person's own yes."""


def _consent(asked: RowsAsked) -> Iterator[Breach]:
    dataset = asked.dataset
    if dataset is None or not asked.config.policy.require_filters:
        return
    if set(dataset.basis) <= set(BY_CONSENT) and asked.dropped.consent is None:
        yield Breach(
            "the legal basis is consent, and nobody was asked for it row by row",
            "name the column that says who consented: consent = COLUMN in schema.toml",
        )


def _opt_out(asked: RowsAsked) -> Iterator[Breach]:
    terms = asked.contract.governance
    if terms is None or not asked.config.policy.require_filters:
        return
    if (
        terms.use == "marketing"
        and asked.dropped.opt_out is None
        and asked.config.name == asked.contract.bank.name
    ):
        yield Breach(
            "the results are for marketing, and no list of those who opted out was taken off",
            "name the list: opt_out = FILE in schema.toml; it may be empty",
        )


def _minors(asked: RowsAsked) -> Iterator[Breach]:
    dataset = asked.dataset
    if dataset is None or dataset.minimum_age is None:
        return
    if asked.dropped.age is None or asked.dropped.minimum_age < dataset.minimum_age:
        yield Breach(
            f"nobody under {dataset.minimum_age} years may take part, and the list was not filtered by that age",
            "name birth_date or age in schema.toml, with that minimum_age or a higher one",
        )


def _withdrawal(asked: RowsAsked) -> Iterator[Breach]:
    if asked.withdrawn.any():
        yield Breach("people who withdrew are still on the list", "read the list again")


CONTROLS = (
    Control("C03", "row-level consent", "PIPL 23", "require_filters", "datasets.basis, schema consent", rows=_consent),
    Control("C04", "marketing opt-out", "PIPL 24; Reg. 42", "require_filters", "use, schema opt_out", rows=_opt_out),
    Control("C05", "minors", "PIPL 28", "governance", "datasets.minimum_age, schema age", rows=_minors),
    Control("C16", "withdrawal", "PIPL 15, 47", "always", "the party's list of withdrawals", rows=_withdrawal),
)  # fmt: skip
