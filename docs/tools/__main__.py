"""Write the pages of the manual that are read from the code: `python -m docs.tools`."""

from __future__ import annotations

from docs.tools.pages import DOCS, generated


def main() -> None:
    for name, text in generated().items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
