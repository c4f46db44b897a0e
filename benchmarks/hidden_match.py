"""What hiding the match costs: CPU seconds of the same training with the match shown and hidden.

The partner has `rows` people, of whom a share are the bank's customers and train the model. Shown, only these take
part; hidden, the partner's whole list does. All parties in one process, rows aligned already. Prints JSON.

    python -m benchmarks.hidden_match --rows 200000 --columns 20 --rates 0.1 0.5
"""

import argparse
import json
from dataclasses import replace

import numpy as np

from benchmarks.train import job, joint_weights, make_tables, train_jointly
from fedmkt.config.job import JobConfig
from fedmkt.contract.agreement import AlignTerms, Contract
from fedmkt.learn import glm, prepare
from fedmkt.protocol.alignment.align import Slots, Split
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import Caller, Inbox, Nothing, Outcome, Script, Step, Turn, ask, data_parties
from fedmkt.protocol.linear.bounds import check_bounds
from fedmkt.protocol.linear.logistic import fit
from fedmkt.protocol.prepare import Columns, Prepared, prepare_columns
from fedmkt.protocol.witness import witness


def hidden_script(people: int, common: int, seed: int) -> Script:
    """Return the part of the job between alignment and scoring; the first `common` of the partner's people train."""
    order = np.random.default_rng(seed).permutation(people).astype(np.int64)

    def announce(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Overlap]:
        own = np.where(order < common, order, NO_ROW) if turn.first else order
        none = np.empty(0, np.int64)
        kept = (Split(own[own != NO_ROW], none, none), Slots(own, own))
        return Outcome(Overlap(common - 1, people, 0, 0, people), keep=kept)

    step = Step("bench.announce", announce, Overlap)

    def script(call: Caller, contract: Contract) -> Overlap:
        witness(call, contract)
        told = call.all([ask(p, step) for p in data_parties(contract)])
        overlap = told[0].public.value
        shapes = prepare_columns(call, contract)
        check_bounds(contract, overlap, shapes)
        fit(call, contract, overlap, {p: s.columns for p, s in shapes.items()})
        return overlap

    return script


def cut(columns: Columns, rows: int) -> Columns:
    """Return the first rows of a table."""
    label = None if columns.label is None else columns.label[:rows]
    return replace(columns, numbers={n: v[:rows] for n, v in columns.numbers.items()}, label=label)


def hiding(config: JobConfig) -> JobConfig:
    """Return the same job with the match hidden."""
    kinds = tuple(k for k in config.disclosures if k not in ("SetSize", "CampaignRows"))
    return config.model_copy(update={"align": AlignTerms(match="hidden"), "disclosures": kinds})


def measure(rows: int, columns: int, iterations: int, rate: float, seed: int) -> dict[str, object]:
    """Train on the same common customers twice, shown and hidden."""
    common, config = round(rows * rate), job(columns, iterations, 0.05)
    tables = make_tables(rows, columns, seed)
    few = {p: cut(t, common) for p, t in tables.items()}
    _, shown = train_jointly(config, few, seed)
    held = {"bank": few["bank"], "partner": tables["partner"]}
    parties, hidden = train_jointly(hiding(config), held, seed, hidden_script(rows, common, seed))
    x = []
    for party in ("bank", "partner"):
        fitted = prepare.Preparation.from_json(parties[party].recall(Prepared).preparation)
        x.append(prepare.transform(fitted, few[party].numbers, few[party].categories).values)
    pooled, label = np.concatenate(x, axis=1), few["bank"].label
    if label is None:
        raise ValueError("the bank has no label")
    best = glm.fit_logistic(pooled, label, config.model.penalty)
    intercept, w = joint_weights(parties)
    ours, theirs = np.append(w, intercept), np.append(best.coefficients, best.intercept)
    cpu = {"shown": float(str(shown["cpu_s"])), "hidden": float(str(hidden["cpu_s"]))}
    return {
        "rate": rate, "common": common, "cpu_s": cpu, "times": cpu["hidden"] / cpu["shown"],
        "bytes": {"shown": shown["bytes"], "hidden": hidden["bytes"]},
        "weight_error": float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)),
    }  # fmt: skip


def main() -> None:
    """Read options, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000, help="people on the partner's list")
    parser.add_argument("--columns", type=int, default=20, help="columns of each party")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.5])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    measure(4000, options.columns, 2, 0.5, options.seed)  # compiles and imports what is needed late
    found = [
        measure(options.rows, options.columns, options.iterations, r, options.seed) for r in options.rates
    ]
    print(json.dumps({"rows": options.rows, "columns": [options.columns] * 2, "runs": found}, indent=1))


if __name__ == "__main__":
    main()
