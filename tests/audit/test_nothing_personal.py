"""No record holds a value of a person or a hash of one: nothing that a key would have to make unreadable later."""

import base64
import hashlib
import json
import re

import pytest

from fedmkt.simulation.demo import demo

HASHES = ("md5", "sha1", "sha224", "sha256", "sha512", "sha3_256", "blake2b", "blake2s")
FORMS = ("{}", "+{}", "0{}", "{}\n", "phone:{}", "email:{}")
DIGESTS = {"code", "policy", "sha256", "request", "ledger", "id", "salt"}
"""Of a sealed message, an answered request, a ledger's head, an epoch's keys, or no digest; nothing else looks so."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return demo(
        tmp_path_factory.mktemp("people") / "run", seed=3, bank_rows=900, partner_rows=1000, common=500
    ).folder


@pytest.fixture(scope="module")
def logs(folder):
    """Every line of every file of the logs, sealed messages' witnesses too."""
    files = [path for path in folder.glob("logs/*/*") if path.is_file()]
    assert len(files) >= 9
    return "\n".join(path.read_text() for path in files)


@pytest.fixture(scope="module")
def people(folder):
    found = set()
    for table in folder.glob("world/*.csv"):
        titles, *rows = (line.split(",") for line in table.read_text().splitlines())
        places = [i for i, title in enumerate(titles) if title in ("phone", "email")]
        found |= {row[i] for row in rows for i in places if row[i]}
    assert len(found) > 1500
    return found


def test_no_id_stands_in_a_log_nor_a_hash_of_one(logs, people):
    words = set(re.findall(r"[0-9A-Za-z+/=@._-]+", logs))
    digests = {word[:20] for word in words}
    for person in people:
        assert person not in words
        for form in FORMS:
            for name in HASHES:
                found = hashlib.new(name, form.format(person).encode()).digest()
                assert found.hex()[:20] not in digests
                assert base64.b64encode(found).decode()[:20] not in digests


def test_what_looks_like_a_hash_is_a_digest_of_a_message_or_of_a_ledger(folder):
    for path in folder.glob("logs/*/log.jsonl"):
        for line in path.read_text().splitlines():
            for key, value in leaves_of(json.loads(line)["body"]):
                if isinstance(value, str) and re.search(r"[0-9a-f]{16}|[A-Za-z0-9+/]{22}", value):
                    assert key in DIGESTS, (key, value)


def test_no_record_holds_as_many_values_as_there_are_people(folder):
    for path in folder.glob("logs/*/log.jsonl"):
        for line in path.read_text().splitlines():
            assert len(list(leaves_of(json.loads(line)["body"]))) < 40


def leaves_of(value, key=""):
    """Yield the plain values in a body, each with the name it has."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves_of(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from leaves_of(item, key)
    else:
        yield key, value
