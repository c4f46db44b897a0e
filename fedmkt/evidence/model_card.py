"""The model card: what was trained, on what, how well it does, and where it must not be relied on.

Headings follow Mitchell et al., Model Cards for Model Reporting (2019), as far as a run has facts for them.
"""

from fedmkt.contract.agreement import Contract, Limits, PartyTerms
from fedmkt.evidence.common import outcome, owners
from fedmkt.evidence.document import Document, Row, Section, Words, fact
from fedmkt.evidence.facts import Facts
from fedmkt.report.scores import names_of_lowered


def model_card(facts: Facts, say: Words) -> Document:
    """Fill the card of a run's model; of a run that only counts it says so."""
    contract = facts.contract
    return Document(
        "model-card",
        say("Model card", "模型卡"),
        say("Filled by a program from one run.", "由程序根据一次运行自动填写。"),
        (
            Section(say("The model", "模型"), _model(contract, facts, say)),
            Section(say("Data by owner", "各方数据"), _data(facts, say)),
            Section(say("Figures", "指标"), _figures(facts, say)),
            Section(say("Use and limits", "用途与限制"), _limits(facts, say)),
        ),
    )


def _model(contract: Contract, facts: Facts, say: Words) -> tuple[Row, ...]:
    terms, source = contract.model, say("contract, model", "合同 model 部分")
    if contract.task == "overlap":
        none = say("none: this run only counted common customers", "无：本次运行仅统计共有客户数量")
        return (fact(say("Kind", "类型"), none, say("contract, task", "合同 task"), ""),)
    rows = [
        fact(say("Kind", "类型"), say.phrase(f"model.{terms.kind}"), source, ""),
        fact(
            say("Predicted", "预测目标"),
            contract.bank.label,
            say("contract, the bank's label", "合同中银行的标签列"),
            "",
        ),
        fact(say("Family", "活动系列"), contract.family, say("contract, family", "合同 family"), ""),
        fact(say("Held out", "留出比例"), f"{terms.test_fraction:.0%}", source, ""),
        fact(
            say("Released scores", "发布的评分"),
            say(f"rounded to {contract.scores.decimals} decimals", f"保留 {contract.scores.decimals} 位小数"),
            say("contract, scores", "合同 scores"),
            "",
        ),
        fact(say("Run", "运行"), f"{facts.run} ({outcome(facts, say)})", say("logs", "日志"), ""),
    ]
    if terms.kind == "trees":
        rows.append(
            fact(
                say("Shown of splits", "分裂信息的披露"),
                contract.trees.reveal,
                say("contract, trees", "合同 trees"),
                "",
            )
        )
    else:
        penalty = ", ".join(f"{p:g}" for p in terms.penalties) or f"{terms.penalty:g}"
        passes = say(
            f"penalty {penalty}, {terms.iterations} passes", f"惩罚系数 {penalty}，迭代 {terms.iterations} 次"
        )
        rows.append(fact(say("Training", "训练"), passes, source, ""))
    return tuple(rows)


def _data(facts: Facts, say: Words) -> tuple[Row, ...]:
    bands = {r.party: r.body.get("rows_up_to") for r in facts.bodies("dataset.opened")}
    rows = []
    for party in facts.contract.parties:
        size = bands.get(party.name)
        values = [say(f"up to {size:,} rows", f"至多 {size:,} 行")] if isinstance(size, int) else []
        values += [_column(facts, party, column, say) for column in party.columns]
        source = say("contract; log of the party", "合同；该方日志")
        rows.append(
            fact(
                f"{party.organisation} ({party.name}, {say.phrase(f'role.{party.role}')})", values, source, ""
            )
        )
    return tuple(rows)


