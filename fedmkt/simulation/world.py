"""A synthetic bank and its partners, with a joint signal of known size and ids as people really write them.

The only module that holds two parties' data at once. Whether a person responds depends on a bank part and a
partner part, each nearly linear in that party's columns: the bank's columns alone reach an AUC of about .68,
both together about .80, and a second partner adds a little more. People, phones and addresses are invented
(addresses lie in the domains that RFC 2606 reserves for examples).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedmkt.contract.agreement import Limits

LABEL: Final = "responded"
COUNTRY: Final = "86"
USUAL_MINIMUM: Final = Limits().min_common

_SIGNALS: Final = (0.88, 1.23, 0.6)  # standard deviations of the parts of the log-odds
_INTERCEPT: Final = -3.1
_LABELLED: Final = 0.85
_DOMAINS: Final = ("example.com", "example.org", "example.net", "mail.example.com", "post.example.org")
_NAMES: Final = (
    *("an", "bao", "chen", "dan", "fang", "gang", "hao", "hui", "jia", "jing", "kai", "lan", "lei", "lin"),
    *("mei", "ming", "na", "ning", "peng", "qin", "rui", "shan", "ting", "wei", "xia", "xin", "yan", "yi"),
)
_FULL_WIDTH: Final = str.maketrans({chr(c): chr(c + 0xFEE0) for c in b"0123456789@"})
_UNUSABLE: Final = ("", "", "", "n/a", "unknown", "-", "12345", "none")

_PHONE_STYLES: Final[tuple[Callable[[str, str], str], ...]] = (
    lambda country, n: n,
    lambda country, n: n,
    lambda country, n: f"+{country}{n}",
    lambda country, n: f"+{country} {n[:3]} {n[3:-4]} {n[-4:]}",
    lambda country, n: f"00{country}{n}",
    lambda country, n: f"{country}{n}",
    lambda country, n: f"{n[:3]}-{n[3:-4]}-{n[-4:]}",
    lambda country, n: f"{n[:3]} {n[3:-4]} {n[-4:]} ",
    lambda country, n: f"(+{country}) {n[:3]}.{n[3:-4]}.{n[-4:]}",
    lambda country, n: f"  {n}",
    lambda country, n: f"0{n}",
    lambda country, n: n.translate(_FULL_WIDTH),
)
_EMAIL_STYLES: Final[tuple[Callable[[str], str], ...]] = (
    lambda address: address,
    lambda address: address,
    lambda address: address,
    str.title,
    str.upper,
    lambda address: f" {address}",
    lambda address: f"{address}  ",
    lambda address: address.capitalize(),
    lambda address: address.translate(_FULL_WIDTH),
)


@dataclass(frozen=True)
class PartyFile:
    """One party of a job as its job.toml describes it: names, file and feature columns."""

    name: str
    organisation: str
    file: str
    numbers: tuple[str, ...]
    categories: tuple[str, ...]


BANK: Final = PartyFile(
    "bank",
    "Example Bank",
    "bank.csv",
    ("age", "balance", "tenure_years", "products", "card_payments"),
    ("job", "region", "has_loan"),
)
PARTNERS: Final = (
    PartyFile(
        "partner",
        "Example Shop",
        "partner.csv",
        ("orders", "spend", "days_since_order", "visits", "returns"),
        ("favourite", "device", "loyalty"),
    ),
    PartyFile(
        "partner2",
        "Example Telecom",
        "partner2.csv",
        ("data_gb", "calls", "bill", "contract_months", "roaming_days"),
        ("plan", "handset", "channel"),
    ),
)


@dataclass(frozen=True, repr=False)
class World:
    """One table per organisation; columns phone, email, its features, and at the bank the label."""

    bank: pd.DataFrame
    partners: list[pd.DataFrame]


def generate(
    seed: int, bank_rows: int = 20_000, partner_rows: int = 25_000, common: int = 12_000, partners: int = 1
) -> World:
    """Make one bank and one or two partners; equal arguments give equal tables.

    `common` is exactly the number of people with a usable phone, and a usable e-mail, in the bank's and in
    each partner's table. Tables have `bank_rows` and `partner_rows` rows, among them a few that repeat a
    person and a few without a usable id. With two partners, five sixths of `common` are in all three tables.
    """
    if not 1 <= partners <= len(PARTNERS):
        raise ValueError(f"1 to {len(PARTNERS)} partners can be made")
    if not 1 <= common <= min(bank_rows, partner_rows):
        raise ValueError("common must lie between 1 and the rows of either side")
    random = np.random.default_rng(seed)
    size = bank_rows + partners * (partner_rows - common)
    phones, emails = draw_phones(random, size, COUNTRY), draw_emails(random, size)
    makers = (_bank_columns, _shop_columns, _telecom_columns)[: 1 + partners]
    made = [maker(random, size) for maker in makers]
    log_odds = _INTERCEPT + sum(s * part for s, (part, _) in zip(_SIGNALS, made, strict=False))
    label = (random.random(size) < 1 / (1 + np.exp(-log_odds))).astype(np.float64)
    label[random.random(size) >= _LABELLED] = np.nan
    made[0][1][LABEL] = pd.Series(label).astype("Int64")

    shift = min(common // 6, bank_rows - common)  # where the second partner's customers begin at the bank
    at_bank = [np.arange(common) + shift * partner for partner in range(partners)]
    tables = [
        _table(random, np.arange(bank_rows), common + shift * (partners - 1), phones, emails, made[0][1])
    ]
    for partner in range(partners):
        own = np.arange(partner_rows - common) + bank_rows + partner * (partner_rows - common)
        members = np.concatenate([at_bank[partner], own])
        tables.append(_table(random, members, common, phones, emails, made[1 + partner][1]))
    return World(tables[0], tables[1:])


def write_world(world: World, folder: Path | str, minimum: int = USUAL_MINIMUM) -> Path:
    """Write bank.csv, a CSV per partner and job.toml; returns the path of job.toml.

    minimum : smallest list and smallest intersection that the job allows; under the usual one the job also
        allows too few responders for its passes
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partners = PARTNERS[: len(world.partners)]
    for party, table in zip((BANK, *partners), (world.bank, *world.partners), strict=True):
        table.to_csv(folder / party.file, index=False, lineterminator="\n")
    job = folder / "job.toml"
    job.write_text(job_text("spring-campaign", BANK, partners, COUNTRY, minimum), encoding="utf-8")
    return job


