"""A draft of a self-check: what JR/T 0196-2020 (7.5, 7.6) and others ask of joint computing, and where evidence lies.

The list is that of needs of a bank's examiner. Where this pack holds evidence it says so with what it found, else
that there is none: a file that is there is no proof that a rule is met. The texts of JR/T 0196 are quoted by number.
"""

from collections.abc import Iterable, Mapping

from fedmkt.evidence.common import officers, owners
from fedmkt.evidence.document import Document, Row, Section, Words, fact
from fedmkt.evidence.facts import Facts


def self_check(facts: Facts, say: Words) -> Document:
    """Fill the list from the logs, the contract and what the pack holds."""
    return Document(
        "jrt-0196-self-check",
        say("Self-check list (JR/T 0196-2020 and others)", "自查清单（JR/T 0196—2020 等）"),
        say.draft,
        (
            Section("JR/T 0196 7.5", tuple(_transport(facts, say))),
            Section("JR/T 0196 7.6", tuple(_audit(facts, say))),
            Section(say("Other duties", "其他要求"), tuple(_duties(facts, say))),
        ),
    )


def _events(facts: Facts, say: Words, *names: str) -> list[str]:
    """Say how often events stand in the logs; nothing for those that do not."""
    return [
        say(f"{name}: {times} records", f"{name}：{times} 条记录")
        for name in names
        if (times := facts.events.get(name, 0))
    ]


def _none(facts: Facts, say: Words) -> str:
    return say.missing(officers(facts, say), say("no evidence in this pack", "本证据包中没有证据"))


def _transport(facts: Facts, say: Words) -> Iterable[Row]:
    none = _none(facts, say)
    signers = [f"{s.name}: {s.key[:16]}…" for s in facts.contract.signers]
    keys = [
        say("every message is signed with a key of the contract: ", "每条消息均以合同列明的密钥签名：")
        + ", ".join(signers)
    ]
    yield fact(
        say("7.5 mutual authentication before connecting", "7.5 连接前的双向身份认证"),
        [*keys, *_events(facts, say, "session.opened")],
        say("run/contract.toml, logs", "run/contract.toml、日志"),
        none,
    )
    found = facts.ledger
    share = say(
        f"{found.matched} of {found.comparable} messages alike in both logs",
        f"双方日志一致 {found.matched} / {found.comparable} 条",
    )
    single = say("one log: what arrived stands in the others'", "仅一份日志：到达情况见其他方日志")
    yield fact(
        say("7.5 integrity and signature of traffic", "7.5 传输数据的完整性校验与签名"),
        share if len(found.logs) > 1 else single,
        "ledger.json",
        none,
    )
    suite = facts.governance.suite if facts.governance else "standard"
    yield fact(
        say(
            "7.5 algorithms of the transport, national ones where asked",
            "7.5 传输所用密码算法（如要求国密算法）",
        ),
        [
            say.phrase(f"suite.{suite}")
            + say(
                "; X25519, ChaCha20-Poly1305, SHA-256; TLS 1.3",
                "；X25519、ChaCha20-Poly1305、SHA-256；TLS 1.3",
            ),
            say("SM2, SM3 and SM4 are not used", "未使用 SM2、SM3、SM4"),
        ],
        say("contract, governance; this program", "合同 governance 部分；本程序"),
        none,
    )
    refused = say("no message was refused", "没有消息被拒收")
    yield fact(
        say("7.5 tampering is found, and asked for again", "7.5 发现篡改并重新请求传输"),
        _events(facts, say, "message.rejected", "message.retransmitted") or refused,
        say("logs", "日志"),
        none,
    )
    yield fact(
        say("7.5 delay and interruption, with recovery", "7.5 传输延迟、中断的处理与恢复"),
        _events(facts, say, "checkpoint.saved", "run.resumed", "epoch.started"),
        say("logs", "日志"),
        none,
    )


