"""The texts of the files that `init` writes for people to fill in; `parties/` shows them."""

import json
from typing import Literal

Role = Literal["bank", "partner"]

_PARTY = """\
# Who we are. fedmkt reads this file and never rewrites it, except that `fedmkt party pin` adds a line.
name = {name}
organisation = {organisation}

[node]
data = "."                    # the folder of the file that schema.toml names
runtime_port = 9094           # Flower's SuperNode and our task, on this machine only
health_port = 9095            # answers "alive" on this machine only

# The identity keys (Ed25519, 64 hexadecimal digits) of all signers of a contract, our own and the
# coordinator's among them. Each is added with `fedmkt party pin NAME REQUEST_OR_KEY`, after its fingerprint
# was compared with a person there, over a line that the coordinator does not run: a key that merely stands
# in a contract proves nothing.
[pinned]
"""

_POLICY = """\
# What we allow, whatever a contract says. A template: it allows no purpose, so every contract is refused
# until one is named here.
purposes = []                 # for example ["term deposit campaign 2027"]
columns = {columns}

min_list = 1000               # ids that a list must have before it is matched
min_common = 1000             # common customers that there must be before anything is released
min_support = 50              # rows behind each value of a column
min_difference = 100          # ids by which a new list differs from each earlier one with that partner, or none
max_size_runs = 5             # runs with one partner that show sizes, within size_run_days
size_run_days = 30
max_runs = 5
max_resumes = 3
max_epsilon = 8.0             # of all that one counterpart had with noise: totals, and lists with dummies
max_decimals = 2              # of released scores

require_governance = false    # true: no contract without [governance], which says legal bases and who approves
require_approvals = true      # a contract with it needs the approvals of the people whom it names
require_filters = true        # where data are by consent, or the use is marketing: consent column, opt-out list

auditors = []                 # seal_key of auditors whom we compared: with one party they could read our columns
"""

_BANK_SCHEMA = """\
# The bank's table: one row per customer. A template with invented columns.
file = "customers.parquet"
id = "phone"
id_kind = "phone"             # phone, email, national_id or raw
country = "49"                # dialling code, for phone numbers without one
numbers = ["age", "balance"]
categories = ["job"]
label = "responded"           # 1 or 0; empty for customers who were not in the campaign
"""

_PARTNER_SCHEMA = """\
# The partner's table: one row per customer. A template with invented columns.
file = "customers.parquet"
id = "phone"
id_kind = "phone"             # phone, email, national_id or raw; the same kind as the bank's
country = "49"                # dialling code, for phone numbers without one
numbers = ["orders", "spend"]
categories = ["channel"]
"""

_COORDINATOR = """\
# What this coordinator operates. It must belong to no party: the dealer together with one party can read the
# other party's columns, even later from recorded traffic.
name = {name}
organisation = {organisation}

host = {host}
other_hosts = {other_hosts}
# host is what parties dial; the server's certificate answers for it, for other_hosts and for this machine.
# After a change: fedmkt coordinator renew

listen = "0.0.0.0"            # where front and hub wait; all else waits on this machine only
front_port = 8443             # parties' nodes dial it: Flower's fleet API and nothing else of Flower
hub_port = 8444               # parties' sessions dial it during a run
superlink_port = 8000         # Flower's SuperLink; must not be reachable from outside
health_port = 8090            # answers "alive"

[policy]
# What we allow, whatever a contract says. We have no table, so there is no column to allow.
purposes = []                 # for example ["term deposit campaign 2027"]
columns = []
max_runs = 5
max_resumes = 3
"""


def party_toml(name: str, organisation: str) -> str:
    """Write party.toml; its last line opens the table of pinned keys."""
    return _PARTY.format(name=json.dumps(name), organisation=_quoted(organisation))


def policy_toml(role: Role) -> str:
    """Write policy.toml: no purpose is allowed yet."""
    columns = ["age", "balance", "job", "responded"] if role == "bank" else ["orders", "spend", "channel"]
    return _POLICY.format(columns=json.dumps(columns))


def schema_toml(role: Role) -> str:
    """Write schema.toml with invented columns; only the bank's has a label."""
    return _BANK_SCHEMA if role == "bank" else _PARTNER_SCHEMA


def coordinator_toml(name: str, organisation: str, host: str, other_hosts: tuple[str, ...]) -> str:
    """Write coordinator.toml with the default ports."""
    return _COORDINATOR.format(
        name=json.dumps(name),
        organisation=_quoted(organisation),
        host=json.dumps(host),
        other_hosts=json.dumps(list(other_hosts)),
    )


def _quoted(text: str) -> str:
    # JSON and TOML write printable text alike.
    return json.dumps(text, ensure_ascii=False)
