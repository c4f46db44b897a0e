import dataclasses
import json
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.audit.records import EVENTS, MAX_LEAF_BYTES, Record, leaf, read_leaf, timestamp

RECORD = Record(0, "2030-01-01T00:00:00.000000Z", "bank", "r", "run.started", "ab", {"epoch": 1})
BODIES = st.dictionaries(
    st.text("abcxyz_", min_size=1, max_size=6),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=5,
)


@given(BODIES)
def test_a_leaf_is_read_back_as_the_same_record(body):
    record = dataclasses.replace(RECORD, body=body)
    assert read_leaf(leaf(record)) == record


@given(BODIES)
def test_python_and_the_canonical_form_write_a_leaf_alike(body):
    data = leaf(dataclasses.replace(RECORD, body=body))
    assert rfc8785.dumps(json.loads(data)) == data


@pytest.mark.parametrize("body", [{"x": 0.5}, {"x": b"1"}, {"é": 1}, {"x": {1: 2}}, {"x": 2**60}])
def test_a_body_that_another_reader_might_write_differently_is_refused(body):
    with pytest.raises(ValueError):
        leaf(dataclasses.replace(RECORD, body=body))


def test_an_unknown_event_is_refused():
    with pytest.raises(ValueError, match=r"unknown event 'value\.opened'"):
        leaf(dataclasses.replace(RECORD, type="value.opened"))


def test_a_record_over_sixteen_kibibytes_is_refused():
    with pytest.raises(ValueError, match="at most 16384"):
        leaf(dataclasses.replace(RECORD, body={"x": "y" * MAX_LEAF_BYTES}))


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        b"nonsense",
        b"[" * 10_000,
        leaf(RECORD).replace(b'"v":1', b'"v":2'),
        leaf(RECORD).replace(b'"seq":0', b'"seq": 0'),
        leaf(RECORD).replace(b'"seq":0', b'"seq":"0"'),
        leaf(RECORD).replace(b'"seq":0', b'"seq":true'),
        leaf(RECORD).replace(b'"run":"r",', b""),
    ],
)
def test_bytes_that_are_no_canonical_record_are_refused(data):
    with pytest.raises(ValueError):
        read_leaf(data)


def test_times_are_written_in_utc():
    moment = datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(moment) == timestamp(datetime(2030, 1, 1, tzinfo=UTC)) == "2030-01-01T00:00:00.000000Z"


def test_a_record_of_exactly_the_largest_size_is_written_and_read():
    room = MAX_LEAF_BYTES - len(leaf(dataclasses.replace(RECORD, body={"x": ""})))
    largest = dataclasses.replace(RECORD, body={"x": "y" * room})
    assert len(leaf(largest)) == MAX_LEAF_BYTES and read_leaf(leaf(largest)) == largest
    with pytest.raises(ValueError):
        leaf(dataclasses.replace(RECORD, body={"x": "y" * (room + 1)}))


def test_every_event_is_a_thing_and_what_became_of_it():
    assert all(re.fullmatch(r"[a-z]+\.[a-z]+", event) for event in EVENTS)


def test_a_record_is_nested_sixteen_deep_at_most():
    def nested(depth):
        return {"a": 0} if depth == 1 else {"a": nested(depth - 1)}

    assert leaf(dataclasses.replace(RECORD, body=nested(14)))
    with pytest.raises(ValueError, match="at most 16 deep"):
        leaf(dataclasses.replace(RECORD, body=nested(17)))
