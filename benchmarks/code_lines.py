"""Count lines of code by room: without docstrings, comments and blank lines.

``python benchmarks/code_lines.py [FOLDER]``; the folder is the core's package unless another is given.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

CORE = Path(__file__).resolve().parent.parent / "core" / "src" / "atomtrain"
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(source: str) -> int:
    """Lines that hold code. A text that stands alone is documentation, wherever it stands."""
    texts: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            texts.update(range(value.lineno, (value.end_lineno or value.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - texts)


def by_room(folder: Path) -> Counter[str]:
    """Lines of each folder and module directly below ``folder``."""
    found: Counter[str] = Counter()
    for file in folder.rglob("*.py"):
        found[file.relative_to(folder).parts[0]] += code_lines(file.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    rooms = by_room(Path(sys.argv[1]) if len(sys.argv) > 1 else CORE)
    for room, count in rooms.most_common():
        print(f"{count:6} {room}")
    print(f"{rooms.total():6} in all")
