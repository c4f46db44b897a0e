"""Rows that several documents share: who, whose data, columns, recipients, places, times, measures.

Law is summarised for engineers; sources of each field stand in the documents that use it.
"""

from fedmkt.evidence.amounts_zh import origin_zh, title_zh, unread_zh
from fedmkt.evidence.document import Row, Words, fact
from fedmkt.evidence.facts import Facts


def outcome(facts: Facts, say: Words) -> str:
    """Say how the run ended."""
    chinese = {"completed": "已完成", "aborted": "已中止", "not completed by everyone": "未由各方全部完成"}
    return say(facts.outcome, chinese[facts.outcome])


def in_terms(say: Words) -> str:
    """Say that a fact stands in the terms of governance."""
    return say("contract, governance", "合同 governance 部分")


def owners(facts: Facts, say: Words) -> str:
    """Name whom to ask for what the contract does not state: the parties' data owners or compliance."""
    names = say.join(p.organisation for p in facts.contract.parties)
    return say(f"the data owner or compliance of {names}", f" {names} 的数据所有者或合规部门")


def officers(facts: Facts, say: Words) -> str:
    """Name whom to ask for what lies with an organisation itself: its person in charge of personal information."""
    names = say.join(s.organisation for s in facts.contract.signers)
    return say(f"the data protection officer of {names}", f" {names} 的个人信息保护负责人")


def signers(facts: Facts, say: Words) -> Row:
    """List the organisations; their addresses are not in a contract."""
    contract = facts.contract
    roles = {p.name: say.phrase(f"role.{p.role}") for p in contract.parties}
    listed = [
        f"{s.organisation} ({s.name}, {roles.get(s.name) or say.phrase('role.coordinator')})"
        for s in contract.signers
    ]
    return fact(say("Organisations", "机构"), listed, say("contract, parties", "合同 parties 部分"), "")


def contacts(facts: Facts, say: Words) -> Row:
    """Say that names and addresses of people in charge are not in a contract."""
    label = say(
        "Contact details, representative, data protection officer or person in charge of personal information",
        "联系方式、境内代表、个人信息保护负责人",
    )
    return fact(label, None, say("the organisations", "各机构"), say.missing(officers(facts, say)))


def purposes(facts: Facts, say: Words) -> Row:
    """Say what the run is for, and for what each dataset may be used."""
    values = [facts.contract.purpose]
    if facts.governance:
        values += [
            f"{d.party}{say(': ', '：')}{say.join(d.purposes)} ({d.name})" for d in facts.governance.datasets
        ]
    where = say("contract, purpose and governance", "合同 purpose 与 governance 部分")
    return fact(say("Purposes", "处理目的"), values, where, "")


def bases(facts: Facts, say: Words) -> Row:
    """Say by which right each dataset is used."""
    values = [
        f"{d.party}{say(': ', '：')}{say.phrase(f'basis.{basis}')} [{basis}]"
        for d in (facts.governance.datasets if facts.governance else ())
        for basis in d.basis
    ]
    missing = say.missing(owners(facts, say))
    return fact(say("Legal bases", "合法性基础"), values, in_terms(say), missing)


def sensitive_bases(facts: Facts, say: Words) -> Row:
    """Say by which right sensitive columns are used."""
    sensitive = [d for d in (facts.governance.datasets if facts.governance else ()) if d.sensitive_basis]
    values = [
        f"{d.party}{say(': ', '：')}{say.phrase(f'basis.{basis}')} [{basis}]"
        for d in sensitive
        for basis in d.sensitive_basis
    ]
    label = say(
        "Right to use sensitive information (PIPL 29, GDPR 9)",
        "处理敏感个人信息的依据（个人信息保护法第二十九条、GDPR 第 9 条）",
    )
    none = say("the contract marks no column as sensitive", "合同未将任何列标记为敏感个人信息")
    marked = any(
        c.sensitive for d in (facts.governance.datasets if facts.governance else ()) for c in d.columns
    )
    if facts.governance is not None and not marked and not values:
        values = [none]
    return fact(label, values, in_terms(say), say.missing(owners(facts, say)))


def provided_consent(facts: Facts, say: Words) -> Row:
    """Say that notice and consent for providing to others and abroad are in no contract."""
    label = say(
        "Notice and separate consent for providing to others and abroad, where consent is the basis (PIPL 23, 39)",
        "以同意为依据的，向其他个人信息处理者提供、向境外提供的告知与单独同意（个人信息保护法第二十三、三十九条）",
    )
    return fact(label, None, say("the organisations", "各机构"), say.missing(owners(facts, say)))


