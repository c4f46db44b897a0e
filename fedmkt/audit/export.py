"""Records of logs in the forms that other tools read: OCSF, OpenLineage, CSV; pure.

- OCSF 1.9 (schema.ocsf.io): each record an API Activity, with an attestation of the profile `record_integrity`: its
  fingerprint is the SHA-256 of the event without the fingerprint, in canonical JSON (RFC 8785), and it names the
  fingerprint of the event before. `raw_data` is the record itself, which the log's signed head covers.
- OpenLineage 2-0-2: of each run a START and, if it ended, a COMPLETE, ABORT or FAIL, with the columns of the contract
  as inputs, and as outputs what it makes, each made of all columns, masked.
- CSV: a line per record; a cell that a spreadsheet would run has an apostrophe before it.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from fedmkt.audit.log_view import LogView
from fedmkt.audit.records import Json, Record, canonical
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest

PRODUCER = "urn:fedmkt:audit"
_OCSF_VERSION = "1.9.0-dev"
_API_ACTIVITY, _OTHER, _SHA256 = 6003, 99, 3
_FAILED = ("run.aborted", "message.rejected", "policy.refused", "session.refused", "integrity.failed")
_LINEAGE = "https://openlineage.io/spec"
_ENDS = {"run.completed": "COMPLETE", "run.aborted": "ABORT"}
_SIGNS = ("=", "+", "-", "@")
_BREAKS = ("\t", "\r", "\n")


def ocsf(log: LogView) -> Iterator[Mapping[str, Json]]:
    """Yield one OCSF event for each record."""
    before: dict[str, Json] = {}
    for record, leaf in zip(log.records, log.leaves, strict=True):
        attestation: dict[str, Json] = {"authority_uid": log.party, "chain_uid": _origin(record)}
        if before:
            attestation["prev_event"] = before
        event = {**_ocsf_event(record, leaf), "attestation": attestation}
        value = hashlib.sha256(canonical(event)).hexdigest()
        fingerprint: Json = {"algorithm": "SHA-256", "algorithm_id": _SHA256, "value": value}
        before = {"uid": _uid(record), "fingerprint": fingerprint}
        yield {**event, "attestation": {**attestation, "fingerprint": fingerprint}}


def _ocsf_event(record: Record, leaf: bytes) -> dict[str, Json]:
    has_failed = record.type in _FAILED
    return {
        "activity_id": _OTHER,
        "activity_name": record.type,
        "actor": {"app_name": "fedmkt", "user": {"name": record.party}},
        "api": {"operation": record.type, "service": {"name": "fedmkt"}},
        "category_uid": _API_ACTIVITY // 1000,
        "class_uid": _API_ACTIVITY,
        "metadata": {
            "correlation_uid": record.run,
            "log_name": _origin(record),
            "product": {"name": "fedmkt", "vendor_name": "fedmkt"},
            "profiles": ["record_integrity"],
            "sequence": record.seq,
            "uid": _uid(record),
            "version": _OCSF_VERSION,
        },
        "raw_data": leaf.decode(),
        "severity_id": 3 if has_failed else 1,
        "src_endpoint": {"name": str(record.body.get("from", record.party))},
        "dst_endpoint": {"name": str(record.body.get("to", record.party))},
        "status_id": 2 if has_failed else 1,
        "time": _milliseconds(record.time),
        "type_uid": _API_ACTIVITY * 100 + _OTHER,
        "unmapped": record.body,
    }


def open_lineage(log: LogView, contract: Contract) -> Iterator[Mapping[str, Json]]:
    """Yield the START of each run in a log and its end: the last one that the log has, FAIL where none was written."""
    runs: dict[str, list[Record]] = {}
    for record in log.records:
        if record.run:
            runs.setdefault(record.run, []).append(record)
    for run, records in runs.items():
        yield _run_event("START", records[0].time, run, contract)
        ends = [r for r in records if r.type in (*_ENDS, "run.resumed")]
        is_over = run != list(runs)[-1]
        if ends and ends[-1].type in _ENDS:
            yield _run_event(_ENDS[ends[-1].type], ends[-1].time, run, contract)
        elif is_over:
            yield _run_event("FAIL", records[-1].time, run, contract)


def _run_event(kind: str, time: str, run: str, contract: Contract) -> dict[str, Json]:
    namespace = f"fedmkt/{digest(contract).hex()}"
    inputs = [_input(namespace, p.name, p.columns) for p in contract.parties]
    fields: list[Json] = [
        {
            "namespace": namespace,
            "name": p.name,
            "field": column,
            "transformations": [
                {"type": "INDIRECT", "subtype": "AGGREGATION", "description": "joint run", "masking": True}
            ],
        }
        for p in contract.parties
        for column in p.columns
    ]
    made = ("scores", "model") if contract.task == "train" else (contract.task,)
    outputs: list[Json] = [
        {
            "namespace": namespace,
            "name": name,
            "facets": {
                "columnLineage": {
                    **_facet("facets/1-2-0/ColumnLineageDatasetFacet.json#/$defs/ColumnLineageDatasetFacet"),
                    "fields": {name: {"inputFields": fields}},
                }
            },
        }
        for name in made
    ]
    return {
        "eventType": kind,
        "eventTime": time,
        "producer": PRODUCER,
        "schemaURL": f"{_LINEAGE}/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": _uuid(run)},
        "job": {"namespace": namespace, "name": contract.name},
        "inputs": inputs,
        "outputs": outputs if kind != "START" else [],
    }


def _input(namespace: str, party: str, columns: Sequence[str]) -> Json:
    schema: Json = {
        **_facet("facets/1-1-1/SchemaDatasetFacet.json#/$defs/SchemaDatasetFacet"),
        "fields": [{"name": column} for column in columns],
    }
    return {"namespace": namespace, "name": party, "facets": {"schema": schema}}


def _facet(schema: str) -> dict[str, Json]:
    return {"_producer": PRODUCER, "_schemaURL": f"{_LINEAGE}/{schema}"}


def csv_lines(log: LogView) -> Iterator[str]:
    """Yield a line of titles and one for each record; the body is JSON in one cell."""
    yield _csv_line(("party", "seq", "time", "run", "type", "contract", "sha256", "body"))
    for record, leaf in zip(log.records, log.leaves, strict=True):
        body, hashed = canonical(record.body).decode(), hashlib.sha256(leaf).hexdigest()
        yield _csv_line(
            (
                record.party,
                str(record.seq),
                record.time,
                record.run,
                record.type,
                record.contract,
                hashed,
                body,
            )
        )


def _csv_line(cells: Sequence[str]) -> str:
    return ",".join('"' + safe_cell(cell).replace('"', '""') + '"' for cell in cells) + "\n"


def safe_cell(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would take for a formula, whatever stands before its sign.

    Signs in full width count: a spreadsheet in Chinese or Japanese takes them for the others.
    """
    bare = "".join(c for c in unicodedata.normalize("NFKC", text) if c.isprintable()).lstrip()
    return f"'{text}" if bare.startswith(_SIGNS) or text.startswith(_BREAKS) else text


def json_line(event: Mapping[str, Json]) -> str:
    """Write an event as one line of JSON."""
    return json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"


def _origin(record: Record) -> str:
    return f"fedmkt/{record.contract}/{record.party}"


def _uid(record: Record) -> str:
    return f"{_origin(record)}/{record.seq}"


def _milliseconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)


def _uuid(run: str) -> str:
    """Write a run's name as the UUID that OpenLineage asks for (version 8, RFC 9562: of our own making)."""
    digits = list(hashlib.sha256(b"fedmkt run\n" + run.encode()).hexdigest()[:32])
    digits[12], digits[16] = "8", "89ab"[int(digits[16], 16) & 3]
    text = "".join(digits)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
