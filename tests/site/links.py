"""Checks the links of the site: each leads to a file of it, and to an id on that page. Links to other hosts are not tried.

The same for the pages as GitHub shows them, whose anchors are made from headings.
"""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

# The site has more; fewer mean that the parser finds nothing.
LEAST_LINKS = 200


class Page(HTMLParser):
    """The ids and links of an HTML page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Notes what the tag has."""
        attrs = dict(attrs)
        if attrs.get("id"):
            self.ids.add(attrs["id"])
        link = {"a": attrs.get("href"), "img": attrs.get("src")}.get(tag)
        if link:
            self.links.append(link)


def resolve(base, link, root):
    """Returns the file and the anchor of a link, or nothing for another host."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    path = unquote(parts.path)
    file = (root / path.lstrip("/") if path.startswith("/") else base.parent / path) if path else base
    return file.resolve(), unquote(parts.fragment)


def check(pages, root, is_page):
    """Returns the number of links and the faults of pages, which are ids and links by file."""
    count, faults = 0, []
    for file, (_, links) in pages.items():
        for link in links:
            found = resolve(file, link, root)
            if found is None:
                continue
            count += 1
            target, anchor = found
            if target.is_dir() and is_page(target / "index.html"):
                target = target / "index.html"
            if not target.exists():
                faults.append(f"{file.relative_to(root)}: there is no {link}")
            elif anchor and target in pages and anchor not in pages[target][0]:
                faults.append(f"{file.relative_to(root)}: there is no such heading: {link}")
    return count, faults


def site(book):
    """The pages of the built site. print.html has all of them once more."""
    pages = {}
    for file in book.resolve().rglob("*.html"):
        if file.name not in ("print.html", "toc.html", "404.html"):
            page = Page(file.read_text(encoding="utf-8"))
            pages[file] = (page.ids, page.links)
    return check(pages, book.resolve(), Path.exists)


def slug(heading, seen):
    """GitHub's anchor of a heading."""
    text = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
    seen[text] = seen.get(text, -1) + 1
    return text if seen[text] == 0 else f"{text}-{seen[text]}"


def repository_pages(root):
    """The ids and links of the Markdown files of the repository, as GitHub shows them."""
    parser = MarkdownIt("commonmark").enable("table")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()
    pages = {}
    for name in names:
        tokens = parser.parse((root / name).read_text(encoding="utf-8"))
        seen, ids, links = {}, set(), []
        for token, after in zip(tokens, tokens[1:]):
            if token.type == "heading_open":
                text = "".join(part.content for part in after.children if part.type in ("text", "code_inline"))
                ids.add(slug(text, seen))
        for token in tokens:
            for part in token.children or []:
                links += [part.attrs[name] for name in ("href", "src") if name in part.attrs]
        pages[(root / name).resolve()] = (ids, links)
    return pages


def repository(root):
    """The Markdown files of the repository."""
    return check(repository_pages(root), root.resolve(), lambda file: False)


def main():
    """Checks the book that the command line names, and the repository."""
    faults = []
    for what, (count, found) in (("site", site(Path(sys.argv[1]))), ("repository", repository(Path(".")))):
        if count < LEAST_LINKS:
            sys.exit(f"only {count} links in the {what}")
        print(f"{count} links in the {what}, {len(found)} of them broken")
        faults += found
    sys.exit("\n".join(faults) or 0)


if __name__ == "__main__":
    main()