PATH = (
    "#penalties = [1.0, 10.0, 100.0]  # in place of penalty: the best is found on rows kept from training\n"
)
"""A line of a job's [model], to be switched on."""


def job_text(
    name: str,
    bank: PartyFile,
    partners: Sequence[PartyFile],
    country: str,
    minimum: int = USUAL_MINIMUM,
    model: str = "[model]\npenalty = 1.0\n" + PATH,
) -> str:
    """Write out a job.toml that joins on phones of `country` and predicts this module's label.

    model : what kind of model, as the sections of a job say it
    """
    blocks = [f'name = {json.dumps(name)}\npurpose = "marketing-response"\n']
    blocks.append(f"[bank]\n{_party_text(bank, country)}label = {json.dumps(LABEL)}\n")
    blocks += [f"[[partners]]\n{_party_text(partner, country)}" for partner in partners]
    blocks.append(model)
    small = "min_events = 0\n" if minimum < USUAL_MINIMUM else ""
    blocks.append(f"[limits]\nmin_list = {minimum}\nmin_common = {minimum}\n{small}")
    return "\n".join(blocks)


def _party_text(party: PartyFile, country: str) -> str:
    entries = {
        "name": party.name,
        "organisation": party.organisation,
        "file": party.file,
        "id": "phone",
        "id_kind": "phone",
        "country": country,
        "numbers": list(party.numbers),
        "categories": list(party.categories),
    }
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in entries.items())


