"""Contracts and heads that are signed twice, with Ed25519 and ML-DSA-44: a signature without the other is none."""

import base64

import pytest

from fedmkt.audit import checkpoint
from fedmkt.audit.own_log import verify_own
from fedmkt.audit.proof import prove
from fedmkt.audit.verify import VerifyError, verify_files
from fedmkt.audit.verify_proof import ProofError, verify_proof
from fedmkt.contract.files import from_toml, to_toml
from fedmkt.contract.signatures import SignedContract, check_signatures, log_keys, second_keys
from fedmkt.crypto.second import SecondKey
from fedmkt.errors import AuditError, PolicyRefused
from fedmkt.party.audit_log import WITNESS
from fedmkt.report.audit_tools import read_views
from tests.audit import second_verifier
from tests.audit.conftest import IDENTITIES, NAMES, RUN, make_contract, open_logs, write_run
from tests.contract.agreed import governance

COUNTRIES = dict.fromkeys(NAMES, "CN")
TERMS = governance(locations=COUNTRIES, suite="standard+ml-dsa-44")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("twice")
    write_run(path, RUN, terms=TERMS)
    return path


@pytest.fixture
def files(folder):
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name != WITNESS]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def test_what_is_signed_is_the_structure_of_the_specification():
    """Vector: the example of c2sp.org/tlog-cosignature, as other implementations encode it."""
    root = base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
    text = checkpoint.body("example.com/behind-the-sofa", 20852163, root)
    assert checkpoint.cosigned_message(text, 1679315147, "example.com/behind-the-sofa").hex() == (
        "737562747265652f76310a00"
        "1b6578616d706c652e636f6d2f626568696e642d7468652d736f6661"
        "00000000641850cb"
        "1b6578616d706c652e636f6d2f626568696e642d7468652d736f6661"
        "0000000000000000"
        "00000000013e2dc3"
        "0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62"
    )


def test_both_verifiers_and_an_own_log_accept_what_is_signed_twice(files, folder):
    report = verify_files(files)
    logs, runs = second_verifier.verify(files)
    assert report.outcome == "completed" and runs["run1"][0] == "completed"
    assert {log.party: log.cosigners for log in report.logs} == {n: of[4] for n, of in logs.items()}
    own = {name.rpartition("/")[2]: data for name, data in files.items() if "/bank/" in name}
    assert verify_own({**own, "contract.toml": files["contract.toml"]}).outcome == "completed"
    for name in NAMES:
        note = checkpoint.parse_note(files[f"logs/{name}/checkpoint.txt"])
        assert [len(line.value) for line in note.lines] == [64, 2428, 72, 2428, 72, 2428]


def test_no_line_can_be_left_out_repeated_or_put_elsewhere(files):
    """Downgrade: the head without one of its six signatures, or any two lines the other way round."""
    for place, end in (("logs/bank/checkpoint.txt", b"\n"), ("logs/shop/peers.json", rb"\n")):
        lines = files[place].split(end)
        signatures = [i for i, line in enumerate(lines) if len(line) > 100]
        changed = [lines[:i] + lines[i + 1 :] for i in signatures]
        changed += [lines[: i + 1] + lines[i:] for i in signatures]
        changed += [[*lines[:i], lines[i + 1], lines[i], *lines[i + 2 :]] for i in signatures[:-1]]
        assert len(changed) > 8
        for other in changed:
            damaged = {**files, place: end.join(other)}
            with pytest.raises(VerifyError, match=place.split("/")[1]):
                verify_files(damaged)
            with pytest.raises(second_verifier.Bad):
                second_verifier.verify(damaged)


def test_a_head_without_any_second_signature_is_refused(files):
    place = "logs/bank/checkpoint.txt"
    note = checkpoint.parse_note(files[place])
    single = checkpoint.Note(note.text, note.lines[::2])
    for verifier, error in ((verify_files, VerifyError), (second_verifier.verify, second_verifier.Bad)):
        with pytest.raises(error):
            verifier({**files, place: bytes(single)})
    own = {name.rpartition("/")[2]: data for name, data in files.items() if "/bank/" in name}
    with pytest.raises(AuditError, match="two are needed"):
        verify_own({**own, "contract.toml": files["contract.toml"], "checkpoint.txt": bytes(single)})


