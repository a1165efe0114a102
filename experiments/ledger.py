"""The ledger: each claim of the paper that a number can carry, what we measured, and a verdict.

    python -m experiments.ledger

Written from the result files alone: experiments/README.md, and docs/claims.html with the pictures.
"""

import base64
from pathlib import Path

import jinja2

from alexnet_jax.files import naming, whole_file
from experiments import errors_table, harness
from experiments.claims import CLAIMS
from experiments.found import Found
from experiments.traps import TRAPS
from experiments.verdicts import INTERVAL, MEANINGS, NOT_RUN

ROOT = Path(__file__).parents[1]
PHOTOGRAPHS = (
    "Imagenette here is a public copy of its larger form, not the files that are downloaded by its "
    "name: every photograph squeezed whole into a square of 224 pixels, whatever its shape, and "
    "compressed twice. 8,996 train, 473 validate, and the test are 2,925 of the official 3,925 "
    "validation images. Other files give other errors. CIFAR-10 is the official one, whole."
)
STARRED = (
    "1 CNN* and 7 CNNs* have no row: a net that was pre-trained on more classes of photographs "
    "wants ImageNet. What pre-training on half of these classes is worth to the other half stands "
    "above."
)


def lines() -> list[dict[str, str]]:
    """The ledger as rows of text.

    Raises:
      ValueError: a result is damaged; the message names the claim, and the file if it is no JSON.
    """
    rows = []
    for claim in CLAIMS:
        with naming(f"claim {claim.claim!r}", ": its result is damaged"):
            found = claim.find() or Found("", "", NOT_RUN)
        row = claim._asdict() | found._asdict()
        row["command"] = found.command or claim.command
        rows.append({key: text for key, text in row.items() if key != "find"})
    return rows


def render(template: str) -> str:
    """A page of the folder `pages`, filled in."""
    pages = jinja2.FileSystemLoader(Path(__file__).parent / "pages")
    html = template.endswith(".html")
    environment = jinja2.Environment(
        loader=pages, autoescape=html, trim_blocks=True, lstrip_blocks=True
    )
    rows = lines()
    pictures = {row["picture"]: _data_url(row["picture"]) for row in rows if row["picture"]}
    return environment.get_template(template).render(
        rows=rows,
        errors=errors_table.rows(),
        photographs=PHOTOGRAPHS,
        starred=STARRED,
        traps=TRAPS,
        pictures=pictures,
        interval=INTERVAL,
        meanings=MEANINGS,
        commands=list(dict.fromkeys(row["command"] for row in rows if row["command"])),
    )


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
