"""C09 and C10: how few people may be behind a match, and how often its size may be shown."""

from collections.abc import Iterator
from datetime import timedelta

from fedmkt.party.controls.control import Breach, ContractAsked, Control, ListsAsked, MatchAsked, RowsAsked


def _minimum_sizes(asked: ContractAsked) -> Iterator[Breach]:
    for name in ("min_list", "min_common"):
        agreed, own = getattr(asked.contract.limits, name), getattr(asked.config.policy, name)
        if agreed < own:
            yield Breach(f"{name} = {agreed} in the contract, {asked.config.name} needs {own}")


def _list_size(asked: RowsAsked) -> Iterator[Breach]:
    if asked.rows < max(asked.config.policy.min_list, asked.contract.limits.min_list):
        yield Breach(f"{asked.config.name} does not match lists this short")


def _remainder(asked: MatchAsked) -> Iterator[Breach]:
    # How many must be common, the protocol asks where it counts (`contract.checks.check_common`).
    terms = asked.contract.governance
    # If nearly all are common, a size tells of each that it is.
    if terms is not None and asked.rows - asked.common < terms.min_rest:
        yield Breach(f"too few people of {asked.config.name} are not common: it would be told of nearly each")


def _differencing(asked: ListsAsked) -> Iterator[Breach]:
    policy, name = asked.config.policy, asked.config.name
    most = (
        policy.max_size_runs if asked.terms is None else min(policy.max_size_runs, asked.terms.max_size_runs)
    )
    window = timedelta(days=policy.size_run_days)
    recent = sorted(time for time in asked.earlier if asked.now - time < window)
    if len(recent) >= most:
        yield Breach(
            f"{name} shows sizes to one partner at most {most} times in {policy.size_run_days} days",
            f"the next such run may begin on {recent[-most] + window:%Y-%m-%d at %H:%M} UTC",
        )
    if any(0 < found < policy.min_difference for found in asked.differences):
        yield Breach(
            f"{name} matched a list before that differs from this one by fewer than {policy.min_difference} ids",
            "match the same list again, or one with more new people",
        )


CONTROLS = (
    Control("C09", "minimum match", "k-anonymity; AWS Clean Rooms", "always",
            "limits.min_list, min_common, min_rest", contract=_minimum_sizes, rows=_list_size, match=_remainder),
    Control("C10", "differencing guard", "USENIX Security 2022", "always",
            "policy.min_difference, max_size_runs", lists=_differencing),
)  # fmt: skip
