"""Rows that several documents share: who, whose data, columns, recipients, places, times, measures.

Law is summarised for engineers; sources of each field stand in the documents that use it.
"""

from collections.abc import Sequence

from fedmkt.evidence.document import Row, Words, fact
from fedmkt.evidence.facts import Facts

CHINA = "CN"


def outcome(facts: Facts, say: Words) -> str:
    """Say how the run ended."""
    chinese = {"completed": "已完成", "aborted": "已中止", "not completed by everyone": "并非各方均已完成"}
    return say(facts.outcome, chinese[facts.outcome])


def in_terms(say: Words) -> str:
    """Say that a fact stands in the terms of governance."""
    return say("contract, governance", "合同 governance 部分")


def signers(facts: Facts, say: Words) -> Row:
    """List the organisations; their addresses are not in a contract."""
    contract = facts.contract
    listed = [f"{p.organisation} ({p.name}, {p.role})" for p in contract.parties]
    listed.append(f"{contract.coordinator.organisation} ({contract.coordinator.name}, coordinator)")
    return fact(say("Organisations", "组织"), listed, say("contract, parties", "合同 parties"), "")


def contacts(say: Words) -> Row:
    """Say that names and addresses of people in charge are not in a contract."""
    label = say(
        "Contact details, representative, data protection officer or person in charge of personal information",
        "联系方式、代表、个人信息保护负责人",
    )
    return fact(label, None, say("contract", "合同"), say.not_stated)


def purposes(facts: Facts, say: Words) -> Row:
    """Say what the run is for, and for what each dataset may be used."""
    values = [facts.contract.purpose]
    if facts.governance:
        values += [f"{d.party}: {', '.join(d.purposes)} ({d.name})" for d in facts.governance.datasets]
    return fact(
        say("Purposes", "处理目的"),
        values,
        say("contract, purpose and governance", "合同 purpose 与 governance"),
        "",
    )


def bases(facts: Facts, say: Words) -> Row:
    """Say by which right each dataset is used."""
    values = []
    for d in facts.governance.datasets if facts.governance else ():
        sensitive = (
            say("; sensitive columns: ", ";敏感列:") + ", ".join(d.sensitive_basis)
            if d.sensitive_basis
            else ""
        )
        values.append(f"{d.party}: {', '.join(d.basis)}{sensitive}")
    return fact(say("Legal bases", "合法性基础"), values, in_terms(say), say.not_stated)


def people(facts: Facts, say: Words) -> Row:
    """Say whose data these are."""
    values = [f"{d.party}: {d.people}" for d in facts.governance.datasets] if facts.governance else []
    return fact(say("Categories of people", "个人类别"), values, in_terms(say), say.not_stated)


def numbers(facts: Facts, say: Words) -> Row:
    """Say how many people are concerned, as far as logs have a bound."""
    values = [
        say(f"{r.party}: up to {rows:,} rows opened", f"{r.party}:打开至多 {rows:,} 行")
        for r in facts.bodies("dataset.opened")
        if isinstance(rows := r.body.get("rows_up_to"), int)
    ]
    values += [
        say(f"common customers: between {low:,} and {high:,}", f"共同客户:{low:,} 至 {high:,} 人")
        for low, high in dict.fromkeys(
            (r.body.get("low"), r.body.get("high"))
            for r in facts.bodies("value.revealed")
            if r.body.get("kind") == "SetSize"
        )
        if isinstance(low, int) and isinstance(high, int)
    ]
    return fact(
        say("Numbers of people, as bounds", "涉及人数(范围)"), values, say("logs", "日志"), say.not_here
    )


def kinds(facts: Facts, say: Words) -> Row:
    """List the columns with level, category and kind; without terms their names only."""
    values = []
    for party in facts.contract.parties:
        dataset = facts.governance.dataset(party.name) if facts.governance else None
        for column in party.columns:
            grant = dataset.grant(column) if dataset else None
            if grant is None:
                values.append(f"{party.name}/{column}: {say('kind ', '类别')}{say.not_stated}")
                continue
            level = (
                say(f"level {grant.level}", f"{grant.level} 级") if grant.level else say("no level", "未定级")
            )
            marked = say("sensitive", "敏感") if grant.sensitive else ""
            parts = filter(None, (grant.kind, level, grant.category, marked))
            values.append(f"{party.name}/{column}: {', '.join(parts)}")
    source = say("contract, parties and governance", "合同 parties 与 governance")
    return fact(
        say("Categories of data, by column", "个人信息种类(按列)"),
        values,
        source,
        say("none: no column takes part", "无:没有列参与"),
    )


def identifiers(facts: Facts, say: Words) -> Row:
    """Say by which identifiers people are matched."""
    values = [f"{p.name}: {', '.join(p.id_kinds)}" for p in facts.contract.parties]
    return fact(
        say("Identifiers used for matching", "用于匹配的标识"),
        values,
        say("contract, parties", "合同 parties"),
        "",
    )


def recipients(facts: Facts, say: Words) -> Row:
    """Say who gets results, by the terms."""
    values = (
        [f"{r.result} → {r.to}: {r.use}" for r in facts.governance.recipients] if facts.governance else []
    )
    return fact(say("Recipients of results", "结果接收方"), values, in_terms(say), say.not_stated)


