"""A second verifier of the logs of a run, from the specifications and not from `fedmkt.audit.verify`: plain and slow.

RFC 6962 2.1 (hashes), RFC 8785 (canonical JSON), C2SP signed-note, tlog-checkpoint and tlog-cosignature, and what
docs/audit.md says about the files. It shares no code with the first one; the two must agree about every folder.
"""

import base64
import hashlib
import json
import re
import struct
import tomllib
from datetime import UTC, datetime, timedelta

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey


class Bad(Exception):
    """Something in the folder is not as it must be."""


def demand(fact, why):
    if not fact:
        raise Bad(why)


def sha256(data):
    return hashlib.sha256(data).digest()


def merkle_tree_hash(hashes):
    """MTH of RFC 6962 2.1, by its definition, over the hashes of leaves."""
    if not hashes:
        return sha256(b"")
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return sha256(b"\x01" + merkle_tree_hash(hashes[:k]) + merkle_tree_hash(hashes[k:]))


def has_large_order(public):
    """Tell whether a point of edwards25519, given by its y, is not one of the 8 of small order: 8 P is not 0."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p
    y = (int.from_bytes(public, "little") & (1 << 255) - 1) % p
    xx = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
    for _ in range(3):  # doubling: x^2 and y suffice
        x2y2 = d * xx * y * y % p
        y, xx = (
            (y * y + xx) * pow(1 - x2y2, -1, p) % p if (1 - x2y2) % p else 0,
            4 * xx * y * y * pow(1 + x2y2, -2, p) % p,
        )
    return (xx, y) != (0, 1)


def verify(files):
    """Return by log (records, removed, signed, root, cosigners), and by run (outcome, messages, lost, disclosures)."""
    try:
        return Verifier(files).verify()
    except Bad:
        raise
    except Exception as error:
        raise Bad(f"malformed: {type(error).__name__}: {error}") from error


class Verifier:
    def __init__(self, files):
        self.files = files
        self.terms, signatures = read_contract(files["contract.toml"].decode())
        self.keys = {s["name"]: s["key"] for s in [*self.terms["parties"], self.terms["coordinator"]]}
        demand(len(self.keys) == len(self.terms["parties"]) + 1, "two signers with one name")
        demand(len(set(self.keys.values())) == len(self.keys), "two signers with one key")
        demand(self.terms["version"] == 1, "another version")
        demand(sorted(signatures) == sorted(self.keys), "not the signatures of the signers")
        self.digest = sha256(b"fedmkt contract v1\n" + rfc8785.dumps(self.terms))
        self.twice = self.terms.get("governance", {}).get("suite") == "standard+ml-dsa-44"
        self.seconds = {}
        for name, text in signatures.items():
            size = 64 + 1312 + 2420 if self.twice else 64
            demand(
                re.fullmatch(f"[0-9a-f]{{{2 * size}}}", text), f"a signature is {size} bytes in hexadecimal"
            )
            first, second, last = text[:128], text[128 : 128 + 2624], text[128 + 2624 :]
            demand(has_large_order(bytes.fromhex(self.keys[name])), f"{name}: a key of small order")
            self.check_signature(name, bytes.fromhex(first), self.digest + bytes.fromhex(second))
            if self.twice:
                self.seconds[name] = bytes.fromhex(second)
                self.check_second(name, bytes.fromhex(last), b"fedmkt second key v1\n" + self.digest)

    def check_signature(self, name, signature, message):
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.keys[name])).verify(signature, message)

    def check_second(self, name, signature, message):
        MLDSA44PublicKey.from_public_bytes(self.seconds[name]).verify(signature, message)

    def verify(self):
        allowed = {
            f"logs/{n}/{f}"
            for n in self.keys
            for f in ("log.jsonl", "checkpoint.txt", "peers.json", "pruned.hashes")
        }
        demand(set(self.files) <= allowed | {"contract.toml"}, "a file too many")
        self.records, self.hashes = {}, {}
        for name in self.keys:
            self.read_log(name)
        self.heads = {}
        for name in self.keys:
            note = self.files.get(f"logs/{name}/checkpoint.txt")
            self.heads[name] = (0, "", {}) if note is None else self.read_note(name, note.decode())
        self.read_all_peers()
        self.check_disclosures()
        logs = {
            name: (len(self.hashes[name]), self.records[name][0]["seq"], size, root, tuple(lines))
            for name, (size, root, lines) in self.heads.items()
        }
        return logs, self.check_runs()

    def read_log(self, name):
        data = self.files[f"logs/{name}/log.jsonl"].decode()
        demand(data and data[-1] == "\n", f"{name}: the last line has no end")
        pruned = self.files.get(f"logs/{name}/pruned.hashes", b"")
        demand(len(pruned) % 32 == 0, f"{name}: a hash is cut")
        self.hashes[name] = [pruned[32 * i : 32 * i + 32] for i in range(len(pruned) // 32)]
        self.records[name] = []
        epoch_of = {}
        for line in data[:-1].split("\n"):
            record = json.loads(line, parse_float=refuse)
            where = f"{name}: record {len(self.hashes[name])}"
            demand(rfc8785.dumps(record) == line.encode(), f"{where}: not canonical")
            demand(len(line.encode()) <= 16384, f"{where}: too long")
            demand(
                sorted(record) == ["body", "contract", "party", "run", "seq", "time", "type", "v"],
                f"{where}: fields",
            )
            demand(record["v"] == 1 and type(record["v"]) is int, f"{where}: version")
            demand(record["seq"] == len(self.hashes[name]), f"{where}: number")
            demand(
                record["party"] == name and record["contract"] == self.digest.hex(),
                f"{where}: of another log",
            )
            demand(all(isinstance(record[key], str) for key in ("time", "run", "type")), f"{where}: types")
            demand(isinstance(record["body"], dict), f"{where}: body")
            if record["type"] == "epoch.started":
                demand(record["body"]["epoch"] > epoch_of.get(record["run"], 0), f"{where}: epoch")
                epoch_of[record["run"]] = record["body"]["epoch"]
            record["epoch"] = epoch_of.get(record["run"], 0)
            self.records[name].append(record)
            self.hashes[name].append(sha256(b"\x00" + line.encode()))
        self.check_removal(name)

    def check_removal(self, name):
        first = self.records[name][0]["seq"]
        if first == 0:
            return
        demand("governance" in self.terms, f"{name}: records are missing, and nothing is agreed on that")
        told = [r for r in self.records[name] if r["type"] == "retention.expired" and r["run"] == ""]
        demand(
            told and told[-1]["body"]["below"] == first, f"{name}: records are missing, and no record says so"
        )

    def removed_at(self, name):
        """When this log's first records were removed; None if they were not."""
        if self.records[name][0]["seq"] == 0:
            return None
        return max(
            r["time"] for r in self.records[name] if r["type"] == "retention.expired" and r["run"] == ""
        )

    def read_note(self, name, note):
        """Read a head of the log of `name`; returns size, root and the lines of cosigners by name."""
        demand(note[-1:] == "\n", "the note has no end")
        lines = note[:-1].split("\n")
        demand(len(lines) >= 5 and lines[3] == "", "three lines, an empty one, signatures")
        demand(lines[0] == f"fedmkt/{self.digest.hex()}/{name}", "another origin")
        demand(re.fullmatch("[1-9][0-9]*", lines[1]), "the size")
        size = int(lines[1])
        demand(size <= len(self.hashes[name]), f"{name}: fewer records than signed")
        root = merkle_tree_hash(self.hashes[name][:size])
        demand(lines[2] == base64.b64encode(root).decode(), f"{name}: another root")
        body = "".join(line + "\n" for line in lines[:3])
        below = lines[4:]
        seconds = below[1::2] if self.twice else []
        firsts = below[::2] if self.twice else below
        by = [line.split(" ")[1] for line in firsts]
        demand(
            by[0] == name and by[1:] == sorted(set(by[1:])) and name not in by[1:], "the order of signatures"
        )
        demand(set(by) <= set(self.keys), "a signature of a stranger")
        times = [
            self.check_line(who, line, body, b"\x01" if who == name else b"\x04")
            for who, line in zip(by, firsts, strict=True)
        ]
        demand(not self.twice or len(seconds) == len(firsts), "both signatures of each are needed")
        for who, line, time in zip(by, seconds, times, strict=False):
            demand(self.check_line(who, line, body, b"\x06") == time, "two times of one cosignature")
        if self.twice:
            firsts = [a + "\n" + b for a, b in zip(firsts, seconds, strict=True)]
        return size, lines[2], {who: line for who, line in zip(by[1:], firsts[1:], strict=True)}

    def check_line(self, who, line, body, kind):
        blob = base64.b64decode(line.split(" ")[2])
        demand(
            line == "\u2014 " + who + " " + base64.b64encode(blob).decode(), "the form of a signature line"
        )
        key = self.seconds[who] if kind == b"\x06" else bytes.fromhex(self.keys[who])
        demand(blob[:4] == sha256(who.encode() + b"\n" + kind + key)[:4], "a key id")
        if kind == b"\x01":
            self.check_signature(who, blob[4:], body.encode())
            return 0
        time = int.from_bytes(blob[4:12], "big")
        if kind == b"\x04":
            self.check_signature(who, blob[12:], f"cosignature/v1\ntime {time}\n{body}".encode())
        else:
            origin, size, root = body.split("\n")[:3]
            message = struct.pack(">12sB", b"subtree/v1\n\0", len(who.encode())) + who.encode()
            message += struct.pack(">QB", time, len(origin.encode())) + origin.encode()
            message += struct.pack(">QQ", 0, int(size)) + base64.b64decode(root)
            self.check_second(who, blob[12:], message)
        return time

    def read_all_peers(self):
        self.peers = {}
        for name in self.keys:
            data = self.files.get(f"logs/{name}/peers.json", b"{}\n")
            entries = json.loads(data)
            demand(rfc8785.dumps(entries) + b"\n" == data, f"{name}: peers.json is not canonical")
            self.peers[name] = {}
            for other, entry in entries.items():
                demand(sorted(entry) == ["cosignature", "note"], "the fields of peers.json")
                each = 2 if self.twice else 1
                demand(
                    entry["note"].count("\n") == 4 + each and entry["cosignature"].count("\n") == each,
                    "the signatures of one signer each",
                )
                size, _, lines = self.read_note(other, entry["note"] + entry["cosignature"])
                demand(list(lines) == [name], f"{name}: not its own cosignature of {other}")
                demand(size <= self.heads[other][0], f"{name} cosigned more of {other} than it signed")
                self.peers[name][other] = (size, entry["cosignature"].rstrip("\n"), entry["note"])
        for name, (size, _, lines) in self.heads.items():
            note = self.files.get(f"logs/{name}/checkpoint.txt", b"").decode().split("\n")
            for cosigner, line in lines.items():
                kept = self.peers[cosigner].get(name)
                demand(kept is not None and kept[0] == size, f"{cosigner} does not know the head of {name}")
                demand(kept[1] == line, f"{cosigner} cosigned the head of {name} otherwise")
                end = 6 if self.twice else 5
                demand(kept[2] == "\n".join(note[:end]) + "\n", f"{cosigner} keeps another head of {name}")

    def check_disclosures(self):
        for name, records in self.records.items():
            for r in records:
                if r["type"] == "value.revealed":
                    demand(
                        r["body"]["kind"] in self.terms["disclosures"],
                        f"{name}: revealed what is not allowed",
                    )
                    demand(r["body"]["to"] in [*self.keys, "all"], f"{name}: revealed to a stranger")

    def check_runs(self):
        everything = [r for name in sorted(self.records) for r in self.records[name]]
        order = []
        for r in reversed(everything):
            if r["run"] and r["run"] not in order:
                order.insert(0, r["run"])
        return {run: self.check_run(run, run == order[-1]) for run in order}

    def check_run(self, run, is_last):
        mine = {name: [r for r in records if r["run"] == run] for name, records in self.records.items()}
        here = [name for name in mine if mine[name] or self.removed_at(name) is None]
        for name in set(mine) - set(here):
            removed = datetime.fromisoformat(self.removed_at(name))
            days = timedelta(days=self.terms["governance"]["retention"]["record_days"])
            for r in (r for records in mine.values() for r in records):
                demand(
                    datetime.fromisoformat(r["time"]) <= removed - days,
                    f"{name}: run {run} was removed too early",
                )
        last_words = {}
        for name in here:
            ends = [r for r in mine[name] if r["type"] in ("epoch.started", "run.completed", "run.aborted")]
            last_words[name] = (ends[-1]["epoch"], ends[-1]["type"]) if ends else None
        last_epoch = max((word[0] for word in last_words.values() if word), default=0)
        if all(word == (last_epoch, "run.completed") for word in last_words.values()):
            outcome = "completed"
            self.check_closed(run, is_last, here)
        else:
            outcome = (
                "aborted"
                if (last_epoch, "run.aborted") in last_words.values()
                else "not completed by everyone"
            )
        messages, lost = self.check_messages(mine, here, last_epoch if outcome == "completed" else None)
        return outcome, messages, lost, sum(r["type"] == "value.revealed" for rs in mine.values() for r in rs)

    def check_closed(self, run, is_last, here):
        for name in self.keys if is_last else here:
            of_runs = [
                r
                for r in self.records[name]
                if (r["run"] != "" if is_last else r["run"] == run and r["type"] == "run.completed")
            ]
            if is_last and name not in here:
                continue
            for other in self.keys:
                if other != name:
                    kept = self.peers[other].get(name)
                    demand(
                        kept and kept[0] > of_runs[-1]["seq"],
                        f"{name}: {other} did not cosign run {run} to its end",
                    )
                    if is_last:
                        demand(
                            self.heads[name][2].get(other) == kept[1], f"{name}: the cosignature of {other}"
                        )

    def check_messages(self, mine, here, completed_epoch):
        sent, settled, received = set(), set(), set()
        for name, records in mine.items():
            for r in records:
                if r["type"] == "message.sent":
                    sent.add((r["epoch"], name, r["body"]["to"], r["body"]["sha256"]))
                elif r["type"] == "message.received":
                    received.add((r["epoch"], r["body"]["from"], name, r["body"]["sha256"]))
                elif r["type"] in ("checkpoint.saved", "run.completed"):
                    settled |= {m for m in sent if m[:2] == (r["epoch"], name)}
        away = set(mine) - set(here)
        for m in received - sent:
            demand(m[1] in away, f"{m[2]} received {m[3]} that {m[1]} did not send")
        lost = {m for m in sent - received if m[2] not in away}
        for m in lost:
            demand(
                m not in settled and m[0] != completed_epoch, f"{m[1]} sent {m[3]} that {m[2]} did not get"
            )
        return len(sent), len(lost)


