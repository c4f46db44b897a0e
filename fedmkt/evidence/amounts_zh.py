"""How much of a disclosure a reader received, in Chinese: the sentences that `Disclosure.describe` says in English.

A test fills every kind with numbers and compares: both languages say the same ones.
"""

from collections.abc import Mapping

from fedmkt.audit.disclosures import DisclosureReport, Fact, Unread
from fedmkt.contract.reading.disclosures_zh import DISCLOSURES_ZH
from fedmkt.privacy.disclosure import Disclosure

_CELLS = "{columns:,} 列中 {bins:,} 个分箱"
AMOUNTS_ZH: Mapping[str, str] = {
    "ListSize": "得知对方名单有 {rows:,} 个标识符",
    "SetSize": "得知共有客户为 {low:,} 至 {high:,} 名",
    "MatchedOwnRows": "得知对方也有接收方自己的哪些行：{low:,} 至 {high:,} 行",
    "CampaignRows": "得知哪些匹配行参加过营销活动：{low:,} 至 {high:,} 行",
    "JoinedRows": "得知银行参与的客户为 {low:,} 至 {high:,} 名",
    "MatrixShape": "得知某矩阵有 {columns:,} 列，各行范数不超过 {row_norm:,}",
    "RangeBit": "得知一个比特：所有评分是否都确定在取值范围之内",
    "Scores": "收到 {low:,} 至 {high:,} 行的评分，保留 {decimals} 位小数",
    "PenaltyCurve": "对 {penalties} 个惩罚系数各收到一个误差，每个由至少 {minimum:,} 行合并得出",
    "ChosenPenalty": "得知选用了哪个惩罚系数",
    "ModelPart": "收到自己 {weights:,} 个权重的明文",
    "CrossCorrelation": "收到 {columns:,} 列的 {pairs:,} 个相关系数，至多基于 {rows:,} 行，保留 {decimals} 位小数",
    "StandardErrors": "收到自己 {weights:,} 个权重的标准误",
    "SupersetList": "收到一份 {rows:,} 行的名单，其中只有一部分是共有的（epsilon {epsilon}）",
    "LastingNames": "收到 {rows:,} 个人的长期代号，接收方无法据此认出他们",
    "BinCounts": f"收到 {_CELLS}的行数，每个分箱至少 {{minimum:,}} 行",
    "BinTotals": f"收到 {_CELLS}的事件合计，每个分箱至少 {{minimum:,}} 行",
    "BinWeights": (
        "得知自己 {columns:,} 列中 {bins:,} 个分箱的证据权重，每个分箱至少 {minimum:,} 行，其中事件与非事件各至少"
        " {events:,} 行"
    ),
    "MinimumBits": "得知关于 {columns:,} 列的 {bits:,} 个比特：每个分箱的事件与非事件是否各不少于 {minimum:,} 行",
    "CellBits": "得知 {bits:,} 个比特：某组的单元格是空的还是有 {minimum:,} 行",
    "HistogramTotals": "每棵树收到 {totals:,} 个群体梯度合计，每个群体至少 {minimum:,} 行",
    "SplitSides": "收到 {splits:,} 个分裂的左右归属，涉及 {low:,} 至 {high:,} 行",
    "ChosenSplits": "得知自己的列上 {splits:,} 个分裂的位置",
    "TreeShape": "得知 {splits:,} 个分裂在树的哪几层、属于哪一方的列",
    "StopBits": "在 {trees:,} 棵树的每一棵之后得知训练是否继续",
    "ValidationLosses": "收到 {losses:,} 个平均损失，每个基于 {low:,} 至 {high:,} 行",
    "Embeddings": "每行收到 {width:,} 个数，共 {openings:,} 次",
    "PartialScore": "收到对方对 {low:,} 至 {high:,} 行评分的贡献",
    "DealerSeeds": "收到第 {epoch} 纪元的发牌种子，仅能由其解封",
    "NoisyTotals": "收到 {totals:,} 个加噪的梯度合计（{event}）",
}
"""By kind."""


def amount_zh(disclosure: Disclosure) -> str:
    """Say in Chinese what the reader received this time."""
    values = {name: value for name, value in disclosure.record().items() if name not in ("kind", "to")}
    if disclosure.kind == "CrossCorrelation":
        own, bank, other = (int(values[n]) for n in ("columns", "bank_columns", "other_columns"))
        values["pairs"] = own * (bank + other) + own * (own - 1) // 2
    return AMOUNTS_ZH[disclosure.kind].format(**values)


def title_zh(kind: str) -> str:
    """Name a kind of disclosure in Chinese, with the name that contract and log have for it."""
    return f"{DISCLOSURES_ZH[kind].title}（{kind}）"


def origin_zh(fact: Fact) -> str:
    """Say in Chinese from whom, and how often if more than once."""
    names = "、".join(fact.sources)
    if len(set(fact.times)) > 1:
        return f"来自 {names}，共 {sum(fact.times)} 次"
    if fact.times[0] == 1:
        return f"来自 {names}"
    return f"来自 {names}，{'各 ' if len(fact.sources) > 1 else ''}{fact.times[0]} 次"


def unread_zh(unread: Unread) -> tuple[str, str]:
    """Say in Chinese what logs that are not here may hold, and where it is written down."""
    names = "、".join(unread.sources)
    kinds = "、".join(map(title_zh, unread.kinds)) or "无"
    return f"{names} 向其披露的内容，至多为：{kinds}", f"见 {names} 的日志，不在此处"


def lines_zh(found: DisclosureReport) -> list[str]:
    """Say a whole report in Chinese, one block per reader, each disclosure with its whole text below."""
    lines: list[str] = []
    for reader in found.readers:
        own = []
        for fact in found.merged():
            if fact.reader == reader:
                own.append(
                    f"  - {amount_zh(fact.disclosure)}（{origin_zh(fact)}；条款 {fact.disclosure.kind}）"
                )
                own.append(f"      {DISCLOSURES_ZH[fact.disclosure.kind].text}")
        own += [f"  - {'，'.join(unread_zh(u))}" for u in found.unread if u.reader == reader]
        lines += ["", f"{reader}：", *(own or ["  未获知任何内容"])]
    return lines[1:]
