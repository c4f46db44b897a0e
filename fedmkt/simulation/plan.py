"""What a job will cost and disclose, before anything runs.

Reads the job and the number of rows in each file, nothing else: what only the run finds out is assumed, and
the assumptions stand in the plan. Rounds come from a rehearsal of the script, bytes from the sizes of its
messages, bounds from the same function that the run asserts.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from textwrap import wrap

from fedmkt.config.drafts import draft_contract
from fedmkt.config.job import JobConfig
from fedmkt.config.tables import BankConfig, PartnerConfig
from fedmkt.contract.agreement import Contract
from fedmkt.errors import ConfigError, DataError
from fedmkt.learn.additive import FACTORS
from fedmkt.learn.factors import COLUMNS as PAIR_COLUMNS
from fedmkt.privacy.disclosure import DealerSeeds, plain_text_of
from fedmkt.privacy.superset import epsilon_text
from fedmkt.protocol.alignment.align import scored_rows, train_rows
from fedmkt.protocol.alignment.hidden import expected_overlap
from fedmkt.protocol.alignment.psi import Overlap, engine_name
from fedmkt.protocol.core import Name
from fedmkt.protocol.layout import FIT, SCORE
from fedmkt.protocol.linear.bounds import job_bounds
from fedmkt.protocol.linear.links import harmonics
from fedmkt.protocol.linear.penalties import all_passes
from fedmkt.protocol.prepare import MAX_COLUMNS, MAX_ROW_NORM, Shape
from fedmkt.ring.bounds import Bound
from fedmkt.simulation.rehearsal import Planned, rehearse
from fedmkt.simulation.run import read_job
from fedmkt.simulation.traffic import Sizes, bytes_sent
from fedmkt.simulation.tree_plan import tree_assumptions, tree_bounds, tree_memory, tree_seconds

LEVELS = 6
"""Columns that one category is assumed to become; each frequent level is one."""

# Seconds on one core of an AMD EPYC, measured with `fedmkt demo` and `python -m benchmarks.train`.
_PER_POINT = 42e-6
"""One id blinded, evaluated or finished."""
_PER_ITEM = 2e-6
"""One id of a long list, at the fast engines."""
_PER_COUNTED = 100e-6
"""One id hashed to the group and blinded twice, once at each party."""
_PER_ROUND = 5e-3
_PER_ROW = 1.2e-6
"""One row of one pass, beside its columns: most of it is the dealer's sines."""
_PER_CELL = 6e-9
"""One column of one row of one pass."""
_PREPARED_CELL = 6e-8
"""One column of one row imputed, scaled and whitened, all passes over it together."""
_PER_BIN = 6e-9
"""One bin of one row in the totals that a bank is shown."""
_CORRELATED_CELL = 4e-9
"""One row of one pair of columns, at dealer and parties together."""
_READ_PER_ROW = 6e-6
_COMPARE = 1.5
"""Measuring the models and drawing the report."""
_PROCESS = 220 << 20
"""Bytes of a process that has imported everything and holds no data."""
_ID_BYTES = 400
"""One id with its points, tags and proofs."""
_MEASURED = "times as measured on 2 cores of an AMD EPYC, with nothing else running"
_SINE_COPIES = 3
"""How often the dealt sines of one block exist at once: at the dealer, sealed, at the bank."""


@dataclass(frozen=True)
class PlannedParty:
    """One party: the rows of its file, the columns that it is assumed to bring, the bytes it will send."""

    name: str
    rows: int
    columns: int
    bytes: int


@dataclass(frozen=True)
class PlannedDisclosure:
    """One kind of disclosure that the contract allows, and what its reader can compute from it."""

    kind: str
    releases: int
    text: str


