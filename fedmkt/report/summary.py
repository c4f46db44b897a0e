"""Everything the report of one run shows, as plain data with a JSON form.

The page is a function of this summary and nothing else: no clock, no file, no party's rows. What the bank
may show to whom is decided by the contract; the summary holds aggregates of its labels and is the bank's.
"""

import json
import types
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Union, cast, get_args, get_origin, get_type_hints

from numpy.typing import ArrayLike

from fedmkt.learn.metrics import (
    Curve,
    Histogram,
    Interval,
    Metrics,
    Random,
    evaluate,
    gains_curve,
    roc_curve,
    score_histogram,
)
from fedmkt.learn.regression import ValueFit
from fedmkt.learn.shapes import Shapes

FORMAT = "fedmkt-summary/1"


@dataclass(frozen=True)
class PartyLine:
    """One signer of the contract: name in the run, organisation, and role (bank, partner, coordinator)."""

    name: str
    organisation: str
    role: str


@dataclass(frozen=True)
class ModelResult:
    """One model on the held-out rows."""

    metrics: Metrics
    roc: Curve
    gains: Curve
    histogram: Histogram


@dataclass(frozen=True)
class Models:
    """The models compared, all on the same held-out rows.

    bank, joint : as the bank can measure them, the joint one from its rounded scores
    joint_exact, centralised : exist in simulation only, where one process may see everything
    """

    bank: ModelResult
    joint: ModelResult
    joint_exact: ModelResult | None = None
    centralised: ModelResult | None = None


@dataclass(frozen=True)
class ValueModels:
    """The same where labels are numbers (kind `linear`) or counts (`poisson`) instead of answers."""

    kind: str
    bank: ValueFit
    joint: ValueFit
    joint_exact: ValueFit | None = None
    centralised: ValueFit | None = None


@dataclass(frozen=True)
class ConvergencePoint:
    """One pass of training: the measure named in the summary, if known, and ‖w - w_before‖ / ‖w‖; of trees 0."""

    iteration: int
    value: float | None
    change: float


@dataclass(frozen=True)
class DisclosureLine:
    """What one reader learned: kind from the vocabulary, how much, what it means, the contract's clause.

    meaning : one sentence, then after a line break what the reader can compute from it, if there is more
    """

    reader: str
    kind: str
    amount: str
    meaning: str
    clause: str


@dataclass(frozen=True)
class HeadLine:
    """The head of one party's audit log at close: number of records, RFC 6962 root (base64), cosigners."""

    party: str
    size: int
    root: str
    cosigners: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupRate:
    """One group of the bank's customers: its released rows, and which share of them is among the best tenth."""

    group: str
    rows: int
    share: float


@dataclass(frozen=True)
class GroupRates:
    """The groups of one declared column."""

    column: str
    rates: tuple[GroupRate, ...]


@dataclass(frozen=True)
class CorrelatedPair:
    """Two columns of different parties and their correlation over the training rows."""

    first: str
    second: str
    correlation: float


@dataclass(frozen=True)
class InflatedColumn:
    """A column and its variance inflation factor; None where other columns make it up exactly."""

    name: str
    inflation: float | None


