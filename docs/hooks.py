"""What the site's builder is told beside mkdocs.yml: which files it shows, and where they lie."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SHOWN = ("*.md", "docs/*.*", "docs/tour/*.png", "experiments/README.md", "experiments/results/*.*")
WIDE = ("experiments/README.md", "docs/faults.md")  # tables that want the contents' place
LINK = re.compile(r"\[([^\]]+)\]\(([^):#]+)\)")  # text, a file of the repository


def on_files(files, config):
    """The theme's files, and the repository's at their own paths."""
    shown = [file for file in files if file.src_dir != config.docs_dir]
    for path in sorted(path for pattern in SHOWN for path in ROOT.glob(pattern)):
        if path.suffix != ".py":
            uri = path.relative_to(ROOT).as_posix()
            shown.append(File(uri, str(ROOT), config.site_dir, config.use_directory_urls))
    return Files(shown)


def on_page_markdown(markdown, page, config, files):
    """Links to what the site does not show, such as code, become their text."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]

    def replaced(link):
        uri = normpath(join(dirname(page.file.src_uri), link[2]))
        elsewhere = (ROOT / uri).exists() and uri not in files.src_uris
        return link[1] if elsewhere else link[0]

    return LINK.sub(replaced, markdown)


class FieldsAreAttributes(griffe.Extension):
    """Our docstrings list a class's "Fields:", which the parser knows as "Attributes:"."""

    def on_class_instance(self, *, cls, **_):
        """Called for each class that is read."""
        if text := cls.docstring:
            text.value = re.sub("^Fields:$", "Attributes:", text.value, flags=re.M)
