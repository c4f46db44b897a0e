"""The noise budget of sums of encrypted integers (`rlwe`): what fits, what flooding hides, how many queries.

A sum over groups comes back as Delta D m + D e + f, modulo q = 2^64, with f the flooding of the holder of the groups.

    message bits     D m is exact modulo t = 2^message_bits (`fields.Packing.bits`); Delta = 2^(64 - message_bits).
                     Messages may be shares modulo t, whose sums wrap as shares do
    noise of a row   e, and the rounding to as many bits as travel (`short_words`): variance 10.5 + 4^dropped / 12
    noise of a sum   all n rows in one bin: standard deviation sqrt(n variance)
    flooding         discrete Gaussian (`discrete_gaussian`), drawn exactly but for a cut at 12 standard deviations;
                     as much as leaves Delta / 2 at 8 standard deviations of flooding and noise together
    failure          2 (1 - Phi(8)) = 1.2e-15 for each total: it would come out one off, unnoticed

**What flooding gives, and against whom.** The totals D m come out exactly; they are the disclosure, and flooding hides
nothing of them. It covers D e, which the owner of m could otherwise read rows from, since it knows e and its own
rounding. Changing the bins of one row moves each column's D e in two places by the noise of that row in each vector,
e_1 .. e_V, so for one row

    rho = columns (e_1^2 + .. + e_V^2) / flooding^2     (zCDP of a Gaussian: squared distance / (2 variance))

The errors are whole numbers, so that this is as true of the discrete Gaussian, word for word (Canonne, Kamath, Steinke
2020, theorem 4); what comes after, modulo q, tells no more. The cut changes each number with probability 3.6e-33:
beside delta, 2^-88 for a million of them.

For an owner of m who draws e as `rlwe` does, the sum of squares is at most variance (V + 2 sqrt(V u) + 2 u) but for a
probability exp(-u) = `DELTA` for one row (Hsu, Kakade and Zhang, A tail inequality for quadratic forms of subgaussian
random vectors, 2012, with the identity: a centred binomial and a uniform error are subgaussian with their variance).
With that bound rho is kept below `RHO_LIMIT` over the whole training by a cap on the number of vectors V. It is not
statistical hiding of the whole matrix D, and it does **not** bound a malicious owner: one who puts a large e, or a
chosen m, on one row reads that row's bins.

**Hardness of ring-LWE** for N = 4096, q = 2^64, ternary s, sigma(e) = 3.24, looked up on 2026-11-22:
- HomomorphicEncryption.org, security standard 1.1 (November 2018), table of ternary secrets, sigma = 3.19, classical
  attacks: N = 4096 carries log2 q <= 109 for 128 bits, 75 for 192 bits, 58 for 256 bits (as in Microsoft SEAL's
  hestdparms.h; for 192 bits and quantum attacks 70). 64 lies between: **at least 192 bits**.
- TFHE-rs (core_crypto/commons/noise_formulas, secure noise, Gaussian, 132 bits by the lattice estimator): log2 of the
  variance over q^2 is -0.04978 N + 5.3147, and the standard deviation never below 4 in units of 1. At N = 4096 that
  curve lies far below one unit: only the floor is left. At N = 2048 it asks for 2^15.68, so N = 2048 is not offered.
- A table in Stirling75/RevHomTrace (src/lwe_std_dev_param.rs) gives 218.5 bits for N = 4096, sigma = 4, q = 2^64.
- The rounding of `short_words.pack` is a function of b that everybody knows, and counts for nothing here.
No estimator was run for this file.
"""

import math
from dataclasses import dataclass
from functools import cache

from fedmkt.errors import ConfigError
from fedmkt.ring.fields import Packing, gradient_fields
from fedmkt.ring.rlwe import MODULUS_BITS, NOISE_VARIANCE
from fedmkt.ring.short_words import WORD_BITS, dropped_bits

FAILURE_SIGMAS = 8.0
"""Delta / 2 in standard deviations of flooding and noise together."""

RHO_LIMIT = 2.0**-10
"""zCDP of one row over a whole training, beyond what the totals tell."""

DELTA = 2.0**-40
"""The noise drawn for a row is larger than rho assumes with at most this probability."""

LEAST_RATIO_BITS = 3.0
"""Flooding must exceed the noise of a sum over all rows by 2^3 at least, whatever the cap says."""

SECURITY_BITS = 192
"""What the security standard gives for the parameters of `rlwe`, at least."""


