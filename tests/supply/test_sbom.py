import json
import re
from collections.abc import Sequence
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from fedmkt.errors import ConfigError
from fedmkt.sbom import (
    INSTALLED,
    Component,
    bill,
    encode,
    installed,
    licence,
    own_requirements,
    record_digest,
)

ROOT = Component("fedmkt", "1.0", "Apache-2.0", ("numpy", "torch"))
LISTED = (
    Component("torch", "2.13.0+cpu", "Apache-2.0 AND MIT", ("numpy",), "a" * 64),
    Component("numpy", "2.4.6", "BSD License"),
)
DIGESTS = {"torch": ("2.13.0+cpu", ["c" * 64, "b" * 64]), "numpy": ("2.4.5", ["d" * 64])}

REF = re.compile(r"pkg:pypi/[a-z0-9]+(-[a-z0-9]+)*@[A-Za-z0-9._%-]+")
COMPONENT = {"type", "bom-ref", "name", "version", "purl", "licenses", "hashes", "properties"}


def check(document: dict[str, Any]) -> None:
    """Hold a bill against the parts of the CycloneDX 1.6 schema that it uses; AssertionError if it breaks one.

    The schema allows no other keys at these places, says which are required and which values they take.
    """
    assert set(document) == {
        "bomFormat", "specVersion", "serialNumber", "version", "metadata", "components", "dependencies",
    }  # fmt: skip
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document["serialNumber"])
    assert set(document["metadata"]) <= {"timestamp", "component"}
    listed = [document["metadata"]["component"], *document["components"]]
    for one in listed:
        assert {"type", "bom-ref", "name", "version", "purl"} <= set(one) <= COMPONENT
        assert one["type"] in ("application", "library")
        assert one["bom-ref"] == one["purl"] and REF.fullmatch(one["purl"])
        for choice in one.get("licenses", ()):
            assert list(choice) == ["expression"] or (
                list(choice) == ["license"] and list(choice["license"]) in (["id"], ["name"])
            )
        for digest in one.get("hashes", ()):
            assert digest["alg"] == "SHA-256" and re.fullmatch("[0-9a-f]{64}", digest["content"])
        for pair in one.get("properties", ()):
            assert set(pair) == {"name", "value"}
    refs = [one["bom-ref"] for one in listed]
    assert len(set(refs)) == len(refs)
    assert sorted(entry["ref"] for entry in document["dependencies"]) == sorted(refs)
    for entry in document["dependencies"]:
        assert set(entry) == {"ref", "dependsOn"}
        assert set(entry["dependsOn"]) <= set(refs)
        assert len(set(entry["dependsOn"])) == len(entry["dependsOn"])


def reached(document: dict[str, Any]) -> set[str]:
    """Follow the graph from the root."""
    graph = {entry["ref"]: entry["dependsOn"] for entry in document["dependencies"]}
    seen: set[str] = set()
    waiting = [document["metadata"]["component"]["bom-ref"]]
    while waiting:
        ref = waiting.pop()
        if ref not in seen:
            seen.add(ref)
            waiting += graph[ref]
    return seen


def test_a_bill_says_what_a_component_is_and_what_it_needs() -> None:
    document: dict[str, Any] = bill(ROOT, LISTED, DIGESTS, "2026-11-22T00:00:00Z")
    check(document)
    assert document["metadata"]["timestamp"] == "2026-11-22T00:00:00Z"
    numpy, torch = document["components"]
    assert torch == {
        "type": "library",
        "bom-ref": "pkg:pypi/torch@2.13.0%2Bcpu",
        "name": "torch",
        "version": "2.13.0+cpu",
        "purl": "pkg:pypi/torch@2.13.0%2Bcpu",
        "licenses": [{"expression": "Apache-2.0 AND MIT"}],
        "hashes": [{"alg": "SHA-256", "content": "b" * 64}, {"alg": "SHA-256", "content": "c" * 64}],
        "properties": [{"name": INSTALLED, "value": "a" * 64}],
    }
    assert numpy["licenses"] == [{"license": {"name": "BSD License"}}]
    assert document["dependencies"] == [
        {"ref": "pkg:pypi/fedmkt@1.0", "dependsOn": ["pkg:pypi/numpy@2.4.6", "pkg:pypi/torch@2.13.0%2Bcpu"]},
        {"ref": "pkg:pypi/numpy@2.4.6", "dependsOn": []},
        {"ref": "pkg:pypi/torch@2.13.0%2Bcpu", "dependsOn": ["pkg:pypi/numpy@2.4.6"]},
    ]


