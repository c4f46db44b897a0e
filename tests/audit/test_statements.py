import json
from collections.abc import Callable

import pytest

from fedmkt.audit import statements
from fedmkt.audit.statements import PAYLOAD_TYPE, Statement
from fedmkt.crypto import dsse
from fedmkt.crypto.dsse import Public
from fedmkt.crypto.sign import Identity

ANN = Identity(b"\x01" * 32)
KEYS = {"ann": Public(ANN.public)}
SAID = Statement("approval", {"contract": "ab" * 32}, {"by": "ann", "role": "compliance", "time": 3})


def test_a_statement_comes_back_with_who_signed_it() -> None:
    assert statements.read(statements.sign(SAID, ANN), KEYS) == (SAID, ("ann",))


def test_it_has_the_fields_of_in_toto() -> None:
    assert json.loads(bytes(SAID)) == {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://fedmkt.example/predicates/approval/v1",
        "predicate": {"by": "ann", "role": "compliance", "time": 3},
        "subject": [{"name": "contract", "digest": {"sha256": "ab" * 32}}],
    }


def _without(key: str) -> Callable[[dict[str, object]], object]:
    return lambda value: {k: v for k, v in value.items() if k != key}


@pytest.mark.parametrize(
    "change",
    [
        _without("subject"),
        lambda v: [v],
        lambda v: v | {"more": 1},
        lambda v: v | {"_type": "https://in-toto.io/Statement/v0.1"},
        lambda v: v | {"predicateType": "https://fedmkt.example/predicates/praise/v1"},
        lambda v: v | {"predicateType": "https://elsewhere.example/approval/v1"},
        lambda v: v | {"predicateType": 3},
        lambda v: v | {"predicate": []},
        lambda v: v | {"subject": [{"name": "contract"}]},
        lambda v: v | {"subject": v["subject"] * 2},
        lambda v: v | {"predicate": {"share": 0.5}},
    ],
)
def test_what_is_no_statement_is_refused_though_signed(change: Callable[[object], object]) -> None:
    text = json.dumps(change(json.loads(bytes(SAID))), sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(ValueError):
        statements.read(dsse.sign(PAYLOAD_TYPE, text, ANN), KEYS)
    assert bytes(SAID) == json.dumps(json.loads(bytes(SAID)), sort_keys=True, separators=(",", ":")).encode()


def test_only_the_canonical_bytes_are_taken() -> None:
    with pytest.raises(ValueError, match="canonical"):
        statements.read(dsse.sign(PAYLOAD_TYPE, bytes(SAID) + b" ", ANN), KEYS)