def refuse(text):
    raise Bad(f"{text} is a fraction")


def read_contract(text):
    """Read a contract line by line; returns its terms as JSON values, and the signatures."""
    demand(text.endswith("\n"), "the last line has no end")
    root, paths, counts = {}, [()], {}
    table, keys = root, [""]
    lines = text[:-1].split("\n")
    for number, line in enumerate(lines):
        header = re.fullmatch(r"(\[\[?)([A-Za-z0-9_.-]+)(\]\]?)", line)
        if line == "":
            demand(number + 1 < len(lines) and lines[number + 1].startswith("["), "an empty line")
        elif header:
            demand(lines[number - 1] == "" and len(header[1]) == len(header[3]), "a title")
            names, path, table = header[2].split("."), [], root
            for name in names[:-1]:
                path += [(name, counts.get((*path, name), 0))]
                table = table[name][-1] if isinstance(table[name], list) else table[name]
            if header[1] == "[[":
                counts[(*path, names[-1])] = counts.get((*path, names[-1]), -1) + 1
                table.setdefault(names[-1], []).append({})
                table = table[names[-1]][-1]
            else:
                demand(names[-1] not in table, "a table twice")
                table[names[-1]] = table = {}
            paths.append((*path, (names[-1], counts.get((*path, names[-1]), 0))))
            keys = [""]
        else:
            key, _, written = line.partition(" = ")
            demand(re.fullmatch("[A-Za-z0-9_-]+", key) and key > keys[-1], "keys in order")
            value = tomllib.loads(f"x = {written}")["x"]
            demand(written == written_form(value), f"{key}: written in another way")
            table[key] = json_form(value)
            keys.append(key)
    demand(paths == sorted(paths), "tables in order")
    return root, root.pop("signatures")


def written_form(value):
    if isinstance(value, datetime):
        return json_form(value)
    return json.dumps(value, ensure_ascii=False)


def json_form(value):
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, list):
        return [json_form(item) for item in value]
    return value
