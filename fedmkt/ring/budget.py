"""The noise budget of sums of encrypted integers (`rlwe`): what fits, what flooding hides, how many queries.

A sum over groups comes back as Delta D m + D e + f, modulo q = 2^64, with f the flooding of the holder of the groups.

    message bits     D m is exact modulo t = 2^message_bits, signed; Delta = 2^(64 - message_bits). Either |D m| <= n
                     limit fits (`message_bits`), or the messages are shares modulo t, whose sums wrap as shares do
    noise of a row   e, and the rounding to as many bytes as travel: variance 10.5 + 4^dropped / 12
    noise of a sum   all n rows in one bin: standard deviation sqrt(n variance)
    flooding         as much as leaves Delta / 2 at 8 standard deviations of flooding and noise together
    failure          2 (1 - Phi(8)) = 1.2e-15 for each total: it would come out one off, unnoticed

**What flooding gives, and against whom.** The totals D m come out exactly; they are the disclosure, and flooding hides
nothing of them. It covers D e, which the owner of m could otherwise read rows from, since it knows e. Changing the
bins of one row moves each column's D e in two places by at most max|e| each, so for one row

    rho = vectors columns max|e|^2 / flooding^2     (zCDP of a Gaussian: squared distance / (2 variance))

for an owner of m who draws e as `rlwe` does. rho is bounded by `RHO_LIMIT` over the whole training by a cap on the
number of vectors. It is not statistical hiding of the whole matrix D, and it does **not** bound a malicious owner: one
who puts a large e, or a chosen m, on one row reads that row's bins.

**Hardness of ring-LWE** for N = 4096, q = 2^64, ternary s, sigma(e) = 3.24, looked up on 2026-11-22:
- HomomorphicEncryption.org, security standard 1.1 (November 2018), table of ternary secrets, sigma = 3.19, classical
  attacks: N = 4096 carries log2 q <= 109 for 128 bits, 75 for 192 bits, 58 for 256 bits (as in Microsoft SEAL's
  hestdparms.h; for 192 bits and quantum attacks 70). 64 lies between: **at least 192 bits**.
- TFHE-rs (core_crypto/commons/noise_formulas, secure noise, Gaussian, 132 bits by the lattice estimator): log2 of the
  variance over q^2 is -0.04978 N + 5.3147, and the standard deviation never below 4 in units of 1. At N = 4096 that
  curve lies far below one unit: only the floor is left. At N = 2048 it asks for 2^15.68, so N = 2048 is not offered.
- A table in Stirling75/RevHomTrace (src/lwe_std_dev_param.rs) gives 218.5 bits for N = 4096, sigma = 4, q = 2^64.
- The rounding of `rlwe.pack` is a function of b that everybody knows, and counts for nothing here.
No estimator was run for this file.
"""

import math
from dataclasses import dataclass

from fedmkt.errors import ConfigError
from fedmkt.ring.rlwe import MODULUS_BITS, NOISE_HALF, NOISE_VARIANCE, WORD_BYTES, dropped_bits

FAILURE_SIGMAS = 8.0
"""Delta / 2 in standard deviations of flooding and noise together."""

RHO_LIMIT = 2.0**-10
"""zCDP of one row over a whole training, beyond what the totals tell."""

LEAST_RATIO_BITS = 3.0
"""Flooding must exceed the noise of a sum over all rows by 2^3 at least, whatever the cap says."""

SECURITY_BITS = 192
"""What the security standard gives for the parameters of `rlwe`, at least."""


@dataclass(frozen=True)
class Budget:
    """Scales and noise for sums over n rows; standard deviations are in units of 1, out of q = 2^64."""

    rows: int
    columns: int
    word_bytes: int
    message_bits: int
    row_deviation: float
    row_max: int
    sum_deviation: float
    flooding: float
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
        """Bound what flooding lets through about one row, in zCDP, over this many vectors."""
        return vectors * self.columns * self.row_max**2 / self.flooding**2

    def table(self) -> tuple[tuple[str, str], ...]:
        """Return the budget as pairs of what and how much, as `fedmkt plan` prints them."""
        return (
            ("rows", f"{self.rows:,}"),
            ("message", f"{self.message_bits} bits, Delta = 2^{self.delta_bits}"),
            ("words", f"{self.word_bytes} bytes each"),
            ("noise of a row", f"2^{math.log2(self.row_deviation):.1f}, at most {self.row_max:,}"),
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


def message_bits(rows: int, limit: int) -> int:
    """Return how many bits hold any sum of `rows` integers of at most `limit`, with its sign."""
    if min(rows, limit) < 1:
        raise ValueError("rows and limit must be at least 1")
    return (rows * limit).bit_length() + 1


def budget(rows: int, bits: int, columns: int, vectors: int, word_bytes: int) -> Budget:
    """Plan sums over `rows` rows of messages modulo 2^bits, for all `vectors` of a training.

    columns : of the holder of the groups, each row in at most one bin of each; word_bytes : of each word that travels.
    Raises ConfigError with the numbers where the noise does not fit, or where the vectors exceed the cap.
    """
    if min(rows, columns, vectors) < 1 or not 1 <= bits < MODULUS_BITS:
        raise ValueError(f"rows, columns and vectors must be at least 1, and 1 <= bits < 64, got {bits}")
    drop = dropped_bits(word_bytes)
    variance = NOISE_VARIANCE + (4.0**drop / 12 if drop else 0.0)
    row_max = NOISE_HALF + ((1 << drop) >> 1)
    noise = math.sqrt(rows * variance)
    longer = ", or more bytes per word" if drop else ""
    room = 2.0 ** (MODULUS_BITS - bits - 1) / FAILURE_SIGMAS
    needed = noise * math.hypot(1, 2**LEAST_RATIO_BITS)
    if room < needed:
        raise ConfigError(
            f"encrypted sums over {rows:,} rows do not fit: messages of {bits} bits leave 2^{math.log2(room):.1f} "
            f"for noise; noise of a sum 2^{math.log2(noise):.1f} and its flooding need 2^{math.log2(needed):.1f}",
            hint="use fewer rows or coarser gradients" + longer,
        )
    flooding = math.sqrt(room**2 - noise**2)
    cap = math.floor(RHO_LIMIT * flooding**2 / (columns * row_max**2))
    if vectors > cap:
        raise ConfigError(
            f"too many encrypted vectors: {vectors:,} over {columns:,} columns; flooding of "
            f"2^{math.log2(flooding):.1f} covers {cap:,}",
            hint="use fewer or shallower trees, or coarser gradients" + longer,
        )
    return Budget(rows, columns, word_bytes, bits, math.sqrt(variance), row_max, noise, flooding, cap)


def shortest_words(rows: int, bits: int, columns: int, vectors: int) -> Budget:
    """Plan the same with as few bytes per word as fit; ConfigError where not even 8 do."""
    for word_bytes in WORD_BYTES[:-1]:
        try:
            return budget(rows, bits, columns, vectors, word_bytes)
        except ConfigError:
            continue
    return budget(rows, bits, columns, vectors, WORD_BYTES[-1])
