"""Make the description of a built package from README.md, with links that work without the files beside it.

Relative links lead to the repository: its address is `Source` in `[project.urls]` of
pyproject.toml. While there is no such line, relative links become plain text, and pictures are left
out with their captions.
"""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE = r"(?!https?://|#|mailto:)([^)\s]+)"
PICTURE = re.compile(rf"!\[([^\]]*)\]\({RELATIVE}\)")
PICTURE_AND_CAPTION = re.compile(PICTURE.pattern + r"(?:\n\n(?:\*[^*]+\*\n\n)?)?")
LINK = re.compile(rf"(?<!!)\[([^\]]*)\]\({RELATIVE}\)")
CODE = re.compile(r"(^```.*?^```$)", flags=re.DOTALL | re.MULTILINE)


def description(readme: str, source: str | None) -> str:
    """The README for a package index; `source` is the address of the repository, if it is known."""
    parts = CODE.split(readme)
    for number in range(0, len(parts), 2):  # the text between blocks of code
        text = parts[number]
        if source:
            text = PICTURE.sub(rf"![\1]({source.rstrip('/')}/raw/HEAD/\2)", text)
            parts[number] = LINK.sub(rf"[\1]({source.rstrip('/')}/blob/HEAD/\2)", text)
        else:
            parts[number] = LINK.sub(r"\1", PICTURE_AND_CAPTION.sub("", text))
    return "".join(parts)


class Description(MetadataHookInterface):
    """The dynamic field `readme`."""

    def update(self, metadata: dict) -> None:
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = description(readme, metadata.get("urls", {}).get("Source"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