def test_a_changed_byte_of_a_second_signature_is_found(files):
    place = "logs/bank/checkpoint.txt"
    note = checkpoint.parse_note(files[place])
    for at in (1, 3, 5):
        for byte in (0, 7, 8, 2427):  # in the time and in the signature
            line = note.lines[at]
            value = line.value[:byte] + bytes([line.value[byte] ^ 1]) + line.value[byte + 1 :]
            lines = (
                *note.lines[:at],
                checkpoint.SignatureLine(line.name, line.key_id, value),
                *note.lines[at + 1 :],
            )
            damaged = {**files, place: bytes(checkpoint.Note(note.text, lines))}
            with pytest.raises(VerifyError):
                verify_files(damaged)
            with pytest.raises(second_verifier.Bad):
                second_verifier.verify(damaged)


def test_a_proof_names_the_cosigners_and_misses_none_of_their_signatures(files, folder):
    log = read_views(folder).log("bank")
    proof = prove(log.leaf(1), 1, log.tree, log.note)
    report = verify_proof(files["contract.toml"], bytes(proof))
    assert report.cosigners == ("coordinator", "shop")
    lines = bytes(proof).splitlines(keepends=True)
    for i in range(len(lines) - 6, len(lines)):
        with pytest.raises(ProofError):
            verify_proof(files["contract.toml"], b"".join(lines[:i] + lines[i + 1 :]))


def test_a_contract_that_asks_for_both_is_not_signed_with_one_and_the_reverse():
    once, twice = make_contract(governance(locations=COUNTRIES)), make_contract(TERMS)
    check_signatures(twice)
    assert second_keys(once) == {} and set(second_keys(twice)) == set(NAMES)
    assert log_keys(twice)["bank"] == IDENTITIES["bank"].public + SecondKey(IDENTITIES["bank"]).public
    assert from_toml(to_toml(twice), "contract.toml") == twice
    cut = {name: text[:128] for name, text in twice.signatures.items()}
    # The key of another, with a signature that is right for it: the identity key signed for the first one.
    other = SecondKey(IDENTITIES["shop"]).public.hex()
    moved = {
        **twice.signatures,
        "bank": twice.signatures["bank"][:128] + other + twice.signatures["shop"][2752:],
    }
    for terms, signatures in ((twice, cut), (once, twice.signatures), (twice, moved)):
        with pytest.raises(PolicyRefused, match="does not verify"):
            check_signatures(SignedContract(contract=terms.contract, signatures=signatures))


def test_a_pin_may_have_the_identity_key_or_both(files):
    keys = log_keys(make_contract(TERMS))
    verify_files(files, {name: key[:32].hex() for name, key in keys.items()})
    verify_files(files, {name: key.hex() for name, key in keys.items()})
    with pytest.raises(VerifyError, match="pinned"):
        verify_files(files, {name: key[:-1].hex() + "00" for name, key in keys.items()})


def test_a_log_refuses_a_peer_who_signs_its_head_once(tmp_path):
    signed = make_contract(TERMS)
    logs = open_logs(tmp_path, signed, lambda: signed.contract.created)
    for log in logs.values():
        log.append("run.started", {"epoch": 1})
    keys = {name: identity.public for name, identity in IDENTITIES.items()}
    head = logs["bank"].head()
    first, last = head.rindex(b"\n", 0, -1), len(head)
    with pytest.raises(AuditError, match="two are needed"):
        logs["shop"].cosign({"bank": (head[: first + 1], ())}, keys)
    line = logs["shop"].cosign({"bank": (head[:last], ())}, keys)["bank"]
    both = {"bank": keys["bank"], "shop": keys["shop"]}
    with pytest.raises(AuditError, match="two are needed"):
        logs["bank"].add_cosignatures({"shop": line.splitlines(keepends=True)[0]}, both)
    assert logs["bank"].add_cosignatures({"shop": line}, both) == 1