def draw_phones(random: np.random.Generator, count: int, country: str) -> NDArray[np.int64]:
    """Distinct national mobile numbers of country "86" or "351"; ValueError for any other."""
    if country == "86":
        return 13_000_000_000 + random.choice(7_000_000_000, count, replace=False)
    if country == "351":
        prefix, rest = np.divmod(random.choice(40_000_000, count, replace=False), 10_000_000)
        return np.array([910_000_000, 920_000_000, 930_000_000, 960_000_000])[prefix] + rest
    raise ValueError('phones can be made for country "86" and "351"')


def draw_emails(random: np.random.Generator, count: int) -> NDArray[np.object_]:
    """Distinct addresses in canonical spelling."""
    first, second = random.integers(len(_NAMES), size=(2, count)).tolist()
    domain, number = random.integers(len(_DOMAINS), size=count).tolist(), random.permutation(count).tolist()
    rows = zip(first, second, number, domain, strict=True)
    return np.array([f"{_NAMES[a]}.{_NAMES[b]}{n}@{_DOMAINS[d]}" for a, b, n, d in rows], dtype=np.object_)


def write_phones(random: np.random.Generator, phones: NDArray[np.int64], country: str) -> NDArray[np.object_]:
    """Each number in one of a dozen careless spellings, all of which mean the same to `normalise`."""
    styles = random.integers(len(_PHONE_STYLES), size=len(phones)).tolist()
    rows = zip(styles, phones.tolist(), strict=True)
    return np.array([_PHONE_STYLES[style](country, str(phone)) for style, phone in rows], dtype=np.object_)


def write_emails(random: np.random.Generator, emails: NDArray[np.object_]) -> NDArray[np.object_]:
    """Each address in some careless spelling, all of which mean the same to `normalise`."""
    styles = random.integers(len(_EMAIL_STYLES), size=len(emails)).tolist()
    rows = zip(styles, emails.tolist(), strict=True)
    return np.array([_EMAIL_STYLES[style](email) for style, email in rows], dtype=np.object_)


