"""A draft of the record of processing activities: GDPR Article 30(1), fields (a) to (g)."""

from fedmkt.evidence import common
from fedmkt.evidence.document import Document, Section, Words
from fedmkt.evidence.facts import Facts


def gdpr_record(facts: Facts, say: Words) -> Document:
    """Fill the fields of Article 30(1)."""
    return Document(
        "gdpr-art-30-record",
        say("Record of processing activities (GDPR Art. 30)", "处理活动记录（GDPR 第 30 条）"),
        say.draft,
        (
            Section(
                say("(a) Controllers and contact details", "(a) 控制者及联系方式"),
                (common.signers(facts, say), common.contacts(facts, say)),
            ),
            Section(
                say("(b) Purposes", "(b) 处理目的"),
                (common.purposes(facts, say), common.bases(facts, say), common.sensitive_bases(facts, say)),
            ),
            Section(
                say("(c) Categories of people and of personal data", "(c) 数据主体与个人数据类别"),
                (
                    common.people(facts, say),
                    common.numbers(facts, say),
                    common.identifiers(facts, say),
                    common.kinds(facts, say),
                ),
            ),
            Section(
                say("(d) Categories of recipients", "(d) 接收者类别"),
                (common.recipients(facts, say), common.learned(facts, say)),
            ),
            Section(
                say(
                    "(e) Transfers to third countries or international organisations",
                    "(e) 向第三国或国际组织传输",
                ),
                (common.places(facts, say), common.abroad(facts, say)),
            ),
            Section(
                say("(f) Time limits for erasure", "(f) 各类数据的删除期限"), (common.retention(facts, say),)
            ),
            Section(
                say("(g) Security measures (Art. 32(1))", "(g) 技术与组织安全措施（第 32 条第 1 款）"),
                (common.measures(facts, say), common.organisational(facts, say)),
            ),
        ),
    )
