"""The attack lab's report as a table for people: each attack with its figures, its verdict and what that means.

The report is a file that somebody may have changed: what has another form is shown as it is, or left to the file.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from fedmkt.evidence.document import Words
from fedmkt.evidence.facts import Json

_NAMES_ZH = {
    "1": "由梯度的范数和余弦推断标签",
    "2": "以模型补全推断标签",
    "3": "由梯度的符号直接读出标签",
    "4": "由本方各列的梯度还原标签",
    "5": "由评分解方程求出列值",
    "6": "由评分推断对方的列",
    "7": "由节点归属推断标签",
    "8": "人数过少的单元格",
    "9": "传输内容中的标识符哈希",
    "10": "由多次交集规模之差推断成员",
    "12": "非法的曲线点",
    "13": "被篡改或重放的消息",
    "15": "作弊的随机数分发方",
    "17": "数据中夹带的代码",
    "18": "Parquet 结构中的 pickle",
    "19": "超大消息与缓慢的对方",
    "20": "会被电子表格执行的单元格",
    "22": "由最终评分推断成员身份",
}


@dataclass(frozen=True)
class Attack:
    """One line of the table, as text; is_bad : it worked though nothing says so, or the test itself proves nothing."""

    row: str
    name: str
    metric: str
    undefended: str
    here: str
    limit: str
    verdict: str
    note: str
    is_bad: bool


@dataclass(frozen=True)
class Table:
    """All attacks. summary : how many ended how; legend : what each verdict means."""

    attacks: tuple[Attack, ...]
    summary: str
    legend: tuple[tuple[str, str], ...]


def table(report: Mapping[str, Json] | None, say: Words) -> Table:
    """Read a report; no attack of one that is not there or has another form."""
    found = report.get("findings") if report else None
    lines = [line for line in found if isinstance(line, dict)] if isinstance(found, list) else []
    words = _verdicts(say)
    counted = Counter(str(line.get("verdict")) for line in lines)
    parts = [
        say(f"{times} {words[v][0]}", f"{words[v][0]} {times} 项")
        for v in words
        if (times := counted.get(v, 0))
    ]
    return Table(
        tuple(_attack(line, words, say) for line in lines),
        say.join(parts),
        tuple(words[v] for v in words if counted.get(v)),
    )


def _verdicts(say: Words) -> Mapping[str, tuple[str, str]]:
    """Give for each verdict its word and what it means."""
    return {
        "held": (
            say("held", "未得手"),
            say("the attack got no further than its limit here", "攻击在本次运行中未超过限值"),
        ),
        "declared": (
            say("declared", "已约定披露"),
            say("it works by what the contract discloses", "攻击依靠合同约定披露的内容得手"),
        ),
        "assumed": (
            say("assumed", "属于假设"),
            say("it works by someone whom the threat model trusts", "攻击须由威胁模型中受信任的一方实施"),
        ),
        "-": (
            say("not in this run", "不涉及"),
            say("the run has nothing of the kind", "本次运行不含此类内容"),
        ),
        "BROKEN": (
            say("BROKEN", "已攻破"),
            say("it works, and the contract does not say so", "攻击得手，而合同未约定披露"),
        ),
        "no control": (
            say("no control", "对照失效"),
            say(
                "it fails undefended too, so the test shows nothing",
                "无防护时也不得手，因此测试不说明任何问题",
            ),
        ),
    }


def _attack(line: Mapping[str, Json], words: Mapping[str, tuple[str, str]], say: Words) -> Attack:
    limit = line.get("limit")
    if isinstance(limit, dict):
        limit = f"{'≥' if limit.get('is_least') else '≤'} {_shown(limit.get('value'))}"
    row, verdict = _shown(line.get("row")), str(line.get("verdict"))
    name, declared = _shown(line.get("attack")), line.get("declared")
    by = [_shown(kind) for kind in declared] if isinstance(declared, list) else []
    notes = [say("by ", "依据 ") + say.join(by)] if by else []
    notes += [_shown(line[key]) for key in ("assumed", "note") if line.get(key)]
    return Attack(
        row=row,
        name=say(name, _NAMES_ZH.get(row, name)),
        metric=_shown(line.get("metric")),
        undefended=_shown(line.get("undefended")),
        here=_shown(line.get("here")),
        limit=_shown(limit),
        verdict=words.get(verdict, (_shown(verdict), ""))[0],
        note="; ".join(notes),
        is_bad=verdict not in ("held", "declared", "assumed", "-"),
    )


def _shown(value: Json) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    # Signs that turn a text around would let a line say something else than the file does.
    return "".join(sign for sign in str(value) if sign.isprintable())
