"""One party's table as a job or schema.toml names it: file, ids, columns, and who is left out of it."""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from fedmkt.contract.agreement import MORE_KEYS, special_columns
from fedmkt.contract.words import Count, IdKind, Name, Terms, Text, kind_of_key

Country = Annotated[str, Field(pattern=r"\A[1-9][0-9]{0,2}\z")]


class MoreId(Terms):
    """A further key in a party's file: one column, or several that are one key together (kind = "compound").

    name : of a second column of one kind, or of a compound key: the parts, where the own columns have other names.
    """

    column: Text | None = None
    columns: tuple[Text, ...] = ()
    kind: Literal["phone", "email", "national_id", "raw", "compound"]
    name: Text | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The columns to read."""
        return self.columns if self.column is None else (self.column,)

    @property
    def agreed(self) -> str:
        """What the contract calls this key: the same at every party."""
        name = "+".join(self.columns) if self.kind == "compound" and self.name is None else self.name
        return self.kind if name is None else f"{self.kind}:{name}"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "compound":
            if self.column is not None or len(self.columns) < 2 or len(set(self.columns)) < len(self.columns):
                raise ValueError('columns = ["one", "another"] for a compound key')
            if self.agreed.count("+") != len(self.columns) - 1:
                raise ValueError("a name with as many parts as columns, joined by +")
        elif self.column is None or self.columns:
            raise ValueError('column = "one"; several columns are a key of kind compound')
        kind_of_key(self.agreed)
        return self


class PartnerConfig(Terms):
    """One party of a job: its file, the id column and how ids are written, and the columns it brings.

    more_ids : further keys, tried in this order for people who are not found by their id.
    consent, opt_out, birth_date or age : who is left out of the list before anything is matched.
    reference : a second file with the same id and columns, of an earlier month or of the people to be scored: how far
    columns moved between its rows and those of training is measured, and may leave them out (bins.max_shift).
    """

    name: Name
    organisation: Text
    file: Text
    id: Text
    id_kind: IdKind
    more_ids: tuple[MoreId, ...] = Field(default=(), max_length=MORE_KEYS)
    country: Country = "86"
    numbers: tuple[Text, ...] = ()
    categories: tuple[Text, ...] = ()
    consent: Text | None = None
    opt_out: Text | None = None
    birth_date: Text | None = None
    age: Text | None = None
    minimum_age: Count | None = Field(default=None, ge=1, le=130)
    reference: Text | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that take part, the label last, the id not among them."""
        return (*self.numbers, *self.categories)

    @model_validator(mode="after")
    def _check(self) -> Self:
        named = (self.id, *self.columns)
        if len(set(named)) != len(named):
            raise ValueError("every column once, in id, numbers, categories, offset, weight or label")
        keys = [(self.id,), *(key.parts for key in self.more_ids)]
        if len(set(keys)) != len(keys):
            raise ValueError("every key once, in id or more_ids")
        if set(self.columns) & {part for parts in keys for part in parts}:
            raise ValueError("no column of a key among numbers, categories or label")
        self._check_filters()
        return self

    def _check_filters(self) -> None:
        if self.birth_date is not None and self.age is not None:
            raise ValueError("one of birth_date and age")
        if self.minimum_age is not None and self.birth_date is None and self.age is None:
            raise ValueError("minimum_age needs the column that tells the age: birth_date or age")
        # An age may be a feature too; whoever consented, or was born when, is no column of a model.
        named = [c for c in (self.consent, self.birth_date) if c is not None]
        if len({self.id, *self.columns, *named}) != 1 + len(self.columns) + len(named):
            raise ValueError("consent and birth_date are columns of their own")
        others = (self.id, self.consent, *self.columns[len(self.numbers) :])
        if self.age is not None and self.age in others:
            raise ValueError("age is a column of its own, or one in numbers")


class BankConfig(PartnerConfig):
    """The bank's side of a job; empty labels mark customers who were not in the campaign.

    offset, weight : columns as in `contract.PartyTerms`. label_kind : an answer, yes or no, or a number or count.
    """

    offset: Text | None = None
    weight: Text | None = None
    label: Text | None = None
    label_kind: Literal["class", "number"] = "class"

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that take part, the label last, the id not among them."""
        return (*self.numbers, *self.categories, *special_columns(self))


P = TypeVar("P", bound=PartnerConfig)


def id_list(party: P) -> P:
    """Return a party's table with its ids alone, and the columns that say who is left out."""
    special = {"offset": None, "weight": None, "label": None} if isinstance(party, BankConfig) else {}
    return party.model_copy(update={"numbers": (), "categories": (), "reference": None, **special})
