"""Drafts under the Personal Information Protection Law: facts for an impact assessment, record of handling.

Article 55 says when an assessment is needed, 56 what it contains and that report and record are kept three years.
"""

from fedmkt.evidence import common
from fedmkt.evidence.amounts_zh import title_zh
from fedmkt.evidence.document import Document, Row, Section, Words, fact
from fedmkt.evidence.facts import Facts
from fedmkt.evidence.life import kinds


def pipl_record(facts: Facts, say: Words) -> Document:
    """Fill the record of handling activities (Article 56)."""
    return Document(
        "pipl-56-handling-record",
        say(
            "Record of personal information handling (PIPL Art. 55, 56)",
            "个人信息处理情况记录（个人信息保护法第五十五、五十六条）",
        ),
        say.draft,
        (
            Section(say("Who", "个人信息处理者"), (common.signers(facts, say), common.contacts(facts, say))),
            Section(
                say("What for, by which right", "处理目的与合法性基础"),
                (
                    common.purposes(facts, say),
                    common.bases(facts, say),
                    common.sensitive_bases(facts, say),
                    common.provided_consent(facts, say),
                    common.impact(facts, say),
                    _approvals(facts, say),
                ),
            ),
            Section(
                say("Which information", "涉及的个人信息"),
                (
                    common.people(facts, say),
                    common.numbers(facts, say),
                    common.identifiers(facts, say),
                    common.kinds(facts, say),
                    _sensitive(facts, say),
                    common.filtered(facts, say),
                ),
            ),
            Section(
                say("What was done", "处理方式"),
                (_handling(facts, say), _transport(facts, say), common.learned(facts, say)),
            ),
            Section(
                say("Recipients, places, times", "接收方、所在地、期限"),
                (
                    common.recipients(facts, say),
                    common.places(facts, say),
                    common.abroad(facts, say),
                    common.retention(facts, say),
                ),
            ),
        ),
    )


def pipl_assessment(facts: Facts, say: Words) -> Document:
    """Put together the facts that an assessment of impact needs; its judgements are left open."""
    return Document(
        "pipl-55-impact-assessment",
        say(
            "Impact assessment: facts (PIPL Art. 55, 56)",
            "个人信息保护影响评估：事实部分（个人信息保护法第五十五、五十六条）",
        ),
        say.draft,
        (
            Section(
                say("When one is needed (Art. 55)", "需要评估的情形（第五十五条）"),
                (
                    _sensitive(facts, say),
                    _automated(facts, say),
                    _provided(facts, say),
                    common.abroad(facts, say),
                    _judgement(
                        facts,
                        say(
                            "Other handling with great influence on individuals",
                            "其他对个人权益有重大影响的个人信息处理活动",
                        ),
                        say,
                    ),
                ),
            ),
            Section(
                say(
                    "(1) Purpose and method: lawful, legitimate, necessary",
                    "（一）个人信息的处理目的、处理方式等是否合法、正当、必要",
                ),
                (
                    common.purposes(facts, say),
                    common.bases(facts, say),
                    common.kinds(facts, say),
                    _handling(facts, say),
                    _judgement(facts, say("Why each column is necessary", "各列的必要性"), say),
                ),
            ),
            Section(
                say("(2) Influence on individuals and security risks", "（二）对个人权益的影响及安全风险"),
                (
                    common.people(facts, say),
                    common.numbers(facts, say),
                    common.learned(facts, say),
                    _attacks(facts, say),
                    _judgement(facts, say("Influence on the rights of individuals", "对个人权益的影响"), say),
                ),
            ),
            Section(
                say(
                    "(3) Protective measures: lawful, effective, fit for the risk",
                    "（三）所采取的保护措施是否合法、有效并与风险程度相适应",
                ),
                (
                    common.measures(facts, say),
                    common.filtered(facts, say),
                    common.organisational(facts, say),
                    common.retention(facts, say),
                    _judgement(facts, say("Conclusion on the measures", "对保护措施的结论"), say),
                ),
            ),
        ),
    )


def _judgement(facts: Facts, label: str, say: Words) -> Row:
    why = say("a judgement, left to whoever is responsible", "属于判断事项，由责任人填写")
    return fact(
        label, None, say("responsible person", "责任人"), say.missing(common.officers(facts, say), why)
    )