@dataclass(frozen=True)
class CorrelationTable:
    """What the page shows of the correlations: the strongest across parties, the largest inflations, warnings."""

    rows: int
    pairs: tuple[CorrelatedPair, ...]
    columns: tuple[InflatedColumn, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class TriedPenalty:
    """One penalty and the mean error of its model: squared, or of counts the deviance."""

    penalty: float
    error: float


@dataclass(frozen=True)
class PenaltyPath:
    """Penalties that were tried, measured on `rows` training rows, the smallest first; `chosen` : the model's."""

    rows: int
    chosen: float
    points: tuple[TriedPenalty, ...]


@dataclass(frozen=True)
class PartnerGain:
    """What the partner's columns brought: AUC joint minus bank, top-decile lift without and with."""

    auc: float
    top_lift_bank: float
    top_lift_joint: float


@dataclass(frozen=True)
class PartyShapes:
    """What each own column of one party adds in an additive model; it alone was told."""

    party: str
    shapes: Shapes


@dataclass(frozen=True)
class RunSummary:
    """One run as its report shows it.

    run : the run's identifier; contract_digest : hexadecimal
    common_band : bounds of the number of common customers, None where nobody is told; common_exact : in simulation only
    convergence : empty where nothing is opened during training, which is the rule outside simulation
    gain_interval : 95 % interval of AUC(joint) - AUC(bank) on the same rows
    seconds : by stage, in order; bytes_sent : by party; rounds : of messages that travel together
    finished : time of the end as text, as the log has it; empty if the run has no clock
    correlation : only where the contract lists `CrossCorrelation`; the JSON has the field only there
    shapes : of an additive model, of the parties whose folders were read
    shared_pairs : of an additive model, PARTY/COLUMN of two parties, whose products nobody is shown the weights of
    path : only where the contract has several penalties, as with `correlation`
    rates : of the groups that the contract's governance declares
    """

    name: str
    purpose: str
    run: str
    contract_digest: str
    parties: tuple[PartyLine, ...]
    common_band: tuple[int, int] | None
    models: Models | ValueModels
    common_exact: int | None = None
    convergence: tuple[ConvergencePoint, ...] = ()
    convergence_measure: str = "loss"
    gain_interval: Interval | None = None
    disclosures: tuple[DisclosureLine, ...] = ()
    heads: tuple[HeadLine, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_sent: dict[str, int] = field(default_factory=dict)
    rounds: int = 0
    simulated: bool = False
    seed: int | None = None
    finished: str = ""
    warnings: tuple[str, ...] = ()
    shapes: tuple[PartyShapes, ...] = ()
    shared_pairs: tuple[tuple[str, str], ...] = ()
    correlation: CorrelationTable | None = None
    path: PenaltyPath | None = None
    rates: tuple[GroupRates, ...] = ()

    @property
    def responses(self) -> Models:
        """The models of a run whose labels are answers; ValueError for one whose labels are values."""
        if isinstance(self.models, ValueModels):
            raise ValueError(f"a {self.models.kind} model predicts values, not answers")
        return self.models

    @property
    def partner_gain(self) -> PartnerGain:
        """Compare the joint model with the bank's own, both as the bank can measure them."""
        bank, joint = self.responses.bank.metrics, self.responses.joint.metrics
        return PartnerGain(joint.auc - bank.auc, bank.top_lift, joint.top_lift)

    def to_json(self) -> str:
        """Encode as JSON text, fields and stages in their order."""
        facts = {"format": FORMAT, **asdict(self)}
        for name in ("correlation", "path", "rates"):
            if not facts[name]:
                del facts[name]
        return json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "RunSummary":
        """Decode what `to_json` wrote; ValueError names a field that is missing, unknown or mistyped."""
        facts = json.loads(text)
        if not isinstance(facts, dict) or facts.pop("format", None) != FORMAT:
            raise ValueError(f"summary: format must be {FORMAT}")
        facts.setdefault("correlation", None)
        for name in ("shapes", "shared_pairs", "rates"):  # summaries of earlier versions have none
            facts.setdefault(name, [])
        facts.setdefault("path", None)
        return cast(RunSummary, rebuild(cls, facts, "summary"))


@dataclass(frozen=True)
class LogSummary:
    """One run as the log of one organisation shows it, fields as in `RunSummary`: no model, no figure."""

    name: str
    purpose: str
    run: str
    contract_digest: str
    parties: tuple[PartyLine, ...]
    disclosures: tuple[DisclosureLine, ...]
    heads: tuple[HeadLine, ...]
    finished: str = ""
    warnings: tuple[str, ...] = ()
    simulated: bool = False
    shapes: tuple[PartyShapes, ...] = ()
    shared_pairs: tuple[tuple[str, str], ...] = ()


def measure_model(y: ArrayLike, p: ArrayLike, random: Random) -> ModelResult:
    """Measure one model's predicted probabilities `p` (n,) on held-out labels `y` (n,)."""
    return ModelResult(evaluate(y, p, random), roc_curve(y, p), gains_curve(y, p), score_histogram(y, p))


def rebuild(kind: object, value: object, where: str) -> object:
    """Build a value of the declared type from what `json.loads` gives; ValueError names what is wrong."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return _rebuild_dataclass(kind, value, where)
    if origin in (types.UnionType, Union):
        if value is None and type(None) in inner:
            return None
        return rebuild(_alternative([k for k in inner if k is not type(None)], value), value, where)
    if origin is tuple:
        return _rebuild_tuple(inner, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: an object is needed")
        return {str(k): rebuild(inner[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a kind of int in Python, and not in JSON
    if not isinstance(kind, type) or type(value) is not kind:
        raise ValueError(f"{where}: {getattr(kind, '__name__', kind)} is needed, not {type(value).__name__}")
    return value


def _alternative(kinds: list[object], value: object) -> object:
    """Choose between dataclasses by the names of their fields; without a match the first one says what is wrong."""
    names = set(value) if isinstance(value, dict) else set()
    for kind in kinds:
        if isinstance(kind, type) and is_dataclass(kind) and {f.name for f in fields(kind)} == names:
            return kind
    return kinds[0]


def _rebuild_dataclass(kind: type, value: object, where: str) -> object:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: an object is needed")
    hints, names = get_type_hints(kind), [f.name for f in fields(kind)]
    wrong = sorted(set(names) ^ set(value))
    if wrong:
        raise ValueError(f"{where}.{wrong[0]}: {'missing' if wrong[0] in names else 'unknown'}")
    return kind(**{name: rebuild(hints[name], value[name], f"{where}.{name}") for name in names})


def _rebuild_tuple(inner: tuple[object, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: a list is needed")
    kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
    if len(kinds) != len(value):
        raise ValueError(f"{where}: {len(kinds)} values are needed, not {len(value)}")
    return tuple(rebuild(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
