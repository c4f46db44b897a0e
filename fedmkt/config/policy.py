"""What an organisation allows, whatever a contract says: policy.toml, and a job's section for its simulated parties."""

from pydantic import Field

from fedmkt.contract.words import Count, Flag, Key, Kind, Real, Terms, Text
from fedmkt.privacy.disclosure import DEFAULT


class PolicyConfig(Terms):
    """What one organisation allows, whatever a contract says; the defaults allow no purpose and no column.

    min_difference : ids by which a list differs from each earlier one with the same partner, unless it is equal
    (1: any). max_size_runs : runs with one partner within size_run_days that show how long an intersection is.
    max_epsilon : of all trainings with noise that one bank had of the own columns. max_decimals : of released scores.
    require_governance : refuse a contract without [governance]. require_approvals : ask, where there is one, for the
    approvals that it names; require_filters : for the consent or the opt-out list that its terms call for.
    auditors : sealing keys (X25519) of auditors that a contract may name; compared out of band, like pinned keys.
    result_days, record_days, transport_days : kept after a run: results at most, records and logs of programs at least.
    Where the contract has terms of its own both hold: results go by the earlier, the others by the later of the two.
    """

    purposes: tuple[Text, ...] = ()
    columns: tuple[Text, ...] = ()
    min_list: Count = Field(default=1000, ge=1)
    min_common: Count = Field(default=1000, ge=1)
    max_common: Count | None = Field(default=None, ge=1)
    min_support: Count = Field(default=50, ge=1)
    min_difference: Count = Field(default=100, ge=1)
    max_size_runs: Count = Field(default=5, ge=1)
    size_run_days: Count = Field(default=30, ge=1, le=3660)
    max_runs: Count = Field(default=5, ge=1)
    max_resumes: Count = Field(default=3, ge=0)
    max_epsilon: Real = Field(default=8.0, gt=0)
    max_decimals: Count = Field(default=2, ge=1, le=4)
    disclosures: tuple[Kind, ...] = DEFAULT
    rehearsals: Flag = False
    require_governance: Flag = False
    require_approvals: Flag = True
    require_filters: Flag = True
    auditors: tuple[Key, ...] = ()
    result_days: Count = Field(default=180, ge=1, le=36_600)
    record_days: Count = Field(default=1096, ge=1, le=36_600)
    transport_days: Count = Field(default=183, ge=1, le=36_600)


class JobPolicy(Terms):
    """The simulated parties' own minimum sizes; what is absent follows the job's limits.

    One person plays all parties: nobody approves and nobody is asked, unless the job wants it.
    """

    min_list: Count | None = Field(default=None, ge=1)
    min_common: Count | None = Field(default=None, ge=1)
    max_common: Count | None = Field(default=None, ge=1)
    min_support: Count | None = Field(default=None, ge=1)
    min_difference: Count = Field(default=100, ge=1)
    max_size_runs: Count = Field(default=5, ge=1)
    size_run_days: Count = Field(default=30, ge=1, le=3660)
    max_runs: Count | None = Field(default=None, ge=1)
    max_resumes: Count | None = Field(default=None, ge=0)
    max_epsilon: Real | None = Field(default=None, gt=0)
    max_decimals: Count | None = Field(default=None, ge=1, le=4)
    disclosures: tuple[Kind, ...] | None = None
    require_governance: Flag = False
    require_approvals: Flag = False
    require_filters: Flag = False
