"""The ledger: each claim of the paper that a number can carry, what we measured, and a verdict.

    python -m experiments.ledger

Written from the result files alone: experiments/README.md, and docs/claims.html with the pictures.
"""

import base64
import json
import shlex
from pathlib import Path

import jinja2

from alexnet_jax.files import whole_file
from experiments import harness
from experiments.claims import CLAIMS, Found
from experiments.traps import TRAPS

ROOT = Path(__file__).parents[1]


def lines() -> list[dict[str, str]]:
    """The ledger as rows of text."""
    rows = []
    for claim in CLAIMS:
        found = claim.find() or Found("", "", "not run yet")
        rows.append(
            {
                "section": claim.section,
                "claim": claim.claim,
                "paper": claim.paper,
                "ours": found.ours or "–",
                "scale": found.scale,
                "verdict": found.verdict,
                "command": _command(found.picture) or claim.command,
                "picture": found.picture,
            }
        )
    return rows


def _command(picture: str) -> str | None:
    """The command that made a picture and the result beside it, but for where its runs lay."""
    file = harness.RESULTS / f"{picture.removesuffix('.png')}.json"
    content = json.loads(file.read_text()) if file.exists() else {}
    if not isinstance(content, dict) or "environment" not in content:
        return None
    python, *arguments = shlex.split(content["environment"]["command"])
    if arguments[0].endswith(".py"):  # as older ones were called
        module = ".".join(Path(arguments[0]).with_suffix("").parts)
        arguments[:1] = ["-m", module]
    where = ("--workdir=", "--out=", "--report")
    return shlex.join([python, *(one for one in arguments if not one.startswith(where))])


def render(template: str) -> str:
    """A page of the folder `pages`, filled in."""
    pages = jinja2.FileSystemLoader(Path(__file__).parent / "pages")
    html = template.endswith(".html")
    environment = jinja2.Environment(
        loader=pages, autoescape=html, trim_blocks=True, lstrip_blocks=True
    )
    rows = lines()
    pictures = {row["picture"]: _data_url(row["picture"]) for row in rows if row["picture"]}
    return environment.get_template(template).render(rows=rows, traps=TRAPS, pictures=pictures)


def _data_url(picture: str) -> str:
    data = (harness.RESULTS / picture).read_bytes()
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


PAGES = {"README.md": ROOT / "experiments" / "README.md", "claims.html": ROOT / "docs/claims.html"}


def main(_) -> None:
    """Writes both pages."""
    for template, path in PAGES.items():
        with whole_file(path) as file:
            file.write(render(template))
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    harness.run(main)
