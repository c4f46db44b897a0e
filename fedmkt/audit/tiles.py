"""A log in the layout of C2SP tlog-tiles, so that any static server offers it and any C2SP tool reads it; pure.

`checkpoint` is the signed head; `tile/<L>/<N>` holds 256 hashes of level L, `tile/entries/<N>` 256 records with their
lengths; the last ones of a size are partial, `<N>.p/<W>`. A log that was pruned has all its hashes, and no bundle in
which all records were removed; in one that is half removed those records have length 0.
"""

from collections.abc import Iterator

from fedmkt.audit.log_view import LogView

WIDTH = 256
_LEVEL = 8  # a tile spans a subtree of this height


def tiles(log: LogView) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a log up to its signed head, each with its path; ValueError if there is no head."""
    size = log.signed
    if not size:
        raise ValueError(f"the log of {log.party} has no signed head")
    for level in range(64):
        count = size >> (_LEVEL * level)
        if not count:
            break
        for start, stop, path in _spans(count):
            yield f"tile/{level}/{path}", log.tree.hashes(_LEVEL * level, start, stop)
    for start, stop, path in _spans(size):
        if stop > log.pruned:
            leaves = [log.leaves[i - log.pruned] if i >= log.pruned else b"" for i in range(start, stop)]
            yield f"tile/entries/{path}", b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)
    yield "checkpoint", log.note  # last: what it promises is there


def _spans(count: int) -> Iterator[tuple[int, int, str]]:
    """Yield start and end of each tile of a level with `count` hashes, and its path below the level."""
    for number in range(-(-count // WIDTH)):
        width = min(WIDTH, count - number * WIDTH)
        partial = "" if width == WIDTH else f".p/{width}"
        yield number * WIDTH, number * WIDTH + width, tile_path(number) + partial


def tile_path(number: int) -> str:
    """Write the number of a tile in groups of three digits: 1234067 is x001/x234/067."""
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.append(f"x{number % 1000:03d}")
    return "/".join(reversed(groups))
