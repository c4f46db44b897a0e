"""One run as one HTML file: no script, no external resource, everything from outside escaped."""

from dataclasses import dataclass

from fedmkt.learn.regression import ValueFit
from fedmkt.report.figures import draw_convergence, draw_figures, drawn
from fedmkt.report.path import draw_path
from fedmkt.report.shapes import draw_shapes
from fedmkt.report.summary import (
    DisclosureLine,
    LogSummary,
    ModelResult,
    Models,
    RunSummary,
    ValueModels,
)

_PAGE = "page.html.j2"
_VALUE_PAGE = "values.html.j2"
_LOG_PAGE = "own.html.j2"


@dataclass(frozen=True)
class ModelRow:
    """One line of the comparison table."""

    name: str
    note: str
    style: str
    result: ModelResult | ValueFit


@dataclass(frozen=True)
class Reader:
    """One party and everything that it learned."""

    name: str
    organisation: str
    role: str
    lines: tuple[DisclosureLine, ...]


def render(summary: RunSummary, owner: str = "") -> str:
    """Return the page as text; equal summaries give equal bytes.

    owner : whose folder the summary is from, if it is one organisation's: the page says what is not in it.
    """
    if isinstance(summary.models, ValueModels):
        return _render_values(summary, summary.models, owner)
    return _fill(
        _PAGE,
        summary,
        owner,
        headline=headline(summary),
        verdict=verdict(summary),
        whose=_whose(summary),
        model_rows=_model_rows(summary.models),
        figures={name: drawn(svg) for name, svg in draw_figures(summary).items()},
    )


def _render_values(summary: RunSummary, models: ValueModels, owner: str) -> str:
    counts, (before, after) = models.joint.explained is not None, _explained(models)
    return _fill(
        _VALUE_PAGE,
        summary,
        owner,
        headline=value_headline(summary, models),
        measure=_measure(models),
        before=before,
        after=after,
        counts=counts,
        whose=_whose(summary),
        model_rows=_model_rows(models),
        figures={name: drawn(svg) for name, svg in draw_convergence(summary).items()},
    )


def _measure(models: ValueModels) -> str:
    return "R²" if models.joint.explained is None else "explained deviance"


def _explained(models: ValueModels) -> tuple[float, float]:
    found = [fit.r2 if fit.explained is None else fit.explained for fit in (models.bank, models.joint)]
    return found[0], found[1]


def value_headline(summary: RunSummary, models: ValueModels) -> str:
    """Say in one sentence what the partner's columns brought to the prediction of a number or a count."""
    before, after = _explained(models)
    columns, measure = f"The {_whose(summary)} columns", _measure(models)
    if abs(after - before) < 0.002:
        return f"{columns} make no clear difference: {measure} {before:.3f} before, {after:.3f} after."
    verb = "raise" if after > before else "lower"
    return f"{columns} {verb} {measure} from {before:.3f} to {after:.3f}."


def render_log(summary: LogSummary, owner: str) -> str:
    """Return the page of an organisation that has no scores: what its log shows."""
    return _fill(_LOG_PAGE, summary, owner)


def _fill(template: str, summary: RunSummary | LogSummary, owner: str, **values: object) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Autoescape is on for every template: names and purposes are other people's text.
    environment = Environment(
        loader=PackageLoader("fedmkt", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=show_number, seconds=show_seconds, size=show_size)
    readers, shapes = _readers(summary), draw_shapes(summary.shapes) if summary.shapes else ()
    path = draw_path(summary.path) if isinstance(summary, RunSummary) and summary.path is not None else ""
    return environment.get_template(template).render(
        summary=summary, owner=owner, readers=readers, shapes=shapes, path=path, **values
    )


def headline(summary: RunSummary) -> str:
    """Say in one sentence what the partner's columns brought, and not more than the rows support."""
    gain, bank, joint = summary.partner_gain, summary.responses.bank.metrics, summary.responses.joint.metrics
    lift = f"top-decile lift from {gain.top_lift_bank:.2f} to {gain.top_lift_joint:.2f}"
    columns = f"The {_whose(summary)} columns"
    interval = summary.gain_interval
    is_clear = abs(gain.auc) >= 0.002 if interval is None else not interval.low <= 0 <= interval.high
    if not is_clear:
        return (
            f"{columns} make no clear difference: AUC {bank.auc:.3f} before, {joint.auc:.3f} after; {lift}."
        )
    verb = "raise" if gain.auc > 0 else "lower"
    return f"{columns} {verb} AUC from {bank.auc:.3f} to {joint.auc:.3f}; {lift}."


def verdict(summary: RunSummary) -> str:
    """Say what the headline rests on: rows, responders, and the interval of the gain."""
    metrics, interval = summary.responses.joint.metrics, summary.gain_interval
    text = (
        f"Measured on {show_number(metrics.rows)} held-out customers, "
        f"{show_number(metrics.responders)} of whom responded ({metrics.responders / metrics.rows:.1%})."
    )
    if interval is not None:
        text += f" The gain in AUC lies between {interval.low:+.3f} and {interval.high:+.3f} (95%)."
    return text.replace("-0.", "−0.")


def show_number(value: int | float) -> str:
    """Write a count with thin spaces between thousands, rounded to whole."""
    return f"{value:,.0f}".replace(",", "\u202f")


def show_seconds(value: float) -> str:
    """Write a duration with about three digits."""
    if value >= 120:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s"


def show_size(value: int | float) -> str:
    """Write a number of bytes in decimal units."""
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def _whose(summary: RunSummary) -> str:
    return "partners’" if sum(party.role == "partner" for party in summary.parties) > 1 else "partner’s"


def _model_rows(models: Models | ValueModels) -> list[ModelRow]:
    rows = [
        ModelRow("Bank alone", "the bank’s columns only", "bank", models.bank),
        ModelRow("Joint", "all columns, from the scores released to the bank", "joint", models.joint),
    ]
    if models.joint_exact is not None:
        rows.append(
            ModelRow("Joint, exact scores", "before rounding; simulation only", "exact", models.joint_exact)
        )
    if models.centralised is not None:
        note = "all columns pooled in one place; simulation only"
        rows.append(ModelRow("Centralised", note, "central", models.centralised))
    return rows


def _readers(summary: RunSummary | LogSummary) -> list[Reader]:
    """Group disclosures by reader: every signer is listed, also those that learned nothing."""
    known = {party.name: party for party in summary.parties}
    names = list(dict.fromkeys([*known, *(line.reader for line in summary.disclosures)]))
    return [
        Reader(
            name,
            known[name].organisation if name in known else "",
            known[name].role if name in known else "not a signer",
            tuple(line for line in summary.disclosures if line.reader == name),
        )
        for name in names
    ]
