"""Hooks of MkDocs: links that leave docs/, and the pages that lie at the top of the repository."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
AT_THE_TOP = ('CHANGELOG.md', 'CONTRIBUTING.md')  # pages of the site
LINK = re.compile(r'\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the changelog and the guide for contributors, with links as if they lay in docs/."""
    for name in AT_THE_TOP:
        text = LINK.sub(_from_docs, (ROOT / name).read_text())
        files.append(File.generated(config, name.lower(), content=text))
    return files


def on_page_markdown(markdown: str, config: MkDocsConfig, page: Page, **_: Any) -> str:
    """Point links to files of the repository at ``repo_url``, or leave their text where there is none."""

    def replace(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ''
        path = (ROOT / 'docs' / target).resolve()
        if not target.startswith('../'):
            return link[0]
        if target.removeprefix('../') in AT_THE_TOP:
            return f'[{text}]({path.name.lower()}{anchor})'
        if not path.exists():
            raise PluginError(f'{page.file.src_uri} links to {target}, which does not exist')
        if not config.repo_url:
            return text
        return f'[{text}]({config.repo_url.rstrip("/")}/blob/main/{path.relative_to(ROOT)}{anchor})'

    return LINK.sub(replace, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Remove the roles of docstrings, such as ``:class:``, which Markdown does not know."""
    return re.sub(r':(?:class|func|meth|mod|attr):(?=<code>)', '', html)


def _from_docs(link: re.Match[str]) -> str:
    text, target, anchor = link[1], link[2], link[3] or ''
    if target in AT_THE_TOP:
        return f'[{text}]({target.lower()}{anchor})'
    target = target.removeprefix('docs/') if target.startswith('docs/') else f'../{target}'
    return f'[{text}]({target}{anchor})'