def test_a_bill_gives_no_digest_of_another_version() -> None:
    document: dict[str, Any] = bill(ROOT, LISTED, DIGESTS)
    assert "hashes" not in document["components"][0]


def test_equal_components_give_equal_bytes_in_any_order() -> None:
    one, other = bill(ROOT, LISTED, DIGESTS), bill(ROOT, LISTED[::-1], DIGESTS)
    assert encode(one) == encode(other)
    assert "timestamp" not in one["metadata"]  # type: ignore[operator]
    changed = bill(ROOT, [LISTED[0], Component("numpy", "2.4.7")], DIGESTS)
    assert changed["serialNumber"] != one["serialNumber"]


@pytest.mark.parametrize(
    ("components", "complaint"),
    [
        (LISTED[:1], "requires numpy, which is not listed"),
        ((*LISTED, LISTED[0]), "listed twice"),
        ((*LISTED, ROOT), "listed twice"),
    ],
)
def test_a_bill_with_a_hole_is_refused(components: Sequence[Component], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        bill(ROOT, components)


def test_the_bill_of_what_is_installed_is_whole() -> None:
    root, components = installed()
    document: dict[str, Any] = json.loads(encode(bill(root, components)))
    check(document)
    refs = {one["bom-ref"] for one in document["components"]} | {root.purl}
    assert reached(document) == refs
    names = {one["name"] for one in document["components"]}
    assert {"flwr", "ray", "torch", "cryptography", "certifi", "pycparser"} <= names  # near and far
    assert "pytest" not in names  # tools of a developer are not run on
    assert all(component.licence and component.files_sha256 for component in components)
    assert encode(bill(*installed())) == encode(document)


def test_what_the_bill_starts_from_is_what_the_project_asks_for() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    asked = {one.name for one in map(Requirement, own_requirements()) if one.marker is None}
    assert {"numpy", "flwr", "torch", "packaging"} <= asked
    assert all(f'"{name}' in text for name in asked)


def test_a_requirement_that_is_not_installed_is_named() -> None:
    with pytest.raises(ConfigError, match="no-such-distribution is not installed"):
        installed(["No.Such_Distribution>=1"])


def test_what_another_system_or_an_unwanted_extra_needs_is_left_out() -> None:
    assert "colorama" not in {one.name for one in installed(["click"])[1]}  # on Windows only
    assert "ray" not in {one.name for one in installed(["flwr"])[1]}
    assert "ray" in {one.name for one in installed(["flwr[simulation]", "flwr"])[1]}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([("License-Expression", "MIT-CMU"), ("License", "other")], "MIT-CMU"),
        ([("License", "Apache 2.0")], "Apache-2.0"),
        ([("License", "UNKNOWN"), ("Classifier", "License :: OSI Approved :: MIT License")], "MIT"),
        ([("License", "BSD"), ("Classifier", "License :: OSI Approved :: BSD License")], "BSD License"),
        (
            [("Classifier", "License :: OSI Approved :: BSD License"), ("Classifier", "License :: Public")],
            "BSD License, Public",
        ),
        ([("License", "Odd Licence 7")], "Odd Licence 7"),
        ([("License", "Copyright\nmany lines")], ""),
        ([("Classifier", "Typing :: Typed")], ""),
    ],
)
def test_a_licence_is_named_as_exactly_as_the_metadata_is(fields: list[tuple[str, str]], said: str) -> None:
    message = Message()
    for name, value in fields:
        message[name] = value
    assert licence(message) == said


def test_the_digest_of_installed_files_does_not_depend_on_the_machine() -> None:
    lines = ["a/b.py,sha256=x,1", "a-1.dist-info/METADATA,sha256=y,2"]
    own = ["a-1.dist-info/RECORD,,", "a-1.dist-info/INSTALLER,sha256=z,4", "../../../bin/a,sha256=w,9"]
    digest = record_digest("\n".join(lines))
    assert record_digest("\n".join([*own, *lines[::-1]])) == digest
    assert record_digest("a/b.py,sha256=v,1\n" + lines[1]) != digest
    assert record_digest("\n".join(lines), "a/") != digest
    assert record_digest("\n".join(own)) == ""