@dataclass(frozen=True)
class Plan:
    """A job before it runs; every number of people is an upper bound unless it was given.

    hidden : epsilon of what the partner learns about who is common, None where it is shown that
    train_rows, scored_rows : padded, as every party will see them; memory : bytes of the whole process
    seconds : by stage; max_row_norm : the largest row norm under which all bounds hold. A job that only counts
    common customers has no columns, rows and bounds.
    """

    job: str
    task: str
    parties: tuple[PlannedParty, ...]
    common: int
    labelled: int
    hidden: str | None
    train_rows: int
    scored_rows: int
    coordinator: str
    dealer_bytes: int
    memory: int
    rounds: int
    seconds: dict[str, float]
    row_norm: int
    max_row_norm: int
    bounds: tuple[Bound, ...]
    disclosures: tuple[PlannedDisclosure, ...]
    assumptions: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Give the plan as plain data."""
        bounds = [{**asdict(b), "holds": b.holds} for b in self.bounds]
        return {**asdict(self), "bounds": bounds, "bytes": self.bytes_sent}

    @property
    def bytes_sent(self) -> dict[str, int]:
        """Bytes sent by each party and by the dealer."""
        return {p.name: p.bytes for p in self.parties} | {self.coordinator: self.dealer_bytes}

    def lines(self, width: int = 80) -> list[str]:
        """Say it in lines of at most `width` characters."""
        total = sum(self.seconds.values())
        steps = ", ".join(f"{name} {value:.0f}" for name, value in self.seconds.items() if value >= 0.5)
        steps = steps or "of every step less than one"
        lines = [f"job {self.job}: before anything runs"]
        lines += [f"  {p.name}: {p.rows:,} rows{_columns(p)}, sends {_size(p.bytes)}" for p in self.parties]
        lines += [
            f"  {self.coordinator} (dealer): no data, sends {_size(self.dealer_bytes)}",
            *self._rows_lines(),
            f"  rounds: {self.rounds:,}",
            f"  memory: about {_size(self.memory)} for all parties in one process",
            *_wrapped(f"time: about {total:.0f} s on 2 cores ({steps})", width),
            "assumed",
            *(line for text in self.assumptions for line in _wrapped(f"- {text}", width)),
            *self._bounds_lines(),
            "disclosures that the contract allows; anything else is refused",
        ]
        for item in self.disclosures:
            text = f"- {item.kind}{'' if item.releases == 1 else f', {item.releases} times'}: {item.text}"
            lines += wrap(text, width, initial_indent="  ", subsequent_indent="    ")
        return lines

    def _rows_lines(self) -> list[str]:
        if self.task == "overlap":
            return ["  common customers: counted, shown as a band"]
        common = f"  common customers: at most {self.common:,}, of them {self.labelled:,} with a label"
        if self.hidden is not None:
            rows = f"  rows: {self.train_rows:,} people of the partner, whoever is common"
            tells = (
                "nothing" if float(self.hidden) == 0 else f"at most epsilon = {self.hidden} for each person"
            )
            return [common, rows, f"  the partner learns who is common: {tells}"]
        return [common, f"  rows, padded: {self.train_rows:,} to train, {self.scored_rows:,} to score"]

    def _bounds_lines(self) -> list[str]:
        if self.task == "overlap":
            return []
        if not self.row_norm:
            return ["encrypted totals", *(_bound_line(b) for b in self.bounds)]
        return [
            f"fixed point, for row norms up to {self.row_norm} (all hold up to {self.max_row_norm})",
            *(_bound_line(b) for b in self.bounds),
        ]


def plan(
    job: Path | str,
    common: int | None = None,
    labelled: int | None = None,
    columns: Mapping[str, int] | None = None,
) -> Plan:
    """Plan a job; `common` and `labelled` : expected numbers of common customers, and of those with a label.

    Without them the shortest list counts as common, and all of it as labelled: no more rows are possible.
    columns : prepared columns of each party, where they are known from an earlier run.
    """
    path = Path(job)
    config = read_job(path)
    contract = _draft(config)
    lists = {Name(p.name): count_rows(path.parent / p.file, p) for p in config.parties}
    if config.task == "overlap":
        return _plan_overlap(config, contract, lists)
    # Where all of the bank's customers take part, as many rows do, whoever is common.
    most = next(iter(lists.values())) if config.align.join == "left" else min(lists.values())
    people = _checked("common", common, most)
    with_label = _checked("labelled", labelled, people)
    without = people - with_label if config.scores.unlabelled else 0
    overlap = expected_overlap(contract, tuple(lists.values()), with_label, without)
    of_kind = tree_columns_of if contract.model.kind == "trees" else columns_of
    widths = {p.name: of_kind(config, p) for p in config.parties} | dict(columns or {})
    shapes = {Name(p.name): Shape(widths[p.name], 1) for p in config.parties}
    sizes = Sizes(contract, overlap, shapes, lists)
    rounds = rehearse(contract, lists, overlap, shapes)
    sent: Counter[str] = Counter()
    for call in (c for r in rounds for c in r):
        sent[call.party] += bytes_sent(sizes, call)
    is_trees = contract.model.kind == "trees"
    norm = 0 if is_trees else math.ceil(3 * math.sqrt(max(s.columns for s in shapes.values())))
    return Plan(
        job=config.name,
        task=config.task,
        parties=tuple(
            PlannedParty(name, lists[name], shapes[name].columns, sent[name]) for name in sizes.parties
        ),
        common=people,
        labelled=with_label,
        hidden=epsilon_text(config.align.drop, config.align.dummies) if config.align.hidden else None,
        train_rows=train_rows(contract, overlap),
        scored_rows=scored_rows(contract, overlap),
        coordinator=config.coordinator.name,
        dealer_bytes=sent[config.coordinator.name],
        memory=_memory(sizes),
        rounds=len(rounds),
        seconds=_seconds(sizes, len(rounds)),
        row_norm=norm,
        max_row_norm=0 if is_trees else _largest_norm(contract, overlap, shapes),
        bounds=tuple(tree_bounds(sizes) if is_trees else _bounds(contract, overlap, shapes, norm)),
        disclosures=_disclosures(contract, rounds),
        assumptions=(
            *(tree_assumptions(contract, sizes) if is_trees else ()),
            *_assumptions(config, common, labelled, columns),
        ),
    )


def _plan_overlap(config: JobConfig, contract: Contract, lists: Mapping[Name, int]) -> Plan:
    """Plan a job that only counts the common customers."""
    bank, *partners = lists.values()
    sizes = Sizes(contract, Overlap(0, 0, 0, 0), {}, lists)
    rounds = rehearse(contract, lists, sizes.overlap, sizes.shapes)
    sent: Counter[str] = Counter()
    for call in (c for r in rounds for c in r):
        sent[call.party] += bytes_sent(sizes, call)
    seconds = {
        "read": _READ_PER_ROW * sum(lists.values()),
        "overlap": _PER_COUNTED * sum(bank + partner for partner in partners),
        "messages": _PER_ROUND * len(rounds),
    }
    return Plan(
        job=config.name,
        task=config.task,
        parties=tuple(PlannedParty(p, rows, 0, sent[p]) for p, rows in lists.items()),
        common=min(lists.values()),
        labelled=0,
        hidden=None,
        train_rows=0,
        scored_rows=0,
        coordinator=config.coordinator.name,
        dealer_bytes=sent[config.coordinator.name],
        memory=_PROCESS + _ID_BYTES * sum(lists.values()),
        rounds=len(rounds),
        seconds={name: round(value, 2) for name, value in seconds.items()},
        row_norm=0,
        max_row_norm=0,
        bounds=(),
        disclosures=_disclosures(contract, rounds),
        assumptions=(_MEASURED,),
    )


def _draft(config: JobConfig) -> Contract:
    """Write the contract that the job asks for, with made-up keys: a plan signs nothing."""
    names = [*(p.name for p in config.parties), config.coordinator.name]
    return draft_contract(config, {n: hashlib.sha256(n.encode()).digest() for n in names}, datetime.now(UTC))


def count_rows(path: Path, party: PartnerConfig) -> int:
    """Count the rows of a party's file without reading a cell of it."""
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            rows = _parquet_rows(path)
        else:
            with path.open("rb") as file:
                lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
            rows = lines - 1
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", f"the job names it as the file of {party.name}"
        ) from None
    if rows < 1:
        raise DataError(f"{path}: no rows below the column names")
    return rows


