"""Pages of the documentation that are made from what is installed, not written.

``pages`` gives them all, as Markdown; ``mkdocs`` is the hook that puts them into the site. Nothing
here but ``mkdocs`` knows of the site's generator.
"""

from __future__ import annotations

from _pages.hooks import hook_page
from _pages.options import options_page
from _pages.plugins import architecture_pages, command_page, component_page


def pages() -> dict[str, str]:
    """The Markdown of every generated page by its path in the site."""
    return {
        "reference/options.md": options_page(),
        "reference/commands.md": command_page(),
        "reference/hooks.md": hook_page(),
        "reference/components.md": component_page(),
        **architecture_pages(),
    }
