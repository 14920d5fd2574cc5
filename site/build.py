#!/usr/bin/env python3
"""Puts the pages together for mdBook, as they are in the repository: `site/build.py DIRECTORY`.

SUMMARY.md lists the pages. Files and directories that they link to, such as examples, become pages below `sources/`,
so that no link leaves the site for them. Nothing else of the repository gets in.
"""

import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parent.parent
PARSER = MarkdownIt("commonmark").enable("table")
PICTURES = {".svg", ".png"}
LANGUAGES = {
    ".py": "python", ".rs": "rust,ignore", ".go": "go", ".pl": "perl", ".js": "javascript", ".rb": "ruby", ".lua": "lua",
    ".php": "php", ".json": "json", ".yaml": "yaml", ".proto": "protobuf",
}
# Languages of code blocks that mdBook's highlighter does not have: it complains of each in the browser.
PLAIN = re.compile(r"^( *```)(dockerfile|hex)$", re.MULTILINE)
# Larger files are data, which the browser shows better as they are.
MAX_SOURCE_BYTES = 48 * 1024


def tracked():
    """The files of the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return set(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines())


def targets(page, text):
    """The paths in the repository that a page links to, each with the link as it is written."""
    for token in PARSER.parse(text):
        for part in token.children or []:
            link = part.attrs.get("href") or part.attrs.get("src")
            if link and not re.match(r"[a-z][a-z0-9+.-]*:|#", link):
                yield posixpath.normpath(posixpath.join(posixpath.dirname(page), link.partition("#")[0])), link


def in_book(page):
    """The name of a page in the book. A web server shows index.html for a directory."""
    return re.sub(r"README\.md$", "index.md", page)


class Site:
    """The source directory of the book."""

    def __init__(self, directory, files):
        self.directory, self.files = directory, files
        self.summary = (ROOT / "site/SUMMARY.md").read_text(encoding="utf-8").replace("](../", "](")
        self.pages = re.findall(r"\]\((.+?\.md)\)", self.summary)
        self.sources = {}

    def write(self, name, text):
        """Writes one file of the source directory."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def copy(self, name):
        """Copies a file of the repository, which the book then has under the same name."""
        (self.directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, self.directory / name)

    def source(self, path):
        """Returns the page of a file or a directory of the repository, and writes it at the first call."""
        if path in self.sources:
            return self.sources[path]
        below = sorted(name for name in self.files if name.startswith(path + "/"))
        if path in self.files and (ROOT / path).stat().st_size > MAX_SOURCE_BYTES:
            self.copy(path)
            return path
        page = f"sources/{path}/index.md" if below else f"sources/{path}.md"
        self.sources[path] = page
        if below:
            items = [f"- [{name[len(path) + 1:]}]({self.between(page, self.source(name))})" for name in below if self.is_text(name)]
            self.write(page, f"# {path}\n\n" + "\n".join(items) + "\n")
        elif path in self.files:
            code = (ROOT / path).read_text(encoding="utf-8")
            fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", code)), 3)
            language = LANGUAGES.get(Path(path).suffix, "text")
            self.write(page, f"# {path}\n\n{fence}{language}\n{code.rstrip()}\n{fence}\n")
        else:
            sys.exit(f"a page links to {path}, which is not in the repository")
        return page

    def is_text(self, name):
        """Whether a file can be a page."""
        return Path(name).suffix not in PICTURES and b"\0" not in (ROOT / name).read_bytes()

    def between(self, page, other):
        """The link from one page to another."""
        return posixpath.relpath(other, posixpath.dirname(page) or ".")

    def add_page(self, page):
        """Copies a page, with its links to sources changed to the pages of these."""
        text = (ROOT / page).read_text(encoding="utf-8")
        for target, link in targets(page, text):
            if Path(target).suffix in PICTURES:
                self.copy(target)
                continue
            # The link to a directory is one to its README.
            index = posixpath.join(target, "README.md")
            target = index if index in self.pages else target
            new = self.between(page, in_book(target) if target in self.pages else self.source(target))
            anchor = link.partition("#")[1:]
            text = text.replace(f"]({link})", f"]({new}{''.join(anchor)})")
        self.write(in_book(page), PLAIN.sub(r"\1text", text))

    def build(self):
        """Writes everything."""
        for page in self.pages:
            self.add_page(page)
        links = [f"- [{path}]({{}}{page})" for path, page in sorted(self.sources.items())]
        self.write("sources/index.md", "# Sources\n\n" + "\n".join(links).replace("{}sources/", "") + "\n")
        lines = ["- [Sources](sources/index.md)", *("  " + link.replace("{}", "") for link in links)]
        summary = self.summary.replace("README.md)", "index.md)")
        self.write("SUMMARY.md", summary.rstrip() + "\n" + "\n".join(lines) + "\n")


def main():
    """Writes the book's directory: book.toml, the style and the source directory."""
    directory = Path(sys.argv[1])
    shutil.rmtree(directory / "src", ignore_errors=True)
    os.makedirs(directory, exist_ok=True)
    for name in ("book.toml", "site.css"):
        shutil.copyfile(ROOT / "site" / name, directory / name)
    Site(directory / "src", tracked()).build()


main()
