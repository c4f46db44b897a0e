"""Shared gradients: g and h of the logistic loss for shared scores, rounded at random to small integers, still shared.

Computes round(2^5 (sigma(F) - y)) and round(2^8 sigma(F) (1 - sigma(F))) of every row, for scores F that the bank
and one partner share and labels y of the bank. Takes part: the bank, that partner (the first, of two), and the dealer.

| learns | what |
|---|---|
| bank, partner | nothing: what is opened is uniform |
| dealer, coordinator | nothing but the number of rows |

Safe against a semi-honest bank or partner, while the dealer colludes with neither. A bank that takes other numbers
than 0 and 1 for labels, or adds to its share, chooses its gradients; nothing here shows it.

Two rounds. One opening of F - t, t from the dealer, serves both series: sigma by sines (`ring.sigmoid`), its
derivative by cosines of the same angles. The rounding of `ring.rounding` goes up or down at random with the right
mean, so it is the rounding of gradients at once. Shares of g are modulo 2^48, of h modulo 2^32.

F is a number modulo 64, in 2^24 units, and so modulo 32, the periods of two series. A longer one costs more: `NEAR` is
for |F| <= 12.8, `FAR` for |F| <= 28.8, which the bank, who knows the leaves, looks to. Error of either: below 1e-3 of
sigma and 2e-3 of its derivative for |F| <= 8, below 6e-3 everywhere.

Source: protocols.md sections 2 and 4. Letters: F, g, h, t as here; R the mask of a rounding. Bytes for each row: 3 of
F - t and 8 of g and h from each party to the other, 2 K words and 20 from the dealer, K = 10 or 20.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.protocol.core import (
    HalfWords,
    Inbox,
    Masked,
    Message,
    Name,
    Nothing,
    Outcome,
    PublicValue,
    Silent,
    State,
    Turn,
    Words,
    dealer,
)
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.trees.side_product import Bytes, narrow, widen, widen_halves, width
from fedmkt.protocol.trees.totals.duos import counterpart
from fedmkt.ring import rounding, sigmoid
from fedmkt.ring.sigmoid import Series

SCORE_BITS = 24
"""Scores are shared modulo 2^24 units, which are 64."""
UNIT = 2.0 ** (6 - SCORE_BITS)
"""One unit of a score, in log odds."""


GRADIENT_BITS, HESSIAN_BITS = 6, 6
"""As in `learn.splits.Settings`: g is at scale 2^5, h at scale 2^8."""
LIMITS = (1 << (GRADIENT_BITS - 1)) + 2, (1 << HESSIAN_BITS) + 3
"""Largest |g| and |h| with the error of the series and the rounding."""
SHARE_BITS = (48, 32)
"""Bits that shares of g and h are modulo: g may stand below h in one word."""
_SHIFTS = sigmoid.RESULT_BITS - (GRADIENT_BITS - 1), sigmoid.RESULT_BITS - (HESSIAN_BITS + 2)


@dataclass(frozen=True)
class ScoreSeries:
    """sigma by sines and its derivative by cosines of one period; most : largest |F| that they are for.

    sigma' ~ constant + sum over k of d_k cos(2 pi k F / P), all at scale 2^16.
    """

    sines: Series
    cosines: Series
    constant: int
    most: float

    @property
    def period(self) -> int:
        """P, of both."""
        return 1 << self.sines.log2_period

    def angles(self, scores: HalfWords) -> HalfWords:
        """Turn scores, or shares of them, into angles, 2^32 to a turn."""
        return scores << np.uint32(38 - SCORE_BITS - self.sines.log2_period)


# The fits of `ring.sigmoid` and the same with cosines: least squares with weights exp(-(x/6)^2) + 0.05 on |x| <= 0.4 P
# (its square root for all of NEAR and for cosines), |x| <= 0.45 P for FAR.
NEAR = ScoreSeries(
    Series(5, (39692, -780, 9062, -559, 2646, -51, 587, 162, 40, 119)),
    Series(5, (-3658, 10175, -3683, 6828, -2842, 3680, -1513, 1508, -478, 389)),
    5895,
    12.8,
)
FAR = ScoreSeries(
    sigmoid.series(64),
    Series(6, (
        -789, 4677, -885, 4160, -993, 3466, -1028, 2731, -955, 2042,
        -794, 1443, -590, 958, -383, 586, -219, 311, -90, 192,
    )),
    2435,
    28.8,
)  # fmt: skip


ROW_BYTES = 8 * FAR.sines.harmonics + 2 * sum(map(width, SHARE_BITS))
"""Most bytes of a row in one message: what is dealt."""


def series_of(period: int) -> ScoreSeries:
    """Return the series of a period; ValueError where there is none."""
    if period not in (NEAR.period, FAR.period):
        raise ValueError(f"there is no series of period {period}")
    return NEAR if period == NEAR.period else FAR


def value_of(words: HalfWords) -> NDArray[np.float64]:
    """Read scores, or values of leaves, modulo 2^24 units as log odds."""
    spare = 32 - SCORE_BITS
    return (words << np.uint32(spare)).view(np.int32) / 2.0**spare * UNIT


@dataclass(frozen=True)
class TreeAngles(Message):
    """The sender's share of F minus its share of t, modulo one period."""

    angles: Masked[Bytes]


