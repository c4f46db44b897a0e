import csv
import hashlib
import json

import pytest
import rfc8785

from fedmkt.audit.export import csv_lines, json_line, ocsf, open_lineage, safe_cell
from fedmkt.audit.log_view import read_view
from fedmkt.audit.tiles import tile_path, tiles
from fedmkt.crypto.tree import leaf_hash


@pytest.fixture
def bank(write, events):
    def read(tail=None, runs=("run1",)):
        files = write(events, *[events] * (len(runs) - 1), tail={"bank": tail or []}, runs=runs)
        return read_view({n: files[f"logs/bank/{n}"] for n in ("log.jsonl", "checkpoint.txt")}, "bank")

    return read


def test_an_ocsf_event_has_what_its_class_asks_for_and_chains_to_the_one_before(bank):
    log = bank()
    events = [json.loads(json_line(event)) for event in ocsf(log)]
    assert [e["metadata"]["sequence"] for e in events] == list(range(5))
    before = None
    for event, leaf in zip(events, log.leaves, strict=True):
        needed = {"activity_id", "actor", "api", "category_uid", "class_uid", "metadata", "severity_id"}
        assert needed | {"src_endpoint", "time", "type_uid"} <= set(event)
        assert (event["class_uid"], event["type_uid"]) == (6003, 600399)
        assert event["raw_data"].encode() == leaf
        fingerprint = event["attestation"].pop("fingerprint")
        assert fingerprint["value"] == hashlib.sha256(rfc8785.dumps(event)).hexdigest()
        assert event["attestation"].get("prev_event", {}).get("fingerprint") == before
        before = fingerprint
    assert events[2]["dst_endpoint"] == {"name": "shop"}


@pytest.mark.parametrize(
    ("last", "kinds"),
    [(None, ["START", "COMPLETE"]), (("run.aborted", {}), ["START", "ABORT"])],
)
def test_a_run_is_a_start_and_an_end_with_the_columns_that_went_in(bank, signed, last, kinds):
    log = bank(tail=[last] if last else [])
    events = [json.loads(json_line(event)) for event in open_lineage(log, signed.contract)]
    assert [event["eventType"] for event in events] == kinds
    start, end = events
    assert start["run"] == end["run"] and len(start["run"]["runId"]) == 36
    assert end["schemaURL"].endswith("/2-0-2/OpenLineage.json#/$defs/RunEvent")
    fields = {d["name"]: [f["name"] for f in d["facets"]["schema"]["fields"]] for d in start["inputs"]}
    assert fields == {"bank": ["age", "y"], "shop": ["top"]}
    lineage = end["outputs"][0]["facets"]["columnLineage"]["fields"]["scores"]["inputFields"]
    assert {(f["name"], f["field"]) for f in lineage} == {("bank", "age"), ("bank", "y"), ("shop", "top")}
    assert all(f["transformations"][0]["masking"] for f in lineage)


def test_a_run_that_another_followed_without_its_end_has_failed(bank, signed, events):
    events["bank"].pop()
    log = bank(runs=("run1", "run2"))
    kinds = [event["eventType"] for event in open_lineage(log, signed.contract)]
    assert kinds == ["START", "FAIL", "START"]


def test_no_cell_of_a_csv_is_a_formula(bank, events):
    attacks = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\uff1d1", "\u00a0=1", '"=1"', "a=1"]
    events["bank"] += [("policy.refused", {"rule": text}) for text in attacks]
    rows = list(csv.reader("".join(csv_lines(bank())).splitlines()))
    assert len(rows) == 1 + 5 + len(attacks) and {len(row) for row in rows} == {8}
    assert json.loads(rows[-1][7]) == {"rule": "a=1"}
    assert not any(cell.strip().startswith(tuple("=+-@\uff1d")) for row in rows for cell in row)
    assert [safe_cell(text)[0] == "'" for text in attacks] == [True] * 9 + [False] * 2


def test_the_number_of_a_tile_is_written_as_the_format_says():
    assert [tile_path(n) for n in (0, 999, 1000, 1234067)] == ["000", "999", "x001/000", "x001/x234/067"]


@pytest.mark.parametrize("size", [1, 5, 255, 256, 257, 600])
def test_tiles_have_the_hashes_and_records_of_the_log(bank, events, size):
    events["bank"] = [*events["bank"][:4], *[("step.completed", {"n": i}) for i in range(size)]][:size]
    log = bank()
    files = dict(tiles(log))
    assert files.pop("checkpoint") == log.note
    full, rest = divmod(size, 256)
    partial = [f"{full:03d}.p/{rest}"] if rest else []
    names = [f"{i:03d}" for i in range(full)] + partial
    assert {n.removeprefix("tile/0/") for n in files if n.startswith("tile/0/")} == set(names)
    leaves = []
    for name in names:
        bundle, hashes = files.pop(f"tile/entries/{name}"), files.pop(f"tile/0/{name}")
        while bundle:
            length = int.from_bytes(bundle[:2], "big")
            leaves.append(bundle[2 : 2 + length])
            bundle = bundle[2 + length :]
            assert hashes[:32] == leaf_hash(leaves[-1])
            hashes = hashes[32:]
        assert hashes == b""
    assert leaves == list(log.leaves)
    # Level 1: one hash for each full tile below, the root over its 256 records.
    above = files.pop(f"tile/1/000.p/{full}", b"")
    assert len(above) == 32 * full and files == {}
    assert full == 0 or above[:32] == log.tree.root(256)


def test_bundles_of_removed_records_are_left_out_and_all_hashes_are_there(write_governed):
    files = write_governed()
    prefix = "logs/bank/"
    log = read_view({n.removeprefix(prefix): d for n, d in files.items() if n.startswith(prefix)}, prefix)
    made = dict(tiles(log))
    assert len(made["tile/0/000.p/10"]) == 320
    assert made["tile/entries/000.p/10"].startswith(bytes(10))