def _audit(facts: Facts, say: Words) -> Iterable[Row]:
    none = _none(facts, say)
    names = ", ".join(facts.logs.records)
    yield fact(
        say("7.6 a: logs kept by every party", "7.6 a：各方保存操作日志"),
        [say(f"logs here: {names}", f"此处的日志：{names}"), *_missing_logs(facts, say)],
        "run/",
        none,
    )
    acted = [
        say(f"{party}: {count} acts, in acts.jsonl there", f"{party}：{count} 项操作，见该方的 acts.jsonl")
        for party, count in _acts(facts)
    ]
    yield fact(
        say("7.6 a: who acted (user, action, time, result)", "7.6 a：操作人、操作、时间、结果"),
        acted,
        say("logs, policy.loaded: number and last hash", "日志 policy.loaded：数量与末条哈希"),
        say.missing(
            officers(facts, say),
            say("the logs that are here name organisations, no users", "此处的日志仅记录机构，未记录用户"),
        ),
    )
    yield fact(
        say("7.6 b: evidence of results and of the computation", "7.6 b：计算结果与过程存证"),
        _events(facts, say, "value.revealed", "model.exported", "scores.released", "step.completed"),
        "ledger.json, disclosures.json, run/",
        none,
    )
    yield fact(
        say("7.6 c: a party that breaks the agreement can be found", "7.6 c：可查明并追溯违反约定的一方"),
        [
            say(
                f"log of {h.party}: {h.size} records, counter-signed by {', '.join(h.cosigners) or 'nobody'}",
                f"{h.party} 的日志：{h.size} 条记录，会签方 {'、'.join(h.cosigners) or '无'}",
            )
            for h in facts.heads
        ],
        say("run/ (checkpoints), proofs/", "run/（检查点）、proofs/"),
        none,
    )


def _acts(facts: Facts) -> Iterable[tuple[str, int]]:
    """Say how many acts of people each log knew of when it was begun."""
    for record in facts.bodies("policy.loaded"):
        acts = record.body.get("acts")
        if isinstance(acts, Mapping) and isinstance(count := acts.get("count"), int):
            yield record.party, count


def _missing_logs(facts: Facts, say: Words) -> list[str]:
    names = ", ".join(facts.missing_logs)
    return [say(f"with their owners: {names}", f"由其所有方保存：{names}")] if names else []


def _duties(facts: Facts, say: Words) -> Iterable[Row]:
    none, terms = _none(facts, say), facts.governance
    signed = [
        say(
            f"signed by all: {', '.join(facts.signed.signatures)}",
            f"各方均已签署：{'、'.join(facts.signed.signatures)}",
        )
    ]
    yield fact(
        say(
            "Purpose, method and scope agreed with the receiver, records 3 years (Network Data Security Regulation 12)",
            "与接收方约定处理目的、方式、范围，处理情况记录保存至少三年（网络数据安全管理条例第十二条）",
        ),
        signed
        + (
            [
                say(
                    f"records kept {terms.retention.record_days} days",
                    f"记录保存 {terms.retention.record_days} 天",
                )
            ]
            if terms
            else []
        ),
        "run/contract.toml",
        none,
    )
    yield fact(
        say("Joint arrangement (PIPL 20, GDPR 26)", "共同处理约定（个人信息保护法第二十条、GDPR 第 26 条）"),
        signed,
        "run/contract.toml",
        none,
    )
    impact = terms.impact if terms else None
    yield fact(
        say("Assessment of impact (PIPL 55, 56)", "影响评估（个人信息保护法第五十五、五十六条）"),
        [f"sha256 {impact.sha256}"] if impact else None,
        say("contract, governance", "合同 governance 部分"),
        say.missing(owners(facts, say)),
    )
    yield fact(
        say("Network logs for six months (Cybersecurity Law)", "网络日志留存不少于六个月（网络安全法）"),
        say(f"{terms.retention.transport_days} days agreed", f"约定 {terms.retention.transport_days} 天")
        if terms
        else None,
        say("contract, governance", "合同 governance 部分"),
        say.missing(owners(facts, say)),
    )
    yield fact(
        say("Regular audit of compliance (PIPL 54)", "定期进行合规审计（个人信息保护法第五十四条）"),
        say("this pack, for one run", "本证据包（针对一次运行）"),
        "manifest.json",
        none,
    )
    yield fact(
        say("Record of processing (GDPR 30)", "处理活动记录（GDPR 第 30 条）"),
        say("a draft", "草稿"),
        "drafts/gdpr-art-30-record.md",
        none,
    )
    yield fact(
        say(
            "Opt-out from marketing by automated decisions, explanation (PIPL 24)",
            "自动化决策营销的拒绝方式与说明（个人信息保护法第二十四条）",
        ),
        _events(facts, say, "optout.applied", "decision.explained"),
        say("logs", "日志"),
        none,
    )
    yield fact(
        say("Withdrawal and deletion (PIPL 15, 47)", "撤回同意与删除（个人信息保护法第十五、四十七条）"),
        _events(facts, say, "consent.withdrawn", "erasure.executed", "retention.expired"),
        say("logs", "日志"),
        none,
    )
    assessed = [
        f"{r.type}: {r.party}" for r in (*facts.bodies("assessment.attached"), *facts.bodies("pia.attached"))
    ]
    yield fact(
        say(
            "Security assessment before joint processing (bank measure 24)",
            "共同处理前的安全评估（《银行保险机构数据安全管理办法》，金规〔2024〕24号）",
        ),
        assessed,
        say("logs", "日志"),
        none,
    )