@dataclass(frozen=True)
class TreeGradients(Message):
    """The sender's shares of g and h before rounding, each under its mask R, (2, n)."""

    values: Masked[HalfWords]


@dataclass(frozen=True)
class DealtGradients(Message):
    """The bank's shares of sines and cosines, (2 K, n), and of R >> s and msb(R), of g and h, (n, bytes) each."""

    angles: HalfWords
    high: tuple[Bytes, ...]
    top: tuple[Bytes, ...]


@dataclass(frozen=True)
class Gradients:
    """One set of gradients over n rows by the series of a period; `count` numbers it within epoch and label."""

    count: int
    partner: Name
    rows: int
    period: int
    label: str = "gradients"

    @property
    def series(self) -> ScoreSeries:
        """The series that is used."""
        return series_of(self.period)

    @property
    def dealt(self) -> tuple[int, int]:
        """The shape of dealt sines and cosines, (2 K, n)."""
        return 2 * self.series.sines.harmonics, self.rows


@dataclass(frozen=True)
class Waves:
    """What functions of F are evaluated from: F - t, (n,), and the own share of sines and cosines of t, (2 K, n)."""

    delta: HalfWords
    angles: HalfWords

    def sines(self, series: Series) -> HalfWords:
        """Return the own share of sum over k of c_k sin(2 pi k F / P), (n,), at scale 2^28."""
        return sigmoid.evaluate(self.delta, self.angles, series)

    def cosines(self, series: Series) -> HalfWords:
        """Return the same of cosines."""
        # cos(k t + k d) = cos(k t) cos(k d) - sin(k t) sin(k d): the sum for sines, with dealt values in turned places.
        turned = np.empty_like(self.angles)
        turned[0::2], turned[1::2] = self.angles[1::2], np.uint32(0) - self.angles[0::2]
        return sigmoid.evaluate(self.delta, turned, series)


def deal_waves(turn: Turn, batch: Gradients) -> HalfWords:
    """At the dealer: deal sines and cosines, the bank's shares (2 K, n)."""
    t = _draw(turn, batch, turn.parties[0], "t") + _draw(turn, batch, batch.partner, "t")
    others = _draw(turn, batch, batch.partner, "angles", batch.dealt)
    harmonics = batch.series.sines.harmonics
    return sigmoid.deal_correction(batch.series.angles(t), harmonics, [others], out=others)


def deal_gradients(turn: Turn, batch: Gradients) -> DealtGradients:
    """At the dealer: deal sines, cosines and the roundings."""
    angles = deal_waves(turn, batch)
    high, top = zip(*dealt_rounding(turn, batch), strict=True)
    shares = ([narrow(x, bits) for x, bits in zip(xs, SHARE_BITS, strict=True)] for xs in (high, top))
    return DealtGradients(angles, *map(tuple, shares))