def _table(
    random: np.random.Generator,
    members: NDArray[np.int64],
    protected: int,
    phones: NDArray[np.int64],
    emails: NDArray[np.object_],
    columns: dict[str, object],
) -> pd.DataFrame:
    """One organisation's file: its members in another order, a few of them twice, a few without a usable id.

    The first `protected` members are somebody's common customers and keep their ids.
    """
    rows = len(members)
    spare = rows - protected
    repeated, unusable = min(rows // 200, spare // 2), min(rows // 250, spare // 2)
    members = members.copy()
    members[rows - repeated :] = random.choice(members[: rows - repeated - unusable], repeated)
    is_unusable = np.zeros(rows, dtype=np.bool_)
    is_unusable[rows - repeated - unusable : rows - repeated] = True
    is_repeated = np.arange(rows) >= rows - repeated
    order = random.permutation(rows)
    members, is_unusable, is_repeated = members[order], is_unusable[order], is_repeated[order]

    table = pd.DataFrame(columns).iloc[members].reset_index(drop=True)
    if LABEL in table:
        table.loc[is_repeated & (random.random(rows) < 0.5), LABEL] = pd.NA
    ids = {
        "phone": write_phones(random, phones[members], COUNTRY),
        "email": write_emails(random, emails[members]),
    }
    for written in ids.values():
        written[is_unusable] = random.choice(np.array(_UNUSABLE, dtype=np.object_), int(is_unusable.sum()))
    return pd.concat([pd.DataFrame(ids), table], axis=1)


def _part(factors: NDArray[np.float64], weights: Sequence[float]) -> NDArray[np.float64]:
    """Combine standard normal factors into a standard normal part."""
    scaled = np.asarray(weights, dtype=np.float64)
    return np.asarray(factors.T @ (scaled / np.sqrt(np.square(scaled).sum())), dtype=np.float64)


def _gaps(random: np.random.Generator, values: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    return np.where(random.random(len(values)) < share, np.nan, values)


def _whole(values: NDArray[np.float64], low: int, high: int) -> NDArray[np.int64]:
    return np.clip(np.floor(values), low, high).astype(np.int64)


def _levels(factor: NDArray[np.float64], edges: Sequence[float], names: Sequence[str]) -> NDArray[np.object_]:
    return np.array(names, dtype=np.object_)[np.searchsorted(edges, factor)]


_Made = tuple[NDArray[np.float64], dict[str, object]]


def _bank_columns(random: np.random.Generator, size: int) -> _Made:
    f = random.standard_normal((7, size))
    jobs = ("student", "services", "trade", "office", "manager", "retired")
    job = _levels(f[5], (-1.2, -0.5, 0.1, 0.7, 1.4), jobs)
    job[random.random(size) < 0.03] = None
    regions = np.array(("north", "east", "south", "west", "centre", "coast", "hills"), dtype=np.object_)
    columns: dict[str, object] = {
        "age": _whole(44.5 + 13 * f[0], 18, 95),
        "balance": _gaps(random, np.round(np.exp(7.5 + 0.6 * f[1]) - 400, 2), 0.05),
        "tenure_years": _gaps(random, np.round(np.exp(1.6 + 0.5 * f[2]), 1), 0.02),
        "products": _whole(2.7 + 1.1 * f[3], 1, 7),
        "card_payments": _whole(np.exp(2.8 + 0.5 * f[4]), 0, 500),
        "job": job,
        "region": regions[random.integers(len(regions), size=size)],
        "has_loan": np.where(f[6] > 0.8, "yes", "no").astype(np.object_),
    }
    return _part(f, (0.35, 0.5, 0.35, 0.45, 0.4, 0.5, -0.4)), columns


def _shop_columns(random: np.random.Generator, size: int) -> _Made:
    f = random.standard_normal((7, size))
    favourites = ("toys", "books", "food", "garden", "clothes", "sports", "electronics")
    loyalty = _levels(f[6], (-0.3, 0.7, 1.5), ("none", "bronze", "silver", "gold"))
    loyalty[random.random(size) < 0.15] = None
    devices = np.array(("android", "ios", "desktop"), dtype=np.object_)
    columns: dict[str, object] = {
        "orders": _whole(np.exp(1.6 + 0.6 * f[0]), 0, 500),
        "spend": np.round(np.exp(4.5 + 0.6 * f[1]), 2),
        "days_since_order": _gaps(random, np.round(np.exp(3.5 + 0.6 * f[2])), 0.06),
        "visits": _whole(np.exp(2.4 + 0.6 * f[3]), 0, 900),
        "returns": _whole(np.exp(0.6 + 0.6 * f[4]), 0, 90),
        "favourite": _levels(f[5], (-1.4, -0.7, -0.2, 0.3, 0.8, 1.4), favourites),
        "device": devices[random.integers(len(devices), size=size)],
        "loyalty": loyalty,
    }
    return _part(f, (0.5, 0.5, -0.5, 0.45, -0.2, 0.4, 0.4)), columns


def _telecom_columns(random: np.random.Generator, size: int) -> _Made:
    f = random.standard_normal((6, size))
    channels = np.array(("shop", "web", "phone"), dtype=np.object_)
    columns: dict[str, object] = {
        "data_gb": _gaps(random, np.round(np.exp(2 + 0.6 * f[0]), 1), 0.04),
        "calls": _whole(np.exp(3.5 + 0.6 * f[1]), 0, 2000),
        "bill": np.round(np.exp(3.2 + 0.4 * f[2]), 2),
        "contract_months": _whole(18 + 9 * f[3], 0, 60),
        "roaming_days": _whole(0.5 + 2 * f[4], 0, 30),
        "plan": _levels(f[5], (-0.6, 0.5, 1.3), ("prepaid", "basic", "plus", "unlimited")),
        "handset": _levels(random.standard_normal(size), (-1, 0, 1), ("old", "low", "middle", "high")),
        "channel": channels[random.integers(len(channels), size=size)],
    }
    return _part(f, (0.5, 0.3, 0.4, -0.4, 0.3, 0.5)), columns
