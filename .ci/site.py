"""Build the documentation into a site: build/site, from docs/ and what it links to.

python .ci/site.py            # stages and builds; exits with 1 where a link leads nowhere
python .ci/site.py --stage    # only stages: build/site-source

On GitHub, a link from docs/ to the changelog or to an example leads to the file. In the site, these
files are pages too; other files are links to the repository.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "build" / "site-source"
SITE = ROOT / "build" / "site"
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
PAGES = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "bench/README.md": "project/bench.md",
    "README.md": "index.md",
}
"""Documents outside of docs/, and the pages that they become."""
MERMAID_URL = "https://unpkg.com/mermaid@12/dist/mermaid.min.js"
MERMAID_VERSION = "12.3.0"
MERMAID_SHA512 = (
    "4113TdXeLAsMruJ79OpFL5O8+LTFXhQqZ260rF3tgUmiNAtRm4Uume04I+65PRN6yZ69J4f8rVYWW8zRk65UYw=="
)
LANGUAGES = {".yaml": "yaml", ".json": "json", ".xml": "xml", ".lua": "lua", ".conf": "nginx"}
LINK = re.compile(r"(\]\()((?![a-z]+:|#)[^)\s]+)(\))")
ATTRIBUTE = re.compile(r'((?:src|srcset)=")((?![a-z]+:)[^"]+)(")')
# Comments begin an example; the line for editors is no part of what it says.
COMMENT = re.compile(r"\A(?:# yaml-language-server:.*\n\s*)?((?:#.*\n)+)")


def main(arguments: list[str]) -> int:
    """Stage the pages, and build the site."""
    stage()
    if "--stage" in arguments:
        return 0
    shutil.rmtree(SITE, ignore_errors=True)
    # Its cache does not notice what is staged anew within a second.
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT, check=False
    )
    if built.returncode:
        return built.returncode
    take_in_mermaid(SITE)
    return _report(dead_links(SITE))


def take_in_mermaid(site: Path) -> None:
    """Serve what draws the diagrams from the site itself, not from a public server. Without npm,
    pages continue to load it from there."""
    if not shutil.which("npm"):
        print("npm is missing: pages with diagrams load Mermaid from unpkg.com")
        return
    (bundle,) = (site / "assets" / "javascripts").glob("bundle.*.js")
    text = bundle.read_text()
    if MERMAID_URL not in text:
        raise SystemExit(f"{bundle.name} loads no {MERMAID_URL}: see MERMAID_URL in .ci/site.py")
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"mermaid@{MERMAID_VERSION}"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        (packed,) = Path(folder).glob("mermaid-*.tgz")
        digest = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
        if digest != MERMAID_SHA512:
            raise SystemExit(f"mermaid {MERMAID_VERSION} is another package than the one pinned")
        with tarfile.open(packed) as archive:
            member = archive.extractfile("package/dist/mermaid.min.js")
            assert member is not None
            bundle.with_name("mermaid.min.js").write_bytes(member.read())
    own = (
        "document.querySelector(\"script[src*='javascripts/bundle']\").src.replace(/bundle[^/]*$/,"
    )
    bundle.write_text(text.replace(f'"{MERMAID_URL}"', f'{own}"mermaid.min.js")'))


def stage() -> None:
    """Copy docs/ and make pages of what it links to."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", SOURCE)
    examples = sorted(
        path
        for path in (ROOT / "config").rglob("*")
        if path.is_file() and path.name != "gateway.schema.json"
    )
    for path in SOURCE.rglob("*.md"):
        place = PurePosixPath("docs") / path.relative_to(SOURCE).as_posix()
        path.write_text(relink(path.read_text(), place))
    for name, page in PAGES.items():
        if page != "index.md":
            _write(page, relink((ROOT / name).read_text(), PurePosixPath(name), page))
    listed = []
    for path in examples:
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text()
        language = LANGUAGES.get(path.suffix, "text")
        page = example_page(name)
        title = name.removeprefix("config/")
        body = f"# {title}\n\n`{name}` in the repository.\n\n```{language}\n{text.rstrip()}\n```\n"
        _write(page, body)
        listed.append(f"| [{title}]({page.removeprefix('examples/')}) | {_about(text)} |\n")
    _write(
        "examples/index.md",
        "# Examples\n\nEach one is a whole configuration, and passes `gateway check` as it is.\n\n"
        f"| File | |\n|---|---|\n{''.join(listed)}",
    )


def relink(text: str, place: PurePosixPath, page: str = "") -> str:
    """Rewrite the links of a document for the page that it becomes."""
    page = page or place.relative_to("docs").as_posix()

    def rewritten(match: re.Match[str]) -> str:
        target, mark, anchor = match[2].partition("#")
        absolute = os.path.normpath(place.parent / target)
        return f"{match[1]}{_target(absolute, page)}{mark}{anchor}{match[3]}"

    return ATTRIBUTE.sub(rewritten, LINK.sub(rewritten, text))


def _target(name: str, page: str) -> str:
    """The target of a link to a file of the repository, from a page."""
    folder = PurePosixPath(page).parent
    if not (ROOT / name).exists():
        raise SystemExit(f"{page}: a link leads to {name}, which does not exist")
    if name.startswith("docs/"):
        inside = name.removeprefix("docs/")
    elif name in PAGES:
        inside = PAGES[name]
    elif name.startswith("config/") and (ROOT / name).is_file() and "schema" not in name:
        inside = example_page(name)
    else:
        kind = "tree" if (ROOT / name).is_dir() else "blob"
        return f"{REPOSITORY}/{kind}/main/{name}"
    return os.path.relpath(inside, folder)


def example_page(name: str) -> str:
    """The page of an example: config/authz/nginx.conf is examples/authz-nginx-conf.md."""
    return f"examples/{re.sub(r'[/.]', '-', name.removeprefix('config/'))}.md"


def _about(text: str) -> str:
    """The first sentence of an example's comment."""
    found = COMMENT.match(text) or re.search(r"<!--(.*?)-->", text, re.DOTALL)
    words = " ".join(re.sub(r"^#", "", found[1], flags=re.MULTILINE).split()) if found else ""
    return re.split(r"(?<=[.:])\s", words)[0].rstrip(":").replace("|", "\\|")


def _write(page: str, text: str) -> None:
    path = SOURCE / page
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def dead_links(site: Path) -> list[str]:
    """Links, pictures and anchors within the built pages that lead nowhere."""
    found = []
    pages = {path: path.read_text() for path in site.rglob("*.html") if path.name != "404.html"}
    anchors = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    for path, text in pages.items():
        for link in re.findall(r'<(?:a|img|source)\b[^>]*?(?:href|src|srcset)="([^"]+)"', text):
            if re.match(r"[a-z]+:|//", link):
                continue
            target, _, anchor = link.partition("#")
            file = Path(os.path.normpath(path.parent / target)) if target else path
            file = file / "index.html" if file.is_dir() else file
            if not file.exists() or (anchor and file in anchors and anchor not in anchors[file]):
                found.append(f"{path.relative_to(site)}: {link}")
    return sorted(set(found))


def _report(dead: list[str]) -> int:
    for one in dead:
        print(f"leads nowhere: {one}")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
