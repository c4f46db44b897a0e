import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedmkt.config.settings import CoordinatorSettings, NodeConfig
from tests.test_docs import missing_in

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "docs" / "deploy"
UNITS = sorted((FILES / "systemd").glob("*.service"))
SECRET = re.compile(r"(secret|passw|token|credential|private|api_?key|\.key\b|identity)", re.IGNORECASE)
PORTS = {name: CoordinatorSettings.model_fields[f"{name}_port"].default for name in ("front", "hub")}
INNER = {CoordinatorSettings.model_fields[f"{name}_port"].default for name in ("superlink", "health")} | {
    NodeConfig.model_fields[f"{name}_port"].default for name in ("runtime", "health")
}


# A Dockerfile, read as hadolint reads one.


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its continued lines joined."""

    word: str
    rest: str


def instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    pairs = [line.strip().partition(" ") for line in joined.splitlines() if line.strip()]
    return [Instruction(word.upper(), rest.strip()) for word, _, rest in pairs]


def stages(text: str) -> dict[str, list[Instruction]]:
    """Split into stages by name; a stage that begins with another one has its instructions too."""
    found: dict[str, list[Instruction]] = {}
    name = ""
    for instruction in instructions(text):
        if instruction.word == "FROM":
            source, *named = re.split(r"\s+AS\s+", instruction.rest, flags=re.IGNORECASE)
            name = named[0] if named else source
            found[name] = list(found.get(source, []))
        found.setdefault(name, []).append(instruction)
    return found


def faults_of_a_dockerfile(text: str, targets: tuple[str, ...]) -> list[str]:
    return [*_faults_anywhere(text), *(fault for t in targets for fault in _faults_of_target(text, t))]


def _faults_anywhere(text: str) -> Iterator[str]:
    names = set(stages(text))
    for each in instructions(text):
        if each.word == "FROM":
            image = each.rest.split()[0]
            if image not in names and not re.search(r":\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?$", image):
                yield f"{image}: not pinned by a full version"
        if each.word == "ADD":
            yield "ADD fetches and unpacks: COPY does neither"
        if each.word in ("ENV", "ARG", "LABEL") and SECRET.search(each.rest):
            yield f"a secret in {each.word}"
        if each.word == "COPY" and (SECRET.search(each.rest) or each.rest.split()[0] in (".", "./")):
            yield f"COPY {each.rest}: more than the package"
        if each.word == "RUN" and re.search(
            r"\b(sudo|curl|wget|chmod\s+(-R\s+)?[0-7]*777|apt-get upgrade)\b", each.rest
        ):
            yield f"RUN {each.rest[:40]}"
        if each.word == "RUN" and "pip install" in each.rest and "--no-cache-dir" not in each.rest:
            yield "pip keeps its cache in the image"
        if each.word in ("CMD", "ENTRYPOINT") and not each.rest.startswith("["):
            yield f"{each.word} through a shell: signals do not arrive"
        if each.word == "HEALTHCHECK" and not re.search(r"CMD \[", each.rest):
            yield "HEALTHCHECK through a shell"


def _faults_of_target(text: str, target: str) -> Iterator[str]:
    stage = stages(text).get(target, [])
    last = {each.word: each.rest for each in stage}
    user = last.get("USER", "root").partition(":")[0]
    if not user.isdecimal() or int(user) == 0:
        yield f"{target}: the user is {user}: a number other than 0 is needed"
    for word in ("HEALTHCHECK", "CMD", "ENTRYPOINT", "WORKDIR"):
        if word not in last:
            yield f"{target}: no {word}"
    if "USER" in last:
        after = [each.word for each in stage][[each.word for each in stage].index("USER") + 1 :]
        if "RUN" in after:
            yield f"{target}: RUN after USER"
    exposed = {int(port) for each in stage if each.word == "EXPOSE" for port in each.rest.split()}
    if exposed & INNER:
        yield f"{target}: exposes a port of loopback"


DOCKERFILE = (FILES / "Dockerfile").read_text()


def test_the_images_have_no_fault_that_a_linter_would_find() -> None:
    assert faults_of_a_dockerfile(DOCKERFILE, ("party", "coordinator")) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("python:3.11.13-slim-bookworm AS base", "python:latest AS base", "not pinned"),
        ("python:3.11.13-slim-bookworm AS base", "python AS base", "not pinned"),
        ("USER 10001:10001", "USER root", "the user is root"),
        ("USER 10001:10001", "USER 0", "the user is 0"),
        ("USER 10001:10001\n", "", "the user is root"),
        ("COPY fedmkt ./fedmkt", "ADD https://example.org/x.tar.gz /", "ADD fetches"),
        ("COPY fedmkt ./fedmkt", "COPY . .", "more than the package"),
        ("COPY fedmkt ./fedmkt", "COPY keys/identity.key /keys/", "more than the package"),
        ("FLWR_TELEMETRY_ENABLED=0", "SUPEREXEC_SECRET=0", "a secret in ENV"),
        ("WORKDIR /src", "ARG API_TOKEN", "a secret in ARG"),
        ('CMD ["party", "up"]', "CMD fedmkt party up", "through a shell"),
        ('CMD ["fedmkt", "party", "status"]', "CMD fedmkt party status", "HEALTHCHECK through a shell"),
        ("--no-cache-dir ", "", "pip keeps its cache"),
        ("EXPOSE 8443 8444", "EXPOSE 8443 8000", "a port of loopback"),
        ("STOPSIGNAL SIGTERM", "RUN true", "RUN after USER"),
    ],
)
def test_a_made_up_fault_of_an_image_is_found(old: str, new: str, fault: str) -> None:
    assert DOCKERFILE.count(old) == 1
    faults = faults_of_a_dockerfile(DOCKERFILE.replace(old, new), ("party", "coordinator"))
    assert any(fault in found for found in faults)


def test_an_image_without_a_health_check_is_found() -> None:
    text = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("HEALTHCHECK"))
    assert faults_of_a_dockerfile(text, ("party",)) == ["party: no HEALTHCHECK"]


def test_the_images_run_commands_that_exist_on_a_python_that_the_package_accepts() -> None:
    for target in ("party", "coordinator"):
        stage = {each.word: each.rest for each in stages(DOCKERFILE)[target]}
        command = [*_words(stage["ENTRYPOINT"]), *_words(stage["CMD"])]
        assert command == ["fedmkt", target, "up"]
        assert missing_in(shlex.join(command)) == ""
        assert missing_in(shlex.join(_words(stage["HEALTHCHECK"].partition("CMD ")[2]))) == ""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    least = tuple(map(int, wanted.removeprefix(">=").split(".")))
    for version in re.findall(r"^FROM python:(\d+)\.(\d+)", DOCKERFILE, re.MULTILINE):
        assert tuple(map(int, version)) >= least


def _words(form: str) -> list[str]:
    return [str(word) for word in tomllib.loads(f"words = {form}")["words"]]


def test_only_the_package_is_sent_to_the_engine() -> None:
    lines = (FILES / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = {
        word for each in stages(DOCKERFILE)["build"] if each.word == "COPY" for word in each.rest.split()[:-1]
    }
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


# The compose file.


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="no YAML library here (PyYAML comes with flwr)")
    found: dict[str, Any] = yaml.safe_load((FILES / "compose.yaml").read_text())
    return found


SERVICES = ("coordinator", "bank", "partner")


def test_there_are_the_three_roles_and_each_builds_its_own_image(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == set(SERVICES)
    for name, service in compose["services"].items():
        build = service["build"]
        assert (FILES / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).samefile(FILES / "Dockerfile")
        assert build["target"] == ("coordinator" if name == "coordinator" else "party")
        assert build["target"] in stages(DOCKERFILE) and service["command"] == [build["target"], "up"]
        assert re.search(r":\d", service["image"])


def test_only_front_and_hub_can_be_reached_from_outside(compose: dict[str, Any]) -> None:
    published = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert published == {
        "coordinator": [f"{port}:{port}" for port in PORTS.values()],
        "bank": [],
        "partner": [],
    }


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_has_more_rights_than_it_needs(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", service["user"])
    assert service["user"] == {e.word: e.rest for e in stages(DOCKERFILE)["party"]}["USER"]
    assert service["read_only"] is True and service["init"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "on-failure" and service["pids_limit"] > 0
    assert not {"privileged", "network_mode", "pid", "ipc", "devices", "userns_mode"} & set(service)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_sees_its_own_folder_and_nothing_else(compose: dict[str, Any], name: str) -> None:
    mounted = [(v["type"], v["source"], v["target"]) for v in compose["services"][name]["volumes"]]
    assert mounted == [("bind", f"./{name}", "/data")]
    assert {e.word: e.rest for e in stages(DOCKERFILE)["party"]}["WORKDIR"] == "/data"


def test_bank_and_partner_meet_at_the_coordinator_only(compose: dict[str, Any]) -> None:
    networks = {name: set(compose["services"][name]["networks"]) for name in SERVICES}
    assert not networks["bank"] & networks["partner"]
    for party in ("bank", "partner"):
        assert networks[party] <= networks["coordinator"]
        assert all(compose["networks"][name].get("internal") is True for name in networks[party])


def test_no_secret_and_no_environment_stands_in_the_compose_file(compose: dict[str, Any]) -> None:
    text = (FILES / "compose.yaml").read_text()
    assert "environment" not in text and "env_file" not in text and "docker.sock" not in text
    commands = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    assert SECRET.search(commands) is None


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_asked_for_its_health_by_a_command_that_exists(
    compose: dict[str, Any], name: str
) -> None:
    kind, *command = compose["services"][name]["healthcheck"]["test"]
    assert kind == "CMD" and missing_in(shlex.join(command)) == ""
    assert command[1] == compose["services"][name]["build"]["target"]


def test_the_compose_client_accepts_the_file() -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("no docker client here")
    if subprocess.run([docker, "compose", "version"], capture_output=True, timeout=30).returncode != 0:
        pytest.skip("this docker client has no compose command")
    command = [docker, "compose", "--file", str(FILES / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# The units.


def unit(path: Path) -> dict[str, list[str]]:
    """Read a unit file: every key with its values in order, whatever its section."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line and line[0] not in "#;[":
            key, separator, value = line.partition("=")
            assert separator, line
            found.setdefault(key, []).append(value)
    return found


HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectControlGroups": "yes",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "CapabilityBoundingSet": "",
    "SystemCallArchitectures": "native",
    "UMask": "0077",
    "User": "fedmkt",
    "Group": "fedmkt",
    "Restart": "on-failure",
    "KillMode": "mixed",
}


def unit_ids(path: Path) -> str:
    return path.name


def test_there_is_a_unit_for_each_side() -> None:
    assert [path.name for path in UNITS] == ["fedmkt-coordinator.service", "fedmkt-party@.service"]


@pytest.mark.parametrize("path", UNITS, ids=unit_ids)
def test_a_unit_is_hardened_and_writes_to_its_own_folder_only(path: Path) -> None:
    found = unit(path)
    assert {key: found.get(key) for key in HARDENED} == {key: [value] for key, value in HARDENED.items()}
    (folder,) = found["ReadWritePaths"]
    assert found["WorkingDirectory"] == [folder] and folder.startswith("/var/lib/fedmkt/")


@pytest.mark.parametrize("path", UNITS, ids=unit_ids)
def test_a_unit_starts_a_command_that_exists_without_a_shell_or_a_secret(path: Path) -> None:
    found = unit(path)
    (command,) = found["ExecStart"]
    words = shlex.split(command)
    assert words[0] == "/opt/fedmkt/bin/fedmkt" and missing_in(shlex.join(["fedmkt", *words[1:]])) == ""
    assert words[-1].startswith(found["ReadWritePaths"][0])
    assert not any(SECRET.search(value) for value in [command, *found["Environment"]])


