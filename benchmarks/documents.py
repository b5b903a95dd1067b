"""docs/performance.md gets its tables from a record: no number in it is typed."""

import re

from benchmarks.process import ROOT
from meta_service.errors import UserError

PAGE = ROOT / "docs" / "performance.md"
FIGURES = ROOT / "docs" / "figures"


def filled(text: str, tables: dict[str, str]) -> str:
    """The text with each table between its marks, `<!-- bench: NAME -->` and `<!-- end -->`."""
    for name, table in tables.items():
        marked = re.compile(rf"(<!-- bench: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if len(marked.findall(text)) != 1:
            raise UserError(f"docs/performance.md: one `<!-- bench: {name} -->` ... `<!-- end -->` is expected")
        text = marked.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)  # type: ignore[misc]
    return text


def write(tables: dict[str, str], pictures: dict[str, bytes]) -> None:
    """Brings the page and its pictures up to date."""
    PAGE.write_text(filled(PAGE.read_text(), tables))
    for name, data in pictures.items():
        (FIGURES / name).write_bytes(data)
