"""What a user would get: `python -m tests.release` builds it, and uses it away from the checkout.

The last commit's sdist and wheel hold the files that they should and no others; the wheel,
installed into an empty environment with the newest packages that it allows, trains the digits for
two epochs, evaluates them and writes the report. All of it lies in a temporary folder.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
ALONGSIDE = ("CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "SECURITY.md")


def main() -> None:
    """Runs every check; the first that fails ends it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = folder / "source"
        run("git", "-C", ROOT, "archive", f"--output={folder / 'source.zip'}", "HEAD")
        with zipfile.ZipFile(folder / "source.zip") as archive:
            archive.extractall(source)
        project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
        tools = environment(folder / "tools", "build", "twine")
        run(tools / "python", "-m", "build", "--quiet", f"--outdir={folder / 'dist'}", source)
        sdist, wheel = sorted((folder / "dist").iterdir(), key=lambda path: path.suffix)
        run(tools / "twine", "check", "--strict", sdist, wheel)
        check_contents(source, sdist, wheel)
        user = environment(folder / "user", wheel)
        use(user / "alexnet-jax", folder / "elsewhere", project["version"])


def environment(folder: Path, *packages: str | Path) -> Path:
    """The programs of a new environment that holds the packages and what they need."""
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    quiet = ("--quiet", "--no-compile", "--disable-pip-version-check")
    run(programs / "python", "-m", "pip", "install", *quiet, *packages)
    return programs


def check_contents(source: Path, sdist: Path, wheel: Path) -> None:
    """Both hold the whole package; the sdist also how it is built and what is said about it."""
    package = {
        path.relative_to(source).as_posix()
        for path in (source / "alexnet_jax").rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    same(wheel.name, held, package)
    with tarfile.open(sdist) as archive:
        paths = (member.name.partition("/")[2] for member in archive if member.isfile())
        held = {path for path in paths if ".egg-info/" not in path}
    made = {"PKG-INFO", "setup.cfg"}
    same(sdist.name, held - made, {*package, *ALONGSIDE, "MANIFEST.in", "pyproject.toml"})


def same(name: str, held: set[str], wanted: set[str]) -> None:
    """Says what is missing and what is too much, and ends if anything is."""
    for words, paths in (("lacks", wanted - held), ("should not hold", held - wanted)):
        if paths:
            sys.exit(f"{name} {words} {', '.join(sorted(paths))}")
    print(f"{name}: {len(held)} files, as wanted", flush=True)


def use(command: Path, folder: Path, version: str) -> None:
    """The commands of the README, in an empty folder that is also the home."""
    folder.mkdir()
    said = run(command, "--version", cwd=folder, stdout=subprocess.PIPE).stdout.split()
    if said != ["alexnet_jax", version]:
        sys.exit(f"alexnet-jax --version says {said}; pyproject.toml has {version}")
    run(command, "train", "--workdir=run", "--config.num_epochs=2", cwd=folder)
    run(command, "evaluate", "--workdir=run", cwd=folder)
    run(command, "report", "--workdir=run", cwd=folder)


def run(*command: str | Path, **how: object) -> subprocess.CompletedProcess[str]:
    """Runs a command as in a new shell: nothing of this one's Python, data or caches."""
    ours = ("ALEXNET_", "JAX_", "PYTHON", "TFDS_", "XDG_", "XLA_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    environment |= {"HOME": str(how["cwd"])} if "cwd" in how else {}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, text=True, **how)
    words = " ".join(map(str, command[:4]))
    print(f"{time.perf_counter() - started:5.0f} s  {words}", flush=True)
    if done.returncode:
        sys.exit(f"failed: {words}")
    return done


if __name__ == "__main__":
    main()
