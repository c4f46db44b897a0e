"""All fuzz targets by name."""

from tests.fuzz import of_files, of_logs, of_messages, of_tables
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (*of_messages.TARGETS, *of_logs.TARGETS, *of_files.TARGETS, *of_tables.TARGETS)
}
