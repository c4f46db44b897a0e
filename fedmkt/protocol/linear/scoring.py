"""Scoring on shares: the bank gets rounded probabilities of its matched customers, nothing else is opened.

Computes sigma(z) of the held-out customers and of those without label, rounded on shares to the contract's
decimals, and sends the rounded shares to the bank. Takes part: all parties that hold data, and the dealer.

| learns | what |
|---|---|
| bank | one rounded probability for each matched customer it asked for |
| partner, coordinator, dealer | nothing |

Where the match is hidden, every row of the partner's list is scored, times the bank's weight (`weighted`): what is
opened of people whom the bank does not have, or who trained, is 0.

Safe against semi-honest parties, all but one of them together, while the dealer colludes with none. What the
scores themselves give away stands at `Scores` in privacy/disclosure.py; the ledger counts one functional of
every partner's columns for each rounding that is released, and refuses beyond a quarter of its columns. A resume
sends the same shares again, unless it goes back behind their rounding. Source: protocols.md section 2; redteam.md 1.4.
"""

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.contract.model_terms import GLM_KINDS
from fedmkt.errors import PolicyRefused
from fedmkt.privacy.disclosure import ModelPart, Scores
from fedmkt.protocol.alignment.align import Split, joint_rows
from fedmkt.protocol.alignment.items import Rows
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Masked,
    Message,
    Name,
    Nothing,
    Outcome,
    Reply,
    Sealed,
    Silent,
    State,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
    dealer,
    inbox_of,
    to_all,
)
from fedmkt.protocol.layout import RESIDUAL_BITS, SCORE, WEIGHT_BITS, layout, layout_of
from fedmkt.protocol.linear.identity import PREDICTOR_BITS
from fedmkt.protocol.linear.links import is_identity
from fedmkt.protocol.linear.matrices import mask_matrices
from fedmkt.protocol.linear.predictor import (
    DealtProducts,
    VectorOpening,
    Weights,
    finish_predictor,
    open_weights,
    predictor_inbox,
)
from fedmkt.protocol.linear.sigmoid_blocks import SCORE_ROWS, LiftOpening, apply_sigmoid, finish_lift
from fedmkt.protocol.linear.warm import KeptModel, kept_as, own_columns_of
from fedmkt.protocol.linear.weighted import hide_weight
from fedmkt.protocol.prepare import Prepared, real
from fedmkt.protocol.shared import (
    DealtRounding,
    Opening,
    deal_rounding,
    finish_rounding,
    from_others,
    open_masked,
    sum_openings,
)
from fedmkt.protocol.witness import checkpoint, witness
from fedmkt.ring.fixed import decode

Units64 = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class ScoreOpening(Opening):
    """A share of the scaled scores plus its mask, for their rounding."""


@dataclass(frozen=True)
class ScoreShare(Message):
    """A share of the rounded scores, for the bank: fresh, because the rounding's masks are."""

    words: Words


@dataclass(frozen=True)
class WeightShare(Message):
    """A share of the reader's own weights (only where the contract allows ModelPart)."""

    words: Words


@dataclass(frozen=True)
class Rounding(State):
    """The own opening of the rounding under way."""

    durable: ClassVar[bool] = False
    own: Words


@dataclass(frozen=True)
class RoundedShare(State):
    """The own share of the rounded scores. In a checkpoint before it leaves: a resume sends the same one again."""

    by_row: ClassVar[tuple[str, ...]] = ("words",)
    words: Words


@dataclass(frozen=True)
class Released(State):
    """At the bank: its rows and their scores, in units of the last decimal."""

    rows: Rows
    held_out: int
    units: Units64
    decimals: int


@dataclass(frozen=True)
class OwnWeights(State):
    """The own weights in clear, where the contract allows it."""

    values: np.ndarray[tuple[int], np.dtype[np.float64]]