def people(facts: Facts, say: Words) -> Row:
    """Say whose data these are."""
    listed = facts.governance.datasets if facts.governance else ()
    values = [f"{d.party}{say(': ', '：')}{d.people}" for d in listed]
    label = say("Categories of people", "个人信息主体类别")
    return fact(label, values, in_terms(say), say.missing(owners(facts, say)))


def numbers(facts: Facts, say: Words) -> Row:
    """Say how many people are concerned, as far as logs have a bound."""
    values = [
        say(f"{r.party}: up to {rows:,} rows opened", f"{r.party}：打开的数据至多 {rows:,} 行")
        for r in facts.bodies("dataset.opened")
        if isinstance(rows := r.body.get("rows_up_to"), int)
    ]
    values += [
        say(f"common customers: between {low:,} and {high:,}", f"共有客户：{low:,} 至 {high:,} 名")
        for low, high in dict.fromkeys(
            (r.body.get("low"), r.body.get("high"))
            for r in facts.bodies("value.revealed")
            if r.body.get("kind") == "SetSize"
        )
        if isinstance(low, int) and isinstance(high, int)
    ]
    missing = say.missing(owners(facts, say), say("not in this folder", "本文件夹中没有"))
    return fact(
        say("Numbers of people, as bounds", "涉及人数（上限或区间）"), values, say("logs", "日志"), missing
    )


def kinds(facts: Facts, say: Words) -> Row:
    """List the columns with level, category and kind; without terms their names only."""
    values = []
    for party in facts.contract.parties:
        dataset = facts.governance.dataset(party.name) if facts.governance else None
        for column in party.columns:
            grant = dataset.grant(column) if dataset else None
            name = f"{party.name}/{column}{say(': ', '：')}"
            if grant is None:
                values.append(name + say.missing(owners(facts, say)))
                continue
            level = (
                say(f"level {grant.level}", f"{grant.level} 级") if grant.level else say("no level", "未定级")
            )
            marked = say("sensitive", "敏感") if grant.sensitive else ""
            parts = filter(None, (grant.kind, level, grant.category, marked))
            values.append(name + say.join(parts))
    source = say("contract, parties and governance", "合同 parties 与 governance 部分")
    none = say("none: no column takes part", "无：没有列参与")
    return fact(say("Categories of data, by column", "个人信息种类（按列）"), values or none, source, "")


def identifiers(facts: Facts, say: Words) -> Row:
    """Say by which identifiers people are matched."""
    values = [f"{p.name}{say(': ', '：')}{say.join(p.id_kinds)}" for p in facts.contract.parties]
    label = say("Identifiers used for matching", "用于匹配的标识符")
    return fact(label, values, say("contract, parties", "合同 parties 部分"), "")


def recipients(facts: Facts, say: Words) -> Row:
    """Say who gets results, by the terms."""
    listed = facts.governance.recipients if facts.governance else ()
    values = [f"{say.phrase(f'result.{r.result}')} → {r.to}{say(': ', '：')}{r.use}" for r in listed]
    label = say("Recipients of results", "结果接收方")
    return fact(label, values, in_terms(say), say.missing(owners(facts, say)))


def learned(facts: Facts, say: Words) -> Row:
    """Say what each signer learned in this run, by the logs that are here."""
    found = facts.disclosures
    if say.language == "en":
        values = [f"{f.reader}: {f.disclosure.kind}, {f.origin}" for f in found.merged()]
        values += [f"{u.reader}: {u.text} ({u.amount})" for u in found.unread]
    else:
        values = [f"{f.reader}：{title_zh(f.disclosure.kind)}，{origin_zh(f)}" for f in found.merged()]
        values += [f"{u.reader}：{'，'.join(unread_zh(u))}" for u in found.unread]
    none = say("nothing", "无")
    return fact(say("What each party learned", "各方获知的内容"), values or none, "disclosures.txt", "")


def places(facts: Facts, say: Words) -> Row:
    """Say where the signers are."""
    located = facts.governance.locations if facts.governance else {}
    values = [f"{name}{say(': ', '：')}{country}" for name, country in located.items()]
    label = say("Where the signers are", "各方所在国家或地区")
    return fact(label, values, in_terms(say), say.missing(owners(facts, say)))


