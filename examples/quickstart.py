"""The main job from Python: invent two small parties, train one model over both, look at what it brought.

    python examples/quickstart.py

Runs offline in a few seconds and leaves nothing behind. With your own files, write a job.toml like the one
printed below and start at `fedmkt.simulate`.
"""

import tempfile
from pathlib import Path

import fedmkt
from fedmkt.simulation.world import generate, write_world


def main() -> None:
    """Run the job and print what a bank would want to know."""
    with tempfile.TemporaryDirectory() as folder:
        job = write_world(generate(1, 8000, 9000, 5000), Path(folder) / "files")
        print(job.read_text())

        planned = fedmkt.plan(job)
        print(f"planned: {planned.rounds} rounds, {sum(planned.bytes_sent.values()) / 1e6:.0f} MB at most")

        result = fedmkt.simulate(job, out=Path(folder) / "run")
        models, gain = result.summary.models, result.summary.gain_interval
        low, high = result.summary.common_band
        print(f"common customers: between {low:,} and {high:,}")
        print(f"AUC of the bank alone: {models.bank.metrics.auc:.3f}")
        print(f"AUC with the partner:  {models.joint.metrics.auc:.3f}")
        if gain is not None:
            print(f"gained, with 95 % confidence: {gain.low:+.3f} to {gain.high:+.3f}")

        print("\nwho learned what:")
        for line in result.summary.disclosures:
            print(f"  {line.reader:<12} {line.kind:<15} {line.amount}")

        scores = fedmkt.score(result.folder)
        print("\nbest scores:", *scores.read_text().splitlines()[:4], sep="\n  ")


if __name__ == "__main__":
    main()