def dealt_rounding(turn: Turn, batch: Gradients) -> list[tuple[Words, Words]]:
    """At the dealer: compute the bank's shares of R >> s and msb(R), of g and of h, (n,) each, as the bank has them."""
    masks = [_draw(turn, batch, p, "R", (2, batch.rows)) for p in (turn.parties[0], batch.partner)]
    found = []
    for i, (shift, bits) in enumerate(zip(_SHIFTS, SHARE_BITS, strict=True)):
        dealt, kept = rounding.deal_lift(masks[0][i] + masks[1][i], shift), np.uint64((1 << bits) - 1)
        high = dealt.high - _wide(turn, batch, batch.partner, "high", i)
        found.append((high & kept, (dealt.top - _wide(turn, batch, batch.partner, "top", i)) & kept))
    return found


def tagged_rounding(opened: HalfWords, dealt: Words) -> tuple[Words, Words]:
    """Apply the rounding to tags, or keys, of what was dealt: of g and h, (2, n); and return what both know of them.

    opened : (2, n); dealt : (4, n), of R >> s and msb(R) of g, then of h.
    """
    lifted, known = np.empty((2, *opened.shape), np.uint64)
    none = np.zeros(opened.shape[1], np.uint64)
    for i, shift in enumerate(_SHIFTS):
        tags, nothing = rounding.DealtRounding(*dealt[2 * i : 2 * i + 2]), rounding.DealtRounding(none, none)
        lifted[i] = rounding.finish_lift(opened[i], tags, shift, first=False)
        known[i] = rounding.finish_lift(opened[i], nothing, shift, first=True)
    return lifted, known


def open_angles(turn: Turn, batch: Gradients, scores: HalfWords) -> tuple[TreeAngles, HalfWords]:
    """Open the own share of the scores, (n,), under t; the own opening is to be kept."""
    own = scores - _draw(turn, batch, turn.me, "t")
    return TreeAngles(Masked(narrow(own, SCORE_BITS))), own


def meet(turn: Turn, batch: Gradients, own: HalfWords, found: TreeAngles, dealt: HalfWords | None) -> Waves:
    """Put the openings of F - t together; dealt : what `deal_waves` dealt, at the bank."""
    delta = batch.series.angles(own + widen_halves(found.angles.words, own.shape, SCORE_BITS))
    if turn.first and (dealt is None or dealt.shape != batch.dealt):
        raise ValueError("the dealer's share of the angles is missing or has another shape")
    return Waves(delta, dealt if dealt is not None else _draw(turn, batch, turn.me, "angles", batch.dealt))


def open_gradients(
    turn: Turn, batch: Gradients, own: HalfWords, found: TreeAngles, dealt: DealtGradients | None,
    y: NDArray[np.uint8] | None,
) -> tuple[TreeGradients, HalfWords]:  # fmt: skip
    """Evaluate both series and open the results under R; y : (n,) at the bank. The own opening is to be kept."""
    waves = meet(turn, batch, own, found, None if dealt is None else dealt.angles)
    value = np.stack([waves.sines(batch.series.sines), waves.cosines(batch.series.cosines)])
    if y is not None:
        value[0] += sigmoid.HALF - (y.astype(np.uint32) << np.uint32(sigmoid.RESULT_BITS))
        value[1] += np.uint32(batch.series.constant << (sigmoid.RESULT_BITS - sigmoid.COEFFICIENT_BITS))
    return open_values(turn, batch, value)


def open_values(turn: Turn, batch: Gradients, value: HalfWords) -> tuple[TreeGradients, HalfWords]:
    """Open the own shares of g and h, (2, n) at scale 2^28, under R; the own opening is to be kept."""
    opened = rounding.prepare_lift(value, _draw(turn, batch, turn.me, "R", value.shape), first=turn.first)
    return TreeGradients(Masked(opened)), opened


