"""The long tests of a simulated run: `python -m tests.simulation.long kills|seeds|inputs [how many]`.

kills   kill -9 of real processes at random moments and at every message, write and rename; resumed until they end
seeds   many small random jobs, each against the centralised optimum and a floating-point twin of the training
inputs  good CSV, Parquet and TOML files, spoilt at random places, through the command line

Two more are called by tests: `victim EVENT COMMAND...` runs a command of fedmkt that kills itself, `full BYTES
COMMAND...` one whose files cannot grow beyond a size. The suite runs a short form of each; the claims are there.
"""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run one of the long tests."""
    from tests.simulation.inputs import inputs
    from tests.simulation.kills import kills, on_a_full_disk, victim
    from tests.simulation.seeds import seeds

    if arguments[:1] == ["victim"]:
        return victim(arguments[1], arguments[2:])
    if arguments[:1] == ["full"]:
        return on_a_full_disk(int(arguments[1]), arguments[2:])
    numbers = [int(a) for a in arguments[1:]]
    if arguments[:1] == ["seeds"]:
        return min(1, len(seeds(*numbers)))
    if arguments[:1] == ["kills"]:
        return min(1, kills(*numbers))
    if arguments[:1] == ["inputs"]:
        return min(1, inputs(*numbers))
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