def _column(facts: Facts, party: PartyTerms, column: str, say: Words) -> str:
    """Name a column with what the contract grants: level, category, kind."""
    dataset = facts.governance.dataset(party.name) if facts.governance else None
    grant = dataset.grant(column) if dataset else None
    role = say(" (label)", "（标签）") if column == party.label else ""
    if grant is None:
        return f"{column}{role}"
    level = say(f"level {grant.level}", f"{grant.level} 级") if grant.level else say("no level", "未定级")
    parts = [level, grant.category or "", grant.kind, say("sensitive", "敏感") if grant.sensitive else ""]
    return f"{column}{role}{say(': ', '：')}{say.join(filter(None, parts))}"


def _figures(facts: Facts, say: Words) -> tuple[Row, ...]:
    held_out, responders = facts.measured_on
    source = say(
        f"measured by the bank on {held_out:,} held-out rows", f"由银行在 {held_out:,} 行留出数据上测得"
    )
    if responders:
        source += say(f", {responders:,} responders", f"，其中 {responders:,} 名响应客户")
    rows = [
        fact(
            say(f.name, _FIGURES_ZH.get(f.name, f.name)),
            [
                *([say("bank alone: ", "仅银行：") + _interval(f.bank, say)] if f.bank else []),
                say("joint: ", "联合：") + _interval(f.joint, say),
            ],
            source,
            "",
        )
        for f in facts.figures
    ]
    return tuple(rows) or (
        fact(
            say("Measures", "评价指标"),
            None,
            say("the bank's folder", "银行的文件夹"),
            say.missing(facts.contract.bank.organisation, say("not in this folder", "本文件夹中没有")),
        ),
    )


_FIGURES_ZH = {
    "log loss": "对数损失",
    "lift of the first decile": "第一十分位提升度",
    "AUC gained": "AUC 增益",
    "explained deviance": "解释偏差",
    "Brier": "Brier 分数",
}


def _interval(figure: str, say: Words) -> str:
    return say(
        figure, figure.replace(" (95 %: ", "（95% 置信区间：").replace(" to ", " 至 ").replace(")", "）")
    )


def _lowered(limits: Limits, say: Words) -> str:
    names = names_of_lowered(limits)
    if not names:
        return say("none", "无")
    return say(
        f"minimum sizes are lowered in this job ({', '.join(names)}): small groups tell more",
        f"本任务下调了最小规模（{'、'.join(names)}）：小群体会透露更多信息",
    )


def _limits(facts: Facts, say: Words) -> tuple[Row, ...]:
    contract, terms = facts.contract, facts.governance
    listed = terms.recipients if terms else ()
    used = [f"{say.phrase(f'result.{r.result}')} → {r.to}{say(': ', '：')}{r.use}" for r in listed]
    missing = say.missing(owners(facts, say))
    where = say("contract, governance", "合同 governance 部分")
    limits = contract.limits
    smallest = say(
        f"lists of {limits.min_list:,}, {limits.min_common:,} common customers, {limits.min_support} rows in a level",
        f"名单至少 {limits.min_list:,} 条，共有客户至少 {limits.min_common:,} 名，每个取值至少 {limits.min_support} 行",
    )
    known = [
        say(
            "Scores are rounded; they say nothing about people outside the matched rows.",
            "评分经过取整；评分不涉及未匹配的个人。",
        ),
        say(
            "Figures are of rows that were kept from training in this run, not of later campaigns.",
            "指标仅针对本次运行中未参与训练的数据，不代表以后的营销活动。",
        ),
    ]
    return (
        fact(say("Purpose", "目的"), contract.purpose, say("contract, purpose", "合同 purpose"), ""),
        fact(
            say("Results serve", "结果用途"),
            say.phrase(f"use.{terms.use}") if terms else None,
            where,
            missing,
        ),
        fact(say("Recipients", "接收方"), used, where, missing),
        fact(say("Smallest groups", "最小分组"), smallest, say("contract, limits", "合同 limits"), ""),
        fact(
            say("Lowered limits", "下调的限值"),
            _lowered(limits, say),
            say("contract, limits", "合同 limits"),
            "",
        ),
        fact(say("Known limits", "已知局限"), known, say("this program", "本程序"), ""),
        fact(
            say("Selection by group", "分组报告选中率"),
            terms.groups if terms else None,
            where,
            missing,
        ),
    )
