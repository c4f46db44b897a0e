"""Drafts under the Personal Information Protection Law: facts for an impact assessment, record of handling.

Article 55 says when an assessment is needed, 56 what it contains and that report and record are kept three years.
"""

from fedmkt.evidence import common
from fedmkt.evidence.document import Document, Row, Section, Words, fact
from fedmkt.evidence.facts import Facts
from fedmkt.evidence.life import kinds


def pipl_record(facts: Facts, say: Words) -> Document:
    """Fill the record of handling activities (Article 56)."""
    return Document(
        "pipl-56-handling-record",
        say(
            "Record of personal information handling (PIPL Art. 55, 56)",
            "个人信息处理活动记录(个人信息保护法第五十五、五十六条)",
        ),
        say.draft,
        (
            Section(say("Who", "处理者"), (common.signers(facts, say), common.contacts(say))),
            Section(
                say("What for, by which right", "目的与合法性"),
                (
                    common.purposes(facts, say),
                    common.bases(facts, say),
                    common.impact(facts, say),
                    _approvals(facts, say),
                ),
            ),
            Section(
                say("Which information", "个人信息"),
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
                say("Recipients, places, times", "接收方、地点、期限"),
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
            "个人信息保护影响评估:事实部分(个人信息保护法第五十五、五十六条)",
        ),
        say.draft,
        (
            Section(
                say("When one is needed (Art. 55)", "需要评估的情形(第五十五条)"),
                (
                    _sensitive(facts, say),
                    _automated(facts, say),
                    _provided(facts, say),
                    common.abroad(facts, say),
                    _judgement(
                        say(
                            "Other handling with great influence on individuals",
                            "其他对个人权益有重大影响的处理活动",
                        ),
                        say,
                    ),
                ),
            ),
            Section(
                say(
                    "(1) Purpose and method: lawful, legitimate, necessary",
                    "(一)处理目的、方式是否合法、正当、必要",
                ),
                (
                    common.purposes(facts, say),
                    common.bases(facts, say),
                    common.kinds(facts, say),
                    _handling(facts, say),
                    _judgement(say("Why each column is necessary", "各列的必要性说明"), say),
                ),
            ),
            Section(
                say("(2) Influence on individuals and security risks", "(二)对个人权益的影响及安全风险"),
                (
                    common.people(facts, say),
                    common.numbers(facts, say),
                    common.learned(facts, say),
                    _attacks(facts, say),
                    _judgement(say("Influence on the rights of individuals", "对个人权益的影响"), say),
                ),
            ),
            Section(
                say(
                    "(3) Protective measures: lawful, effective, fit for the risk",
                    "(三)保护措施是否合法、有效并与风险程度相适应",
                ),
                (
                    common.measures(facts, say),
                    common.filtered(facts, say),
                    common.organisational(say),
                    common.retention(facts, say),
                    _judgement(say("Conclusion on the measures", "保护措施结论"), say),
                ),
            ),
        ),
    )


def _judgement(label: str, say: Words) -> Row:
    missing = say("a judgement, left to whoever is responsible", "属于判断事项,由责任人填写")
    return fact(label, None, say("responsible person", "责任人"), missing)


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
            f"{d.party}/{c.name}: {c.kind}"
            for d in facts.governance.datasets
            for c in d.columns
            if c.sensitive
        ]
        values = values or [say("the contract marks no column as sensitive", "合同未将任何列标记为敏感")]
    return fact(
        say("Sensitive personal information", "敏感个人信息"), values, common.in_terms(say), say.not_stated
    )


def _automated(facts: Facts, say: Words) -> Row:
    if facts.contract.task == "overlap":
        values = [say("no: the run only counts common customers", "否:本次运行仅统计共同客户")]
    else:
        values = [
            say(
                "scores are made by a program; whether anything is decided by them alone: ",
                "评分由程序生成;是否仅据此作出决定:",
            )
            + say.not_stated
        ]
        values += [say("results serve: ", "结果用途:") + facts.governance.use] if facts.governance else []
    return fact(say("Automated decisions", "自动化决策"), values, say("contract", "合同"), "")


def _provided(facts: Facts, say: Words) -> Row:
    kinds = list(dict.fromkeys(f.disclosure.kind for f in facts.disclosures.merged()))
    values = [
        say(
            "no row of one party is shown to another in the clear; what was revealed: ",
            "任何一方的数据行均不以明文提供给他方;披露的内容:",
        )
        + (", ".join(kinds) or say("nothing", "无"))
    ]
    values += (
        [
            say(
                "which customers are common becomes known where the contract lists MatchedOwnRows",
                "合同列有 MatchedOwnRows 时,会获知哪些客户为共同客户",
            )
        ]
        if "MatchedOwnRows" in kinds
        else []
    )
    return fact(
        say("Entrusting, providing to others", "委托处理、向其他处理者提供"), values, "disclosures.txt", ""
    )


def _handling(facts: Facts, say: Words) -> Row:
    task = facts.contract.task
    method = say("joint training of a model, then scores", "联合训练模型并评分")
    if task == "overlap":
        method = say("common customers are counted, shown as a band", "统计共同客户数量并以区间显示")
    values = [
        method,
        say("run ", "运行 ") + f"{facts.run}: {common.outcome(facts, say)}",
        say(f"from {facts.began} to {facts.ended}", f"{facts.began} 至 {facts.ended}"),
        say(f"contract sha256 {facts.digest}", f"合同 sha256 {facts.digest}"),
    ]
    return fact(say("Method and time", "方式与时间"), values, say("contract, logs", "合同、日志"), "")


def _transport(facts: Facts, say: Words) -> Row:
    found = facts.ledger
    values = [
        say(
            f"{len(found.messages):,} sealed messages, {found.size:,} bytes",
            f"密封消息 {len(found.messages):,} 条,共 {found.size:,} 字节",
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
            "the attack lab ran against this run: attack-lab.json", "已对本次运行执行攻击实验:attack-lab.json"
        )
    ]
    missing = say("the attack lab was not run: fedmkt attack-lab RUN", "未执行攻击实验:fedmkt attack-lab RUN")
    return fact(
        say("Attacks that were tried", "攻击实验"),
        values if facts.attack_lab is not None else None,
        "attack-lab.json",
        missing,
    )
