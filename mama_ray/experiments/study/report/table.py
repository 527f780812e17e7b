"""A table of texts, as the page of a study and its Markdown both show it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of texts; the first `num_names` columns are names and lie to the left, as do all of one in words."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    num_names: int = 1
    is_words: bool = False
    is_folded: bool = False


def table_markdown(table: Table) -> str:
    """Return a table with its title and note; what Markdown or HTML would read in a cell is escaped."""
    marks = [":--" if table.is_words or n < table.num_names else "--:" for n in range(len(table.head))]
    lines = [table.head, *table.rows]
    texts = ["| " + " | ".join(map(_escape, cells)) + " |" for cells in lines]
    body = "\n".join([texts[0], "| " + " | ".join(marks) + " |", *texts[1:]])
    return f"### {_escape(table.title)}\n\n{body}" + (f"\n\n{table.note}" if table.note else "")


def _escape(text: str) -> str:
    flat = " ".join(text.split())
    for character in "\\|<>*_`[]":
        flat = flat.replace(character, "\\" + character)
    return flat