def _parquet_rows(path: Path) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except pa.ArrowException:
        raise DataError(f"{path}: not a Parquet file") from None


def _checked(name: str, given: int | None, limit: int) -> int:
    if given is None:
        return limit
    if not 0 < given <= limit:
        raise ConfigError(f"{name} = {given}: accepted: 1 to {limit}")
    return given


def columns_of(config: JobConfig, party: PartnerConfig) -> int:
    """Assume how many columns a party's matrix will have."""
    levels = 1 if config.model.kind == "scorecard" else min(LEVELS, config.limits.max_levels)
    number = _number_columns(config)
    known = config.align.join == "left" and isinstance(party, BankConfig)
    factors = {name: min(FACTORS, number) for name in party.numbers} | dict.fromkeys(party.categories, levels)
    pairs = sum(factors[left] * factors[right] for left, right in config.additive.pairs_of(party.name))
    return min(MAX_COLUMNS, number * len(party.numbers) + levels * len(party.categories) + known + pairs)


def _number_columns(config: JobConfig) -> int:
    """Count the columns of one number: more where it becomes a function."""
    if config.model.kind != "additive":
        return 1
    return config.additive.knots + (3 if config.additive.basis == "spline" else 0)


def tree_columns_of(config: JobConfig, party: PartnerConfig) -> int:
    """Count the columns of a party as trees see them."""
    return len(party.numbers) + len(party.categories)


def _memory(sizes: Sizes) -> int:
    if sizes.contract.model.kind == "trees":
        return _PROCESS + _ID_BYTES * sum(sizes.lists.values()) + tree_memory(sizes)
    fit, score = sizes.plan(FIT), sizes.plan(SCORE)
    columns = {p: fit.columns_of(p) for p in sizes.parties}
    tables = sum(rows * (8 * columns[p] + _ID_BYTES) for p, rows in sizes.lists.items())
    # Each party holds its own matrix (4 bytes, 8 with shares of pairs) and all others' masked ones (8 bytes).
    held = {p: fit.held_of(p) for p in sizes.parties}
    own = sum((4 if held[p] == columns[p] else 8) * held[p] for p in sizes.parties)
    matrices = fit.total * (own + 8 * sizes.others * sum(held.values()))
    block = max((b.stop - b.start for b in fit.sigmoid_blocks(sizes.contract)), default=0)
    sines = _SINE_COPIES * block * (8 * harmonics(sizes.contract) + 16)
    return _PROCESS + tables + matrices + sines + 200 * max(fit.total, score.total)


