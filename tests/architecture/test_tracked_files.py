"""What must not be in the repository, and what must be written beside what is vendored."""

import re
from pathlib import Path

from tests.support.sources import ROOT, project_files

#: Folders of a developer's machine; spelled in parts, or this file would offend itself.
_MACHINE_PATH = re.compile(
    rb"(?:^|[^A-Za-z0-9_.])/(?:"
    + b"|".join([b"work", b"farm", b"root", b"home", b"Users"])
    + rb")/[A-Za-z.]",
    re.MULTILINE,
)


def _text_files() -> list[tuple[Path, bytes]]:
    contents = ((path, path.read_bytes()) for path in project_files())
    return [(path, content) for path, content in contents if b"\0" not in content[:1024]]


def test_no_paths_of_one_machine():
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path, content in _text_files()
        for match in [_MACHINE_PATH.search(content)]
        if match
    ]
    assert not found


def test_lock_files_name_no_index():
    locks = [path for path in project_files() if path.suffix == ".lock"]
    assert len(locks) >= 2
    assert not [path.name for path in locks if re.search(r"\w://", path.read_text("utf-8"))]


def test_lock_files_pin_everything_by_hash():
    for path in (path for path in project_files() if path.suffix == ".lock"):
        requirements = re.findall(r"^[\w.\[\]-]+ *(\S*)", path.read_text("utf-8"), re.MULTILINE)
        assert requirements
        assert all(pin.startswith("==") for pin in requirements)
        entries = re.split(r"^(?=[A-Za-z])", path.read_text("utf-8"), flags=re.MULTILINE)[1:]
        assert all("--hash=sha256:" in entry for entry in entries)


def test_vendored_assets_say_version_and_licence():
    """Each lies in ``vendor/<name>/`` beside LICENSE and VERSION."""
    names = {path.relative_to(ROOT) for path in project_files()}
    vendored = {path.parent for path in names if path.parent.parent.name == "vendor"}
    assert vendored
    incomplete = [
        str(folder)
        for folder in vendored
        if not {folder / "LICENSE", folder / "VERSION"} <= names
        or not re.search(r"\d+\.\d+", (ROOT / folder / "VERSION").read_text("utf-8"))
    ]
    assert not incomplete


def test_minified_assets_are_vendored():
    strays = [
        str(path.relative_to(ROOT))
        for path in project_files()
        if ".min." in path.name and path.parent.parent.name != "vendor"
    ]
    assert not strays


def test_no_page_asks_a_content_network():
    """Pages work on a line without internet: nothing is loaded from elsewhere (design.md §9)."""
    foreign = re.compile(rb"""(?:src|href)=["']?(?:https?:)?//|@import|url\(["']?https?:""")
    pages = {".html", ".css", ".jinja", ".j2"}
    found = [
        str(path.relative_to(ROOT))
        for path, content in _text_files()
        if path.suffix in pages and "vendor" not in path.parts and foreign.search(content)
    ]
    assert not found
