"""Settings parsed from text, each mistake one line; reading files is for the callers."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError

from fedmkt.config.job import JobConfig
from fedmkt.config.policy import PolicyConfig
from fedmkt.config.settings import CoordinatorSettings, PartyConfig
from fedmkt.config.tables import BankConfig, PartnerConfig
from fedmkt.contract.words import Terms
from fedmkt.errors import ConfigError
from fedmkt.mistakes import config_error, read_toml


def parse_job(text: str, path: str) -> JobConfig:
    """Read the text of a job.toml; ConfigError names `path`, key, value and what is accepted."""
    return _parse(JobConfig, read_toml(text, path), path)


def parse_party(text: str, path: str) -> PartyConfig:
    """Read the text of a party.toml; ConfigError names `path`, key, value and what is accepted."""
    return _parse(PartyConfig, read_toml(text, path), path)


def parse_party_folder(
    party: str, policy: str, schema: str, folder: str
) -> tuple[PartyConfig, PartnerConfig | BankConfig]:
    """Read the texts of a party's three files; a schema with a label is a bank's.

    folder : only used to say where a mistake is.
    """
    own = f"{folder}/party.toml"
    values = read_toml(party, own)
    if "policy" in values:
        raise ConfigError(f"{own}: policy: stands in policy.toml, beside this file")
    config = _parse(PartyConfig, {**values, "policy": {}}, own)
    allowed = _parse(PolicyConfig, read_toml(policy, f"{folder}/policy.toml"), f"{folder}/policy.toml")
    return config.model_copy(update={"policy": allowed}), parse_schema(
        schema, f"{folder}/schema.toml", config.name, config.organisation
    )


def parse_schema(text: str, path: str, name: str, organisation: str) -> PartnerConfig | BankConfig:
    """Read the text of a schema.toml: the table of the party `name`; the bank's has a label."""
    values = read_toml(text, path)
    for key in ("name", "organisation"):
        if key in values:
            raise ConfigError(f"{path}: {key}: stands in party.toml, beside this file")
    values |= {"name": name, "organisation": organisation}
    return _parse(BankConfig if "label" in values else PartnerConfig, values, path)


def parse_coordinator(text: str, path: str) -> CoordinatorSettings:
    """Read the text of a coordinator.toml; ConfigError names `path`, key, value and what is accepted."""
    return _parse(CoordinatorSettings, read_toml(text, path), path)


T = TypeVar("T", bound=Terms)


def _parse(model: type[T], values: Mapping[str, object], path: str) -> T:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise config_error(path, model, error) from None
