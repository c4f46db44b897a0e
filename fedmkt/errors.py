"""Everything that fedmkt raises on purpose.

FedmktError
  ConfigError        a file or option is wrong                         exit 2
  DataError          a table breaks its schema                         exit 3
  PolicyRefused      we will not do this                               exit 4
  PeerError          the other side broke the protocol                 exit 5
  TransportError     not delivered; safe to retry the same request     exit 6
  AuditError         a log does not verify                             exit 7
"""


class FedmktError(Exception):
    """Root of the tree; `exit_code` is what the command line ends with, `hint` what the reader can do."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(FedmktError):
    """A file or an option is wrong; says file, key, value and what is accepted."""

    exit_code = 2


class DataError(FedmktError):
    """A table breaks its schema; says file, column, row number and count, never a value."""

    exit_code = 3


class PolicyRefused(FedmktError):
    """A party will not do what it was asked; says the rule, never a count of the peer's data."""

    exit_code = 4


class PeerError(FedmktError):
    """The other side broke the protocol; says party, step and digest of the message."""

    exit_code = 5


class TransportError(FedmktError):
    """A request was not delivered; the same request may be sent again."""

    exit_code = 6


class AuditError(FedmktError):
    """A log does not verify; says which file, which leaf, which proof."""

    exit_code = 7