def _open_weights(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[VectorOpening, Silent]:
    return open_weights(turn, SCORE, turn.recall(Weights).w)


def ledger_keys(turn: Turn) -> tuple[str, ...]:
    """Name the ledger entries, one for each own column, that count functionals opened to the bank.

    They outlive contracts and keys; one entry for a set of columns could be begun anew by leaving out a column.
    """
    bank = " ".join(turn.contract.bank.organisation.casefold().split())
    return tuple(f"functionals/{bank}/{c}" for c in turn.contract.party(turn.me).columns)


def _count_release(turn: Turn, share: Words) -> dict[str, bytes]:
    """Count this run's release against the partner's ledger before anything leaves; refuse beyond the cap.

    Sent again after a resume, the shares are the same ones and count once; a resume from before they were made
    rounds anew, which tells more, and counts again.
    """
    done, made = f"released/{turn.run.hex()}", hashlib.sha256(share.tobytes()).digest()
    if turn.store.get(done) == made:
        return {}
    counts = {key: int(turn.store.get(key, b"0")) + 1 for key in ledger_keys(turn)}
    is_linear = turn.contract.model.kind != "trees"
    own = layout_of(turn, SCORE).columns_of(turn.me) if is_linear else len(ledger_keys(turn))
    cap = max(1, own // 4)
    if max(counts.values()) > cap:
        raise PolicyRefused(
            f"scores of these columns were released {cap} times to this bank: the ledger's cap is reached"
        )
    # The mark comes last: killed between two of these, a party counts too much rather than too little.
    return {key: str(count).encode() for key, count in counts.items()} | {done: made}


def _kept_model(turn: Turn) -> dict[str, bytes]:
    """Return what the store shall remember of the model, for a contract that starts from it."""
    if turn.contract.model.kind not in GLM_KINDS or turn.contract.align.hidden:
        return {}
    plan, prepared = layout_of(turn, SCORE), turn.recall(Prepared)
    names = tuple(f"{p} {plan.columns_of(p)}" for p in turn.parties)
    return kept_as(
        turn,
        KeptModel(
            turn.run, turn.contract.model.link, names, own_columns_of(turn), prepared.preparation,
            prepared.transform, prepared.spread, turn.recall(Weights).w,
        ),
    )  # fmt: skip


def _round(turn: Turn, inbox: Inbox[LiftOpening]) -> Outcome[ScoreOpening, Silent]:
    return _open_round(turn, finish_lift(turn, inbox, SCORE).done)


def _round_predictor(
    turn: Turn, inbox: Inbox[VectorOpening | DealtProducts]
) -> Outcome[ScoreOpening, Silent]:
    """Where the score is the linear predictor itself, its rounding is the only one."""
    return _open_round(turn, finish_predictor(turn, SCORE, inbox).z)


def _open_round(turn: Turn, values: Words) -> Outcome[ScoreOpening, Silent]:
    share = values * np.uint64(10**turn.contract.scores.decimals)
    own = open_masked(turn, "score/round", 0, share)
    return Outcome(Silent(), send=to_all(turn.others, ScoreOpening(Masked(own))), keep=(Rounding(own),))


def score_bits(contract: Contract) -> int:
    """Return the scale from which scores are rounded."""
    return PREDICTOR_BITS if is_identity(contract) else RESIDUAL_BITS


def _share(block: int, turn: Turn, inbox: Inbox[ScoreOpening | DealtRounding]) -> Outcome[Nothing, Silent]:
    dealt = inbox.one(dealer(turn.contract), DealtRounding) if turn.first else None
    opened = sum_openings(turn.recall(Rounding).own, inbox, turn, ScoreOpening)
    share = finish_rounding(turn, "score/round", block, opened, score_bits(turn.contract), dealt)
    return Outcome(Silent(), keep=(RoundedShare(share),), forget=(Rounding,))


def _release(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[ScoreShare, Silent]:
    share = turn.recall(RoundedShare).words
    low = turn.published(Overlap, turn.parties[0]).unlabelled_low
    reveals = (Scores(to=turn.parties[0], low=low, high=len(share), decimals=turn.contract.scores.decimals),)
    remember = _count_release(turn, share) | _kept_model(turn)
    return Outcome(Silent(), send={turn.parties[0]: ScoreShare(share)}, reveals=reveals, remember=remember)


def _read(turn: Turn, inbox: Inbox[ScoreShare]) -> Outcome[Nothing, Silent]:
    total = turn.recall(RoundedShare).words.copy()
    found = from_others(turn, inbox, ScoreShare, lambda m: m.words.shape == total.shape, "the score shares")
    for message in found.values():
        total += message.words
    split, joint = turn.recall(Split), joint_rows(turn, False)
    held_out = real(split.held_out)
    rows = np.concatenate([held_out, real(split.unlabelled)])
    # Everything else is padding, or, where the match is hidden, a stranger with the weight 0.
    at = np.argsort(joint)
    at = at[np.searchsorted(joint, rows, sorter=at)]
    units = _possible(total.view(np.int64)[at], turn.contract)
    return Outcome(
        Silent(),
        keep=(Released(rows, len(held_out), units, turn.contract.scores.decimals),),
        forget=(RoundedShare,),
        remember=_kept_model(turn),
    )


def _possible(units: Units64, contract: Contract) -> Units64:
    """Move what the error of a series puts beyond the possible values to their edge."""
    if is_identity(contract):
        return units
    top = 10**contract.scores.decimals if contract.model.link == "logistic" else None
    return np.clip(units, 0, top)


def _deal_rounding(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtRounding, Silent]:
    plan = layout_of(turn, SCORE)
    dealt = deal_rounding(turn, "score/round", 0, plan.rows, score_bits(turn.contract))
    return Outcome(Silent(), send={turn.parties[0]: dealt})


def _give_part(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[WeightShare, Silent]:
    plan, w = layout_of(turn, SCORE), turn.recall(Weights).w
    send = {p: WeightShare(w[plan.columns[p]]) for p in turn.others}
    reveals = tuple(ModelPart(to=p, weights=plan.columns_of(p)) for p in turn.others)
    return Outcome(Silent(), send=send, reveals=reveals)


def _take_part(turn: Turn, inbox: Inbox[WeightShare]) -> Outcome[Nothing, Silent]:
    total = turn.recall(Weights).w[layout_of(turn, SCORE).columns[turn.me]].copy()
    found = from_others(turn, inbox, WeightShare, lambda m: m.words.shape == total.shape, "the weight shares")
    for message in found.values():
        total += message.words
    return Outcome(Silent(), keep=(OwnWeights(decode(total, WEIGHT_BITS)),))


def share_step(
    block: int,
) -> Step[ScoreOpening | DealtRounding, Nothing, Silent]:
    """Return the step that finishes the rounding of a block of rows: `RoundedShare` after it."""
    return Step("score.share", partial(_share, block), Silent, reads=(ScoreOpening, DealtRounding))


SHARE = share_step(0)
OPEN_WEIGHTS = Step("score.open_weights", _open_weights, Silent)
ROUND = Step("score.round", _round, Silent, reads=(LiftOpening,))
ROUND_PREDICTOR = Step(
    "score.round_predictor", _round_predictor, Silent, reads=(VectorOpening, DealtProducts)
)
DEAL_ROUNDING = Step("score.deal_rounding", _deal_rounding, Silent)
RELEASE = Step("score.release", _release, Silent, reveals=(Scores,))
READ = Step("score.read", _read, Silent, reads=(ScoreShare,))
GIVE_PART = Step("model.give_part", _give_part, Silent, reveals=(ModelPart,))
TAKE_PART = Step("model.take_part", _take_part, Silent, reads=(WeightShare,))


def score(call: Caller, contract: Contract, overlap: Overlap, columns: dict[Name, int]) -> None:
    """Score the bank's held-out and unlabelled customers and release the rounded scores to it."""
    parties, maker = data_parties(contract), dealer(contract)
    plan = layout(contract, overlap, columns, SCORE)
    mask_matrices(call, contract, SCORE, plan)
    if contract.align.hidden:
        hide_weight(call, contract, SCORE)
    opened, (dealt,) = call.both(
        [ask(p, OPEN_WEIGHTS) for p in parties], [ask(maker, SCORE_ROWS.deal_forward)]
    )
    if is_identity(contract):
        rounds = [ask(p, ROUND_PREDICTOR, *predictor_inbox(opened, dealt, p)) for p in parties]
    else:
        lifted = apply_sigmoid(call, contract, SCORE_ROWS, plan, opened, dealt)
        rounds = [ask(p, ROUND, *inbox_of(lifted, p)) for p in parties]
    rounded, (rounding,) = call.both(rounds, [ask(maker, DEAL_ROUNDING)])
    call.all([ask(p, SHARE, *_share_inbox(rounded, rounding, p)) for p in parties])
    checkpoint(call, contract)
    witness(call, contract)
    released = call.all([ask(p, RELEASE) for p in parties[1:]])
    call(parties[0], READ, *inbox_of(released, parties[0]))
    checkpoint(call, contract)


def _share_inbox(
    rounded: list[Reply[ScoreOpening, Silent]], dealt: Reply[DealtRounding, Silent], party: Name
) -> tuple[Sealed[ScoreOpening | DealtRounding], ...]:
    return (*inbox_of(rounded, party), *inbox_of([dealt], party))


def give_parts(call: Caller, contract: Contract) -> None:
    """Open each party's weights to it, where the contract allows the disclosure ModelPart."""
    parties = data_parties(contract)
    witness(call, contract)
    parts = call.all([ask(p, GIVE_PART) for p in parties])
    call.all([ask(p, TAKE_PART, *inbox_of(parts, p)) for p in parties])
    checkpoint(call, contract)