def _seconds(sizes: Sizes, rounds: int) -> dict[str, float]:
    bank, *partners = (sizes.items(p) for p in sizes.parties)
    points = (1 + 2 * len(partners)) * bank + sum(partners)
    one_item = _PER_POINT
    if engine_name(sizes.contract, {p: sizes.items(p) for p in sizes.parties}) != "oprf":
        points, one_item = len(partners) * bank + sum(partners), _PER_ITEM
    model = tree_seconds(sizes) if sizes.contract.model.kind == "trees" else _linear_seconds(sizes)
    found = {
        "read": _READ_PER_ROW * sum(sizes.lists.values()),
        "psi": one_item * points,
        **model,
        "messages": _PER_ROUND * rounds,
        "report": _COMPARE,
    }
    return {name: round(value, 2) for name, value in found.items()}


def _linear_seconds(sizes: Sizes) -> dict[str, float]:
    fit, score = sizes.plan(FIT), sizes.plan(SCORE)
    one = _PER_ROW + _PER_CELL * fit.width
    prepared = _PREPARED_CELL * (fit.total + score.total) * fit.width
    if sizes.contract.model.kind == "scorecard":
        prepared += sum(_PER_BIN * fit.rows * sizes.trees.bins[p].width for p in sizes.parties[1:])
    if "CrossCorrelation" in sizes.contract.disclosures:
        prepared += _CORRELATED_CELL * fit.rows * fit.width**2
    return {
        "prepare": prepared,
        "fit": all_passes(sizes.contract) * fit.total * one,
        "score": score.total * one,
    }


def _bounds(contract: Contract, overlap: Overlap, shapes: Mapping[Name, Shape], norm: int) -> list[Bound]:
    return job_bounds(contract, overlap, {p: Shape(s.columns, norm) for p, s in shapes.items()})


def _largest_norm(contract: Contract, overlap: Overlap, shapes: Mapping[Name, Shape]) -> int:
    low, high = 0, MAX_ROW_NORM
    while low < high:
        middle = (low + high + 1) // 2
        holds = all(b.holds for b in _bounds(contract, overlap, shapes, middle))
        low, high = (middle, high) if holds else (low, middle - 1)
    return low


def _disclosures(contract: Contract, rounds: Sequence[Sequence[Planned]]) -> tuple[PlannedDisclosure, ...]:
    """List what the contract allows; `releases` : how many rounds may release it, or epochs their seeds."""
    releases = Counter(kind.__name__ for r in rounds for kind in {k for call in r for k in call.step.reveals})
    if contract.auditor is not None:
        releases[DealerSeeds.__name__] = 1  # of the one epoch of a run that is not resumed
    return tuple(
        PlannedDisclosure(kind, releases[kind], plain_text_of(kind)) for kind in contract.disclosures
    )


def _assumptions(
    config: JobConfig, common: int | None, labelled: int | None, columns: Mapping[str, int] | None
) -> tuple[str, ...]:
    levels = min(LEVELS, config.limits.max_levels)
    kind, count = config.model.kind, _number_columns(config)
    number = "one column" if count == 1 else f"{count} columns"
    assumed = {
        f"{number} for each number, {levels} for each category": columns is None
        and kind in ("logistic", "additive"),
        "one column for each number and category, and as many bins as the contract allows": kind
        == "scorecard",
        f"{PAIR_COLUMNS**2} columns, of which both hold shares, for each pair of two parties": bool(
            config.additive.across
        ),
        "the shortest list is common (give the expected number with --common)": common is None,
        "every common customer has a label (give the expected number with --labelled)": labelled is None,
        _MEASURED: True,
    }
    return tuple(text for text, holds in assumed.items() if holds)


def _wrapped(text: str, width: int) -> list[str]:
    return wrap(text, width, initial_indent="  ", subsequent_indent="    ")


def _bound_line(bound: Bound) -> str:
    sign = "ok" if bound.holds else "TOO LARGE"
    return f"  {bound.name:<20} 2^{bound.bits:<5.1f} limit 2^{bound.limit:<5g} {sign}"


def _columns(party: PlannedParty) -> str:
    return f", about {party.columns} columns" if party.columns else ""


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 100 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
