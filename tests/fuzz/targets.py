"""All fuzz targets by name."""

from tests.fuzz import of_files, of_logs, of_messages, of_stores, of_tables
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (of_messages, of_logs, of_files, of_tables, of_stores)
    for target in module.TARGETS
}
