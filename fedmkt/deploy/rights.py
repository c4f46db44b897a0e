"""A customer's rights at one party: withdrawal, and opt-out asked again before scores are written.

`withdraw` puts ids on the party's list, from which on they are left out of the next run and of all scores, and flags
the models that were trained with them. `recheck` asks the opt-out list again whenever scores are written.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from fedmkt.audit.acts import Actor
from fedmkt.crypto.prg import Random
from fedmkt.deploy.folders import PartyFolder, load_party_folder
from fedmkt.errors import ConfigError, DataError
from fedmkt.party.acts_log import ActsLog
from fedmkt.party.keys import Listed, read_listed
from fedmkt.party.node import schema_of
from fedmkt.party.release import EXPIRES, read_expiry
from fedmkt.party.run_people import KEY, note_left, read_left
from fedmkt.party.store import Store
from fedmkt.party.table import TableSchema, read_opt_out
from fedmkt.party.withdrawals import Taken, Withdrawals
from fedmkt.report.folder import RunFiles

WRITTEN = ("scores.csv", "scores.parquet")
"""Files of scores beside a model: whoever left after they were written still stands in them."""


@dataclass(frozen=True)
class ModelState:
    """One run's results and who left them. trained, scored : people who left since; first, last : the days.

    stale : files of scores in which some of them still stand, to be written again.
    """

    folder: Path
    run: str
    ended: date | None
    trained: int
    scored: int
    first: date | None
    last: date | None
    stale: tuple[Path, ...]

    @property
    def is_flagged(self) -> bool:
        """Whether the model should be trained again."""
        return self.trained > 0

    def lines(self) -> Iterator[str]:
        """Say it in plain words."""
        when = "" if self.ended is None else f", run of {self.ended}"
        if self.is_flagged:
            since = f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"
            yield f"train again: {self.folder.parent.name} ({self.run[:16]}{when})"
            yield f"  people in it who left: {self.trained:,}, {since}"
        for path in self.stale:
            yield f"  {path}: {self.scored:,} scores in it are of people who left"
            yield "  write it again: fedmkt score"


@dataclass(frozen=True)
class Rights:
    """What the list holds, by kind of id and in all, and the state of every model that is here."""

    ids: int
    kinds: dict[str, int]
    first: date | None
    last: date | None
    models: tuple[ModelState, ...]

    def lines(self) -> list[str]:
        """Say it in plain words; counts and dates only."""
        kinds = ", ".join(f"{count:,} by {kind}" for kind, count in sorted(self.kinds.items()))
        since = f", {self.first} to {self.last}" if self.ids else ""
        lines = [f"withdrawn: {self.ids:,} ids" + (f" ({kinds}{since})" if self.ids else "")]
        flagged = [m for m in self.models if m.is_flagged or m.stale]
        lines.append(
            f"models here: {len(self.models)}, to be trained again: {sum(m.is_flagged for m in flagged)}"
        )
        return [*lines, *(line for model in flagged for line in model.lines())]


def withdrawals_of(folder: PartyFolder, random: Random = secrets.token_bytes) -> Withdrawals:
    """Open the party's withdrawal list."""
    return Withdrawals(Store(folder.state / "store"), random)


def withdraw(
    folder: PartyFolder,
    ids: Sequence[str],
    file: Path | None,
    actor: Actor,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    random: Random = secrets.token_bytes,
) -> Taken:
    """Put people on the withdrawal list and flag what was made with their data; the same again changes nothing.

    ids : as they are written in the table's id column; file : with columns named like the table's ids. DataError if
    one of them cannot be read: then nothing was changed.
    """
    if bool(ids) == (file is not None):
        raise ConfigError("ids or --file, one of the two")
    now = clock()
    schema = _schema(folder, now.date())
    listed = _typed(schema, ids) if file is None else read_opt_out(file, schema)
    gone = withdrawals_of(folder, random)
    taken = gone.add(schema.keys, listed, now)
    with gone.alone():  # a run that ends meanwhile has asked the list, or is written before we look
        for model in model_folders(folder):
            note_left(model, schema.keys, listed, now.date())
    counts = {"known": taken.known, "new": taken.new}
    log = ActsLog(folder.state, clock)
    log.say(actor, "consent.withdrawn", counts)
    log.say(actor, "erasure.requested", counts)
    return taken


def read_rights(folder: PartyFolder) -> Rights:
    """Count what is on the list and look at every model here."""
    entries = withdrawals_of(folder).entries()
    days = sorted(entry.since for entry in entries)
    kinds = {kind: sum(e.kind == kind for e in entries) for kind in {e.kind for e in entries}}
    models = tuple(_state(path) for path in model_folders(folder))
    first, last = (days[0], days[-1]) if days else (None, None)
    return Rights(len(entries), kinds, first, last, models)


def recheck(files: RunFiles, day: date) -> None:
    """Ask the opt-out list of an organisation's folder again, for the results that are to be used.

    The withdrawal list was asked when somebody came onto it. Nothing to do for a simulation, or where no list is kept.
    """
    root = files.root.parent.parent.parent
    folder = PartyFolder(root)
    if not files.owner or not folder.config.exists():
        return
    schema = _schema(folder, day)
    if schema.filters is not None and schema.filters.opt_out is not None:
        listed = read_opt_out(schema.filters.opt_out, schema)
        with withdrawals_of(folder).alone():
            note_left(files.results, schema.keys, listed, day)


def model_folders(folder: PartyFolder) -> list[Path]:
    """List the folders of results of all contracts and runs."""
    return sorted(path.parent for path in folder.state.glob("contracts/*/model*/model.json"))


def _schema(folder: PartyFolder, day: date) -> TableSchema:
    config, table = load_party_folder(folder)
    return schema_of(table, folder.root / config.node.data, day)


def _typed(schema: TableSchema, ids: Sequence[str]) -> Listed:
    """Read ids from the command line: of the table's first kind."""
    first = schema.keys[0]
    listed, mistake = read_listed([first], schema.country, lambda _: list(ids))
    if mistake is not None:
        wrong = int(mistake[1].argmax()) + 1
        raise DataError(f"id {wrong} of {len(ids)}: no valid {first.said()}", "nothing was changed")
    return Listed((*listed.ids, *(frozenset[str]() for _ in schema.keys[1:])))


def _state(model: Path) -> ModelState:
    left = read_left(model) if (model / KEY).exists() else None
    expiry = read_expiry(model / EXPIRES) if (model / EXPIRES).exists() else None
    run = "" if expiry is None else expiry.run
    ended = None if expiry is None else expiry.ended
    if left is None:
        return ModelState(model, run, ended, 0, 0, None, None, ())
    first, last = left.days or (None, None)
    scored = int(left.gone.sum())
    noted = (model / "left.npz").stat().st_mtime_ns if (model / "left.npz").exists() else 0
    written = [model / name for name in WRITTEN if (model / name).exists()]
    stale = tuple(path for path in written if scored and path.stat().st_mtime_ns < noted)
    return ModelState(model, run, ended, int((left.trained != 0).sum()), scored, first, last, stale)