def abroad(facts: Facts, say: Words) -> Row:
    """Say whether signers are in several countries, and by which assessment."""
    terms, values = facts.governance, list[str]()
    if terms is not None:
        countries = sorted(set(terms.locations.values()))
        if len(countries) == 1:
            values = [say(f"all signers are in {countries[0]}", f"各方均在 {countries[0]}")]
        else:
            listed = say.join(countries)
            values = [say(f"signers are in {listed}", f"各方位于 {listed}"), _transfer(facts, say)]
    label = say("Transfers to other countries", "个人信息出境")
    return fact(label, values, in_terms(say), say.missing(owners(facts, say)))


def _transfer(facts: Facts, say: Words) -> str:
    found = facts.governance.transfer if facts.governance else None
    if found is None:
        return say("assessment of the transfer: ", "出境评估：") + say.missing(officers(facts, say))
    return say(
        f"assessment sha256 {found.sha256}, until {found.expires:%Y-%m-%d}",
        f"评估文件 sha256 {found.sha256}，有效期至 {found.expires:%Y-%m-%d}",
    )


def retention(facts: Facts, say: Words) -> Row:
    """Say how long what is kept."""
    terms, values = facts.governance, list[str]()
    if terms is not None:
        kept = terms.retention
        values = [
            f"{d.party}{say(': ', '：')}{say(f'{d.retention_days} days', f'{d.retention_days} 天')}"
            for d in terms.datasets
        ]
        values += [
            say(
                f"results {kept.result_days} days, records {kept.record_days} days, transport logs {kept.transport_days} days",
                f"结果 {kept.result_days} 天，审计日志记录 {kept.record_days} 天，传输日志 {kept.transport_days} 天",
            )
        ]
    label = say("Time limits for erasure", "保存期限")
    return fact(label, values, in_terms(say), say.missing(owners(facts, say)))


def impact(facts: Facts, say: Words) -> Row:
    """Say which assessment of impact the contract names."""
    found, values = facts.governance.impact if facts.governance else None, list[str]()
    if found is not None:
        listed = say.join(found.parties)
        values = [
            f"sha256 {found.sha256}",
            say(f"for {found.purpose}, of {listed}", f"目的：{found.purpose}；主体：{listed}"),
            say(f"until {found.expires:%Y-%m-%d}", f"有效期至 {found.expires:%Y-%m-%d}"),
        ]
    label = say("Assessment of impact that the contract names", "合同引用的个人信息保护影响评估")
    return fact(label, values, in_terms(say), say.missing(officers(facts, say)))


def filtered(facts: Facts, say: Words) -> Row:
    """Say which filters ran before matching, by the logs: consent, opt-out, minors; no counts of people."""
    names = {
        "consent.filtered": say("rows without consent left out", "已剔除未取得同意的行"),
        "optout.applied": say("opted-out people left out", "已剔除拒绝营销的个人"),
        "minors.filtered": say("minors left out", "已剔除未成年人"),
    }
    values = [
        f"{r.party}{say(': ', '：')}{text}" for event, text in names.items() for r in facts.bodies(event)
    ]
    why = say("no filter stands in the logs that are here", "此处的日志中没有剔除记录")
    missing = say.missing(owners(facts, say), why)
    return fact(
        say("Filters before matching", "匹配前的剔除"),
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
            "各方之间的每条消息均端到端加密并签名（X25519、ChaCha20-Poly1305、Ed25519），协调方无法读取",
        ),
        say(
            "identifiers are compared by private set intersection; columns are used as secret shares or as sums that the contract lists",
            "标识符通过隐私集合求交比对；各列仅以秘密分享或合同列明的汇总形式使用",
        ),
        say(
            f"at least {limits.min_common:,} common customers and {limits.min_support} rows in a level, else the run ends",
            f"共有客户少于 {limits.min_common:,} 名，或者某一取值少于 {limits.min_support} 行时，运行即终止",
        ),
        say(
            "append-only log at every party, its head counter-signed by the others; every message logged before it leaves",
            "各方保存只可追加的日志，日志头由其他方会签；每条消息在发出之前先记入日志",
        ),
    ]
    source = say("contract, limits; this program", "合同 limits 部分；本程序")
    return fact(say("Technical measures", "技术措施"), values, source, "")


def organisational(facts: Facts, say: Words) -> Row:
    """Say that measures of the organisations are nothing that a run knows."""
    label = say(
        "Organisational measures: access, training, incident plan", "组织措施：权限管理、培训、应急预案"
    )
    return fact(label, None, say("the organisations", "各机构"), say.missing(officers(facts, say)))
