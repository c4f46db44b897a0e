"""What each participant sets for itself: party.toml with the keys it pinned, and the coordinator's own file."""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from fedmkt.config.policy import PolicyConfig
from fedmkt.contract.words import Key, Name, Terms, Text

Port = Annotated[int, Field(strict=True, ge=1, le=65535)]


def _host(value: str) -> str:
    try:
        ip_address("" if "%" in value else value)  # a zone could hold any text
    except ValueError:
        if not _HOST_NAME.fullmatch(value) or value.rpartition(".")[2].isdecimal():
            raise ValueError("a host name or an IP address, without port") from None
    return value


# Never an option of a program: a label begins and ends with a letter or a digit.
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
Host = Annotated[str, AfterValidator(_host)]
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Where a server for other organisations listens unless it is told an address.
ANY_ADDRESS = "0.0.0.0"  # nosec B104


class NodeConfig(Terms):
    """How a party's processes run on its own machine; both ports listen on loopback only.

    data : the folder of the table's file, relative to the party's folder.
    """

    data: Text = "."
    runtime_port: Port = 9094
    health_port: Port = 9095

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.runtime_port == self.health_port:
            raise ValueError("runtime_port and health_port differ")
        return self


class PartyConfig(Terms):
    """One organisation's own settings: who it is, the keys it compared out of band, what it allows."""

    name: Name
    organisation: Text
    pinned: Mapping[Name, Key]
    policy: PolicyConfig = PolicyConfig()
    node: NodeConfig = NodeConfig()


class CoordinatorSettings(Terms):
    """What the coordinator operates: where parties reach it, and the ports of its own processes.

    host : what parties dial. listen : the address to which front and hub are bound; the rest is on loopback.
    """

    name: Name
    organisation: Text
    host: Host
    other_hosts: tuple[Host, ...] = ()
    listen: Host = ANY_ADDRESS
    front_port: Port = 8443
    hub_port: Port = 8444
    superlink_port: Port = 8000
    health_port: Port = 8090
    policy: PolicyConfig = PolicyConfig()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Everything that the server's certificate answers for, loopback last."""
        return tuple(dict.fromkeys((self.host, *self.other_hosts, *LOOPBACK)))

    def party(self, pinned: Mapping[str, str]) -> PartyConfig:
        """Return the coordinator's side of a contract; `pinned` : the keys of its signers, as admitted."""
        return PartyConfig(name=self.name, organisation=self.organisation, pinned=pinned, policy=self.policy)

    @model_validator(mode="after")
    def _check(self) -> Self:
        ports = (self.front_port, self.hub_port, self.superlink_port, self.health_port)
        if len(set(ports)) != len(ports):
            raise ValueError("front_port, hub_port, superlink_port and health_port differ")
        return self