@dataclass(frozen=True)
class Budget:
    """Scales and noise for sums over n rows; standard deviations are in units of 1, out of q = 2^64."""

    rows: int
    columns: int
    word_bits: int
    message_bits: int
    row_deviation: float
    sum_deviation: float
    flooding: int
    max_vectors: int

    @property
    def delta_bits(self) -> int:
        """Delta = 2^delta_bits is what a message is multiplied by."""
        return MODULUS_BITS - self.message_bits

    @property
    def failure_sigmas(self) -> float:
        """How many standard deviations of flooding and noise fit into Delta / 2."""
        return 2.0 ** (self.delta_bits - 1) / math.hypot(self.flooding, self.sum_deviation)

    @property
    def failure_probability(self) -> float:
        """The probability that one total comes out wrong."""
        return math.erfc(self.failure_sigmas / math.sqrt(2))

    def rho(self, vectors: int) -> float:
        """Bound what flooding lets through about one row, in zCDP, over this many vectors; see `DELTA`."""
        return self.columns * self.row_deviation**2 * _squares(vectors) / self.flooding**2

    def table(self) -> tuple[tuple[str, str], ...]:
        """Return the budget as pairs of what and how much, as `fedmkt plan` prints them."""
        return (
            ("rows", f"{self.rows:,}"),
            ("message", f"{self.message_bits} bits, Delta = 2^{self.delta_bits}"),
            ("words", f"{self.word_bits} bits each"),
            ("noise of a row", f"2^{math.log2(self.row_deviation):.1f}"),
            ("noise of a sum over all rows", f"2^{math.log2(self.sum_deviation):.1f}"),
            ("flooding", f"2^{math.log2(self.flooding):.1f}"),
            ("flooding over noise", f"2^{math.log2(self.flooding / self.sum_deviation):.1f}"),
            ("failure", f"{self.failure_sigmas:.1f} sigma, {self.failure_probability:.1e} per total"),
            ("vectors", f"at most {self.max_vectors:,} at {self.columns:,} columns (rho <= {RHO_LIMIT:.1e})"),
            ("ring-LWE", f"at least {SECURITY_BITS} bits"),
        )

    def __str__(self) -> str:
        """Show the table in one line."""
        return "; ".join(f"{what}: {value}" for what, value in self.table())


def budget(rows: int, bits: int, columns: int, vectors: int, word_bits: int) -> Budget:
    """Plan sums over `rows` rows of messages modulo 2^bits, for all `vectors` of a training.

    columns : of the holder of the groups, each row in at most one bin of each; word_bits : of each word that travels.
    Raises ConfigError with the numbers where the noise does not fit, or where the vectors exceed the cap.
    """
    if min(rows, columns, vectors, bits) < 1:
        raise ValueError("rows, columns, vectors and bits must be at least 1")
    drop = dropped_bits(word_bits)
    variance = NOISE_VARIANCE + (4.0**drop / 12 if drop else 0.0)
    noise = math.sqrt(rows * variance)
    longer = ", or more bits per word" if drop else ""
    room = 2.0 ** (MODULUS_BITS - bits - 1) / FAILURE_SIGMAS
    needed = noise * math.hypot(1, 2**LEAST_RATIO_BITS)
    if room < needed:
        raise ConfigError(
            f"encrypted sums over {rows:,} rows do not fit: messages of {bits} bits leave 2^{math.log2(room):.1f} "
            f"for noise; noise of a sum 2^{math.log2(noise):.1f} and its flooding need 2^{math.log2(needed):.1f}",
            hint="use fewer rows or coarser gradients (gradient_bits)" + longer,
        )
    flooding = math.floor(math.sqrt(room**2 - noise**2))
    cap = _most_vectors(RHO_LIMIT * flooding**2 / (columns * variance))
    if vectors > cap:
        raise ConfigError(
            f"too many encrypted vectors: {vectors:,} over {columns:,} columns; flooding of "
            f"2^{math.log2(flooding):.1f} covers {cap:,}",
            hint="use fewer or shallower trees, or coarser gradients" + longer,
        )
    return Budget(rows, columns, word_bits, bits, math.sqrt(variance), noise, flooding, cap)


@cache
def shortest_words(rows: int, bits: int, columns: int, vectors: int) -> Budget:
    """Plan the same with as few bits per word as fit; ConfigError where not even all of them do."""
    for word_bits in range(max(bits, WORD_BITS[0]), WORD_BITS[-1]):
        try:
            return budget(rows, bits, columns, vectors, word_bits)
        except ConfigError:
            continue
    return budget(rows, bits, columns, vectors, WORD_BITS[-1])


def finest_gradients(rows: int, columns: int, vectors: int, most: int = 8) -> int:
    """Return how many bits g and h can have, both in one word of a sum over all rows: 2 to `most`.

    columns, vectors : as in `budget`. ConfigError where not even 2 bits fit.
    """
    for bits in range(most, 2, -1):
        try:
            shortest_words(rows, Packing(gradient_fields(bits, bits), rows).bits, columns, vectors)
        except ConfigError:
            continue
        return bits
    shortest_words(rows, Packing(gradient_fields(2, 2), rows).bits, columns, vectors)
    return 2


def _squares(vectors: int) -> float:
    """Bound the sum of squares of so many standard subgaussian numbers, but for a probability `DELTA`."""
    u = -math.log(DELTA)
    return vectors + 2 * math.sqrt(vectors * u) + 2 * u


def _most_vectors(squares: float) -> int:
    """Return the largest number of vectors whose `_squares` are at most this."""
    u = -math.log(DELTA)
    # _squares(v) = (sqrt(v) + sqrt(u))^2 + u.
    return math.floor((math.sqrt(squares - u) - math.sqrt(u)) ** 2) if squares > 2 * u else 0