def learned(facts: Facts, say: Words) -> Row:
    """Say what each signer learned in this run, by the logs that are here."""
    values = [f"{f.reader}: {f.disclosure.kind}, {f.origin}" for f in facts.disclosures.merged()]
    values += [f"{u.reader}: {u.text} ({u.amount})" for u in facts.disclosures.unread]
    return fact(
        say("What each party learned", "各方获知的内容"), values, "disclosures.txt", say("nothing", "无")
    )


def places(facts: Facts, say: Words) -> Row:
    """Say where the signers are."""
    values = (
        [f"{name}: {country}" for name, country in facts.governance.locations.items()]
        if facts.governance
        else []
    )
    return fact(say("Where the signers are", "签署方所在地"), values, in_terms(say), say.not_stated)


def abroad(facts: Facts, say: Words) -> Row:
    """Say whether signers are in several countries, and by which assessment."""
    terms = facts.governance
    values: list[str] = []
    if terms is not None:
        countries = sorted(set(terms.locations.values()))
        if len(countries) == 1:
            values = [say(f"all signers are in {countries[0]}", f"所有签署方均在 {countries[0]}")]
        else:
            values = [say(f"signers are in {', '.join(countries)}", f"签署方位于 {', '.join(countries)}")]
            values.append(_transfer(facts, say))
    return fact(say("Transfers to other countries", "跨境传输"), values, in_terms(say), say.not_stated)


def _transfer(facts: Facts, say: Words) -> str:
    found = facts.governance.transfer if facts.governance else None
    if found is None:
        return say("no assessment of the transfer: ", "跨境评估:") + say.not_stated
    return say(
        f"assessment sha256 {found.sha256}, until {found.expires:%Y-%m-%d}",
        f"评估文件 sha256 {found.sha256},有效期至 {found.expires:%Y-%m-%d}",
    )


def retention(facts: Facts, say: Words) -> Row:
    """Say how long what is kept."""
    terms, values = facts.governance, list[str]()
    if terms is not None:
        kept = terms.retention
        values = [
            f"{d.party}: {say(f'{d.retention_days} days', f'{d.retention_days} 天')}" for d in terms.datasets
        ]
        values.append(
            say(
                f"results {kept.result_days} days, records {kept.record_days} days, transport logs {kept.transport_days} days",
                f"结果 {kept.result_days} 天,记录 {kept.record_days} 天,传输日志 {kept.transport_days} 天",
            )
        )
    return fact(say("Time limits for erasure", "保存期限"), values, in_terms(say), say.not_stated)


def impact(facts: Facts, say: Words) -> Row:
    """Say which assessment of impact the contract names."""
    found = facts.governance.impact if facts.governance else None
    values: Sequence[str] = ()
    if found is not None:
        values = [
            f"sha256 {found.sha256}",
            say(
                f"for {found.purpose}, of {', '.join(found.parties)}",
                f"目的 {found.purpose},主体 {', '.join(found.parties)}",
            ),
            say(f"until {found.expires:%Y-%m-%d}", f"有效期至 {found.expires:%Y-%m-%d}"),
        ]
    return fact(
        say("Assessment of impact that the contract names", "合同引用的影响评估"),
        values,
        in_terms(say),
        say.not_stated,
    )


def filtered(facts: Facts, say: Words) -> Row:
    """Say which filters ran before matching, by the logs: consent, opt-out, minors; no counts of people."""
    names = {
        "consent.filtered": say("rows without consent left out", "剔除无同意的行"),
        "optout.applied": say("opted-out people left out", "剔除已拒绝营销的个人"),
        "minors.filtered": say("minors left out", "剔除未成年人"),
    }
    values = [f"{r.party}: {text}" for event, text in names.items() for r in facts.bodies(event)]
    missing = say("no filter stands in the logs that are here", "现有日志中没有过滤记录")
    return fact(
        say("Filters before matching", "匹配前的过滤"),
        list(dict.fromkeys(values)),
        say("logs", "日志"),
        missing,
    )


def measures(facts: Facts, say: Words) -> Row:
    """Say which technical measures the run had; each is a fact of this program or of the contract."""
    limits = facts.contract.limits
    values = [
        say(
            "every message between parties is encrypted end to end and signed (X25519, ChaCha20-Poly1305, Ed25519); the coordinator cannot read it",
            "各方之间的每条消息均端到端加密并签名(X25519、ChaCha20-Poly1305、Ed25519),协调方无法读取",
        ),
        say(
            "identifiers are compared by private set intersection; columns are used as secret shares or as sums that the contract lists",
            "标识通过隐私集合求交比对;各列以秘密分享或合同列明的汇总形式使用",
        ),
        say(
            f"at least {limits.min_common:,} common customers and {limits.min_support} rows in a level, else the run ends",
            f"共同客户少于 {limits.min_common:,} 名或某取值少于 {limits.min_support} 行则终止运行",
        ),
        say(
            "append-only log at every party, its head counter-signed by the others; every message logged before it leaves",
            "各方保存只增日志,日志头由其他方联署;每条消息发送前先记入日志",
        ),
    ]
    return fact(
        say("Technical measures", "技术措施"),
        values,
        say("contract, limits; this program", "合同 limits;本程序"),
        "",
    )


def organisational(say: Words) -> Row:
    """Say that measures of the organisations are nothing that a run knows."""
    label = say("Organisational measures: access, training, incident plan", "组织措施:权限、培训、应急预案")
    return fact(label, None, say("the organisations", "各组织"), say.not_stated)