def _approvals(facts: Facts, say: Words) -> Row:
    named = kinds(say)
    values = [
        say(
            f"{c.party}: {len(c.approved)} of {c.needed} approvals needed",
            f"{c.party}：已批准 {len(c.approved)} 人，需 {c.needed} 人",
        )
        + (f"{say(': ', '：')}{say(', ', '、').join(c.approved)}" if c.approved else "")
        for c in facts.statements.counts
    ]
    values += [
        f"{named[s.kind]}{say(': ', '：')}{s.by}"
        for s in facts.statements.said
        if s.kind not in ("", "approval")
    ]
    missing = say("the contract has no terms of governance", "合同没有治理条款")
    return fact(say("Approvals", "审批"), values, "run/approvals/, run/logs/", missing)


def _sensitive(facts: Facts, say: Words) -> Row:
    values: list[str] = []
    if facts.governance is not None:
        values = [
            f"{d.party}/{c.name}{say(': ', '：')}{c.kind}"
            for d in facts.governance.datasets
            for c in d.columns
            if c.sensitive
        ]
        values = values or [
            say("the contract marks no column as sensitive", "合同未将任何列标记为敏感个人信息")
        ]
    label = say("Sensitive personal information", "处理敏感个人信息")
    return fact(label, values, common.in_terms(say), say.missing(common.owners(facts, say)))


def _automated(facts: Facts, say: Words) -> Row:
    if facts.contract.task == "overlap":
        values = [say("no: the run only counts common customers", "否：本次运行仅统计共有客户")]
    else:
        values = [
            say(
                "scores are made by a program; whether anything is decided by them alone: ",
                "评分由程序生成；是否仅凭评分作出决定：",
            )
            + say.missing(common.owners(facts, say))
        ]
        if facts.governance:
            values.append(say("results serve: ", "结果用途：") + say.phrase(f"use.{facts.governance.use}"))
    return fact(say("Automated decisions", "利用个人信息进行自动化决策"), values, say("contract", "合同"), "")


def _provided(facts: Facts, say: Words) -> Row:
    kinds = list(dict.fromkeys(f.disclosure.kind for f in facts.disclosures.merged()))
    named = kinds if say.language == "en" else map(title_zh, kinds)
    values = [
        say(
            "no row of one party is shown to another in the clear; what was revealed: ",
            "任何一方的数据行均不以明文提供给他方；披露的内容：",
        )
        + (say.join(named) or say("nothing", "无"))
    ]
    if "MatchedOwnRows" in kinds:
        values.append(
            say(
                "which customers are common became known (MatchedOwnRows): this is information about people that "
                "another handler gets",
                "已获知哪些客户为共有客户（MatchedOwnRows）：这属于向其他个人信息处理者提供的个人信息",
            )
        )
    values += [
        say("nothing is made public by a run", "运行不公开任何个人信息"),
        say("whether a party acts on behalf of another (entrusting): ", "是否存在委托处理：")
        + say.missing(common.owners(facts, say)),
    ]
    label = say(
        "Entrusting, providing to others, making public", "委托处理、向其他个人信息处理者提供、公开个人信息"
    )
    return fact(label, values, "disclosures.txt", "")


def _handling(facts: Facts, say: Words) -> Row:
    task = facts.contract.task
    method = say("joint training of a model, then scores", "联合训练模型，再用它评分")
    if task == "overlap":
        method = say("common customers are counted, shown as a band", "统计共有客户数量，以区间显示")
    values = [
        method,
        say("run ", "运行 ") + f"{facts.run}: {common.outcome(facts, say)}",
        say(f"from {facts.began} to {facts.ended}", f"{facts.began} 至 {facts.ended}"),
        say(f"contract sha256 {facts.digest}", f"合同 sha256 {facts.digest}"),
    ]
    return fact(say("Method and time", "处理方式与时间"), values, say("contract, logs", "合同、日志"), "")


def _transport(facts: Facts, say: Words) -> Row:
    found = facts.ledger
    values = [
        say(
            f"{len(found.messages):,} sealed messages, {found.size:,} bytes",
            f"加密消息 {len(found.messages):,} 条，共 {found.size:,} 字节",
        ),
        say(
            f"{found.matched:,} of {found.comparable:,} matched on both sides",
            f"双方日志一致 {found.matched:,} / {found.comparable:,} 条",
        ),
    ]
    return fact(say("What was transmitted", "传输内容"), values, "ledger.csv", "")


def _attacks(facts: Facts, say: Words) -> Row:
    values = [
        say(
            "the attack lab ran against this run: attack-lab.json",
            "已对本次运行进行攻击测试，结果见 attack-lab.json",
        )
    ]
    missing = say(
        "the attack lab was not run: fedmkt attack-lab RUN", "未进行攻击测试：fedmkt attack-lab RUN"
    )
    return fact(
        say("Attacks that were tried", "攻击测试"),
        values if facts.attack_lab is not None else None,
        "attack-lab.json",
        missing,
    )