def take_gradients(
    turn: Turn, batch: Gradients, own: HalfWords, found: TreeGradients, dealt: DealtGradients | None
) -> Words:
    """Return the own shares of the rounded g and h, (2, n), modulo 2^48 and 2^32."""
    if found.values.words.shape != own.shape:
        raise ValueError("the gradients of the other party have another shape")
    if turn.first and (dealt is None or not len(dealt.high) == len(dealt.top) == len(_SHIFTS)):
        raise ValueError("the dealer's share of the rounding is missing or has another shape")
    opened, out = own + found.values.words, np.empty(own.shape, np.uint64)
    for i, (shift, bits) in enumerate(zip(_SHIFTS, SHARE_BITS, strict=True)):
        if dealt is None:
            high, top = (_wide(turn, batch, turn.me, what, i) for what in ("high", "top"))
        else:
            high, top = (widen(d[i], (batch.rows,), bits).astype(np.uint64) for d in (dealt.high, dealt.top))
        # What is above the bits of a share is noise, and never used.
        out[i] = rounding.finish_lift(opened[i], rounding.DealtRounding(high, top), shift, first=turn.first)
    return out


def _wide(turn: Turn, batch: Gradients, of: Name, what: str, field: int) -> Words:
    return turn.masks.words(
        of, f"{batch.label}/{what}", batch.count, batch.rows, to=batch.partner, block=field
    )


def _draw(
    turn: Turn, batch: Gradients, of: Name, what: str, shape: tuple[int, int] | None = None
) -> HalfWords:
    return turn.masks.half_words(
        of, f"{batch.label}/{what}", batch.count, shape or (batch.rows,), to=batch.partner
    )


# --- states and steps


@dataclass(frozen=True)
class SharedScores(State):
    """At the bank and the first partner: the own share of the score of each train row, (n,), modulo 2^24 units."""

    by_row: ClassVar[tuple[str, ...]] = ("words",)
    words: HalfWords


@dataclass(frozen=True)
class TrainAnswers(State):
    """At the bank: the label of each train row, (n,), 0 or 1; 0 for padding."""

    durable: ClassVar[bool] = False
    by_row: ClassVar[tuple[str, ...]] = ("y",)
    y: NDArray[np.uint8]


@dataclass(frozen=True)
class ScoreReach(State):
    """At the bank: no score is further from 0, log odds."""

    bound: float


@dataclass(frozen=True)
class ScoreRange(PublicValue):
    """The period of the series for the next tree: whether the leaves so far add up to little."""

    period: int


@dataclass(frozen=True)
class GradientShares(State):
    """Gradients under way: the own opening, and at the bank the dealer's shares."""

    durable: ClassVar[bool] = False
    batch: Gradients
    own: HalfWords
    dealt: DealtGradients | None


def tell_range(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, ScoreRange]:
    """Tell which series is long enough for all scores."""
    reach = turn.recall(ScoreReach).bound
    return Outcome(ScoreRange(NEAR.period if reach <= NEAR.most else FAR.period))


def begin_gradients(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[TreeAngles, Silent]:
    """Begin a tree: open the own share of the scores."""
    scores = turn.recall(SharedScores).words
    count, used = next_count(turn, "gradients")
    batch = Gradients(count, turn.parties[1], len(scores), _period(turn))
    message, own = open_angles(turn, batch, scores)
    return Outcome(Silent(), send={counterpart(turn): message}, keep=(GradientShares(batch, own, None), used))


def _period(turn: Turn) -> int:
    return turn.published(ScoreRange, turn.parties[0]).period


def deal_step(rows: int, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtGradients, Silent]:
    """At the dealer: deal the gradients of a tree."""
    count, used = next_count(turn, "gradients")
    dealt = deal_gradients(turn, Gradients(count, turn.parties[1], rows, _period(turn)))
    return Outcome(Silent(), send={turn.parties[0]: dealt}, keep=(used,))


def next_gradients(turn: Turn, inbox: Inbox[TreeAngles | DealtGradients]) -> Outcome[TreeGradients, Silent]:
    """Evaluate both series and open them under the masks of their roundings."""
    state, other = turn.recall(GradientShares), counterpart(turn)
    dealt = inbox.one(dealer(turn.contract), DealtGradients) if turn.first else None
    y = turn.recall(TrainAnswers).y if turn.first else None
    message, own = open_gradients(turn, state.batch, state.own, inbox.one(other, TreeAngles), dealt, y)
    kept = GradientShares(state.batch, own, dealt)
    return Outcome(Silent(), send={other: message}, keep=(kept,))
