"""Write the tables of docs/reference/reasons.md from what the console explains events by,
gateway/admin/console/reasons.toml.

python .ci/reasons_reference.py            # rewrites them
python .ci/reasons_reference.py --check    # exits with 1 where they are out of date
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "gateway" / "admin" / "console" / "reasons.toml"
PAGE = ROOT / "docs" / "reference" / "reasons.md"
PART = re.compile(r"(<!-- reasons: ([a-z_]+) -->\n).*?(<!-- /reasons -->)", re.DOTALL)
DASH = "\u2013"
HEAD = "| Reason | Status | Cause | What to do |\n|---|---|---|---|\n"


def main() -> int:
    """Write the page, or compare it."""
    reasons = tomllib.loads(SOURCE.read_text())
    text = PAGE.read_text()
    if missing := set(reasons) ^ {match[2] for match in PART.finditer(text)}:
        raise SystemExit(f"sections in one of the two only: {missing}")
    rendered = PART.sub(lambda match: match[1] + table(reasons[match[2]]) + match[3], text)
    if rendered == text:
        return 0
    is_check = "--check" in sys.argv[1:]
    print(f"{PAGE.relative_to(ROOT)} is {'out of date' if is_check else 'written'}")
    if not is_check:
        PAGE.write_text(rendered)
    return 1 if is_check else 0


def table(entries: list[dict[str, Any]]) -> str:
    """One row for each entry; each code is an anchor, which `type` of a response leads to."""
    rows = []
    for one in entries:
        codes = ", ".join(f'<a id="{code}"></a>`{code}`' for code in one["codes"])
        rows.append(f"| {codes} | {one['status']} | {one['cause']} | {one.get('remedy', DASH)} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    sys.exit(main())
