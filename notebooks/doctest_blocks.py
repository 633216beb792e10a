"""Examples in docstrings are pages' code blocks: Markdown takes `>>>` for quotations in quotations.

Markdown has no block for them and doctest would read the fence of a code block as output, so that
docstrings hold neither; the fence is put around them when pages are made.
"""

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor
from mkdocs.config.defaults import MkDocsConfig


class Fence(Preprocessor):
    """Puts a fence around every run of lines that begins with `>>>`, up to an empty line."""

    def run(self, lines: list[str]) -> list[str]:
        """The lines, with fences; none within code blocks that are there."""
        fenced: list[str] = []
        inside = elsewhere = False
        for line in lines:
            elsewhere ^= line.startswith("```")
            if inside and not line.strip():
                fenced.append("```")
                inside = False
            elif not inside and not elsewhere and line.startswith(">>> "):
                fenced += ["", "```pycon"]
                inside = True
            fenced.append(line)
        return [*fenced, "```"] if inside else fenced


class DoctestBlocks(Extension):
    """The Markdown extension of `Fence`."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Before fences are read, which have priority 25."""
        md.preprocessors.register(Fence(md), "doctest_blocks", 26)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Pages and docstrings are read with the extension."""
    config.markdown_extensions.append(DoctestBlocks())
    return config