@pytest.mark.parametrize("path", UNITS, ids=unit_ids)
def test_a_unit_gives_programs_more_time_to_end_than_they_take(path: Path) -> None:
    # The supervisor waits 15 s for an executor, then 10 s for Flower's program.
    assert int(unit(path)["TimeoutStopSec"][0]) >= 45


def _copied(path: Path, folder: Path) -> Path:
    """Copy a unit so that it can be verified where fedmkt is not installed; a template gets an instance."""
    copy = folder / path.name.replace("@.", "@bank.")
    copy.write_text(path.read_text().replace("/opt/fedmkt/bin/fedmkt", "/bin/true"))
    return copy


def _analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here")
    return program


@pytest.mark.parametrize("path", UNITS, ids=unit_ids)
def test_systemd_accepts_the_unit(path: Path, tmp_path: Path) -> None:
    command = [_analyze(), "verify", "--man=no", str(_copied(path, tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "Failed to" in done.stderr and str(tmp_path) not in done.stderr and path.stem not in done.stderr:
        pytest.skip(f"systemd-analyze cannot work here: {done.stderr.strip()[:80]}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", UNITS, ids=unit_ids)
def test_systemd_finds_little_that_is_exposed(path: Path, tmp_path: Path) -> None:
    program = _analyze()
    copy = _copied(path, tmp_path)
    command = [program, "security", "--offline=true", "--threshold=20", "--no-pager", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "Overall exposure level" not in done.stdout:
        pytest.skip("this systemd-analyze has no offline security report")
    assert done.returncode == 0, done.stdout[-200:]  # of 100: an unguarded unit has 96
