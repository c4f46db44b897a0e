"""Row blocks: what would be too large for one message is computed and sent for some rows at a time.

A step that works row by row computes the same of some rows: on a block it sees states with these rows alone, and what
it keeps is put together by `close_rows`, block by block. So the steps know of no blocks, and where one is enough,
nothing is called or drawn otherwise. Which arrays have rows, on their last axis, says `State.by_row`.

Everybody learns the number of rows anyway, padded, and so how many blocks there are. A block's masks are those of a
product of its own: steps count them. Source: design.md section 4.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.protocol.core import (
    Caller,
    In,
    Inbox,
    Name,
    Nothing,
    Out,
    Outcome,
    Silent,
    State,
    Step,
    Turn,
    V,
    ask,
)

BLOCK_BYTES = 32 << 20
"""Most bytes of rows in one message; half of what a message may have."""
_ALIGNED = 32
"""Blocks begin at whole words of packed bits."""

Array = NDArray[Any]
Run = Callable[[Turn, Inbox[In]], Outcome[Out, V]]


@dataclass(frozen=True)
class RowBlock:
    """Rows `start` to `stop` of so many; `index` counts the blocks."""

    index: int
    start: int
    stop: int
    total: int

    @property
    def length(self) -> int:
        """How many rows it has."""
        return self.stop - self.start

    @property
    def rows(self) -> slice:
        """The rows."""
        return slice(self.start, self.stop)

    @property
    def is_only(self) -> bool:
        """Tell whether all rows are in it."""
        return self.length == self.total

    @property
    def is_last(self) -> bool:
        """Tell whether none comes after it."""
        return self.stop == self.total


def blocks_of(rows: int, row_bytes: int) -> list[RowBlock]:
    """Split rows of which each takes so many bytes of the largest message."""
    step = max(_ALIGNED, BLOCK_BYTES // max(1, row_bytes) // _ALIGNED * _ALIGNED)
    if rows * row_bytes <= BLOCK_BYTES:
        step = max(1, rows)
    return [RowBlock(i, at, min(rows, at + step), rows) for i, at in enumerate(range(0, max(1, rows), step))]


@dataclass(frozen=True)
class BlockWork(State):
    """A block under way: the states that its steps kept, and those of all blocks before it, with room for the rest.

    Arrays of `done` are filled in place: an answered call is never computed again.
    """

    durable: ClassVar[bool] = False
    index: int
    here: Mapping[type[State], State]
    done: Mapping[type[State], State]
    dropped: frozenset[type[State]]


def of_rows(block: RowBlock, step: Step[In, Out, V]) -> Step[In, Out, V]:
    """Have a step work on the rows of a block."""
    return step if block.is_only else replace(step, run=partial(_run, block, step.run))


def _run(block: RowBlock, run: Run[In, Out, V], turn: Turn, inbox: Inbox[In]) -> Outcome[Out, V]:
    work = _work(block, turn)
    states: dict[type[State], State]
    states = {kind: _rows_of(state, block) for kind, state in turn.states.items()} | dict(work.here)
    found = run(replace(turn, states=states), inbox)
    dropped = work.dropped | {kind for kind in found.forget if kind.by_row}
    here = {kind: state for kind, state in work.here.items() if kind not in dropped}
    here |= {type(state): state for state in found.keep if state.by_row}
    others = tuple(state for state in found.keep if not state.by_row)
    forget = tuple(kind for kind in found.forget if not kind.by_row)
    return replace(found, keep=(*others, replace(work, here=here, dropped=dropped)), forget=forget)


def _work(block: RowBlock, turn: Turn) -> BlockWork:
    work = turn.recall(BlockWork) if turn.has(BlockWork) else BlockWork(0, {}, {}, frozenset())
    if work.index != block.index:
        raise ValueError("a block of rows is out of order")
    return work


def _close(block: RowBlock, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Put what was kept of a block to that of those before; after the last one, keep it."""
    work = _work(block, turn)
    done = dict(work.done)
    for kind, part in work.here.items():
        done[kind] = _put(done.get(kind), part, block)
    if block.is_last:
        return Outcome(Silent(), keep=tuple(done.values()), forget=(BlockWork, *work.dropped))
    return Outcome(Silent(), keep=(BlockWork(block.index + 1, {}, done, work.dropped),))


def _put(whole: State | None, part: State, block: RowBlock) -> State:
    """Fill the rows of a block in; numbers that are one for all rows stay that."""
    if whole is None:
        whole = _changed(part, [np.empty((*a.shape[:-1], _size(a, block)), a.dtype) for a in _arrays(part)])
    for into, found in zip(_arrays(whole), _arrays(part), strict=True):
        into[..., block.rows if into.shape[-1] > 1 else slice(None)] = found
    return _changed(part, _arrays(whole))


def _size(array: Array, block: RowBlock) -> int:
    return block.total if array.shape[-1] == block.length else array.shape[-1]


def _rows_of(state: State, block: RowBlock) -> State:
    if not state.by_row:
        return state
    return _changed(state, [a[..., block.rows] if a.shape[-1] == block.total else a for a in _arrays(state)])


def _arrays(state: State) -> list[Array]:
    found: list[Array] = []
    for name in state.by_row:
        value = getattr(state, name)
        found += value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
    return found


def _changed(state: Any, arrays: Sequence[Array]) -> State:
    left, fields = iter(arrays), dict[str, object]()
    for name in state.by_row:
        value = getattr(state, name)
        if isinstance(value, dict):
            fields[name] = {key: next(left) for key in value}
        else:
            fields[name] = tuple(next(left) for _ in value) if isinstance(value, tuple) else next(left)
    changed: State = replace(state, **fields)
    return changed


def close_rows(call: Caller, stage: str, parties: Sequence[Name], block: RowBlock) -> None:
    """End a block at those who had a step of it; nothing where it is the only one."""
    if not block.is_only:
        close = Step(f"{stage}.close_rows", partial(_close, block), Silent)
        call.all([ask(p, close) for p in parties])
