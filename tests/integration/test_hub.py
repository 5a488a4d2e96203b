"""Models from a hub that speaks the real one's protocol: fetched, checked, resumed, refused."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.integration.cli import Home
from tests.integration.fake_hub import Hub, sha256
from tests.unit.model_folder import model_folder
from tests.unit.test_gguf import gguf
from tokrig.cli.main import main
from tokrig.errors import InputError, ModelError, PutOff, StoreError, TokrigError
from tokrig.models import catalog, hub, identity, shelf
from tokrig.models.hub import shelf_folder
from tokrig.models.shelf import manifest_of, part_of
from tokrig.naming import Reference
from tokrig.quants import Size
from tokrig.registry import get_extra

REPO = "Otter-Org/Otter-1B-GGUF"
FILE = "Otter-1B-Q8_0.gguf"
REFERENCE = f"hf:{REPO}/{FILE}"
META: dict[str, int | float | bool | str | bytes | list[str] | list[int]] = {
    "general.architecture": "llama",
    "general.name": "Otter",
    "llama.block_count": 1,
    "llama.context_length": 512,
    "llama.embedding_length": 32,
    "llama.attention.head_count": 1,
    "general.file_type": 7,
}
SMALL = gguf(META)
LARGE = gguf(META, [("output.weight", (32, 8192), 8, 8192 * 34)])
MIB = 1024 * 1024


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, and a machine that has fetched nothing from it yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("time.sleep", lambda _: None)  # the library waits before it tries again
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.put(REPO, {FILE: LARGE, "README.md": b"# Otter\n"})
        yield server


def shelved() -> list[str]:
    """Every file of models on the shelf, unfinished ones included."""
    folder = shelf_folder()
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and "listings" not in p.parts)


def refusal(reference: str, kind: type[TokrigError] = ModelError) -> TokrigError:
    with pytest.raises(kind) as caught:
        shelf.resolve(reference)
    assert caught.value.hint
    return caught.value


# --- fetching -----------------------------------------------------------------------------------


def test_a_file_is_fetched_checked_and_known_by_its_commit(server: Hub) -> None:
    told: list[tuple[str, float | None]] = []
    found = shelf.resolve(REFERENCE, lambda text, share: told.append((text, share)))
    commit = server.repos[REPO].refs["main"]
    assert found.read_bytes() == LARGE
    assert shelved() == [FILE, f"{FILE}.tokrig.json"]
    kept = shelf.read_manifest(found)
    assert kept and (kept.repo, kept.commit) == (REPO, commit)
    shares = [share for _, share in told if share is not None]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    manifest = json.loads(manifest_of(found).read_text())
    assert manifest["files"] == [{"name": FILE, "bytes": len(LARGE), "sha256": sha256(LARGE)}]
    assert manifest["revision"] == "main"


def test_a_record_names_the_repository_and_its_commit(server: Hub) -> None:
    model = identity.identify(shelf.resolve(REFERENCE))
    assert (model.repo, model.revision) == (REPO, server.repos[REPO].refs["main"])
    assert model.quant_creator == "Otter-Org"
    assert model.sha256 == sha256(LARGE)


def test_what_is_here_is_not_fetched_again(server: Hub) -> None:
    first = shelf.resolve(REFERENCE)
    asked = len(server.asked)
    assert shelf.resolve(REFERENCE) == first
    assert len(server.asked) == asked, "not even its listing, within a day"


def test_what_is_here_serves_when_the_hub_is_gone(server: Hub) -> None:
    first = shelf.resolve(REFERENCE)
    for listing in shelf_folder().rglob("listings/*.json"):
        os.utime(listing, (0, 0))
    server.status = 503
    told: list[str] = []
    assert shelf.resolve(REFERENCE, lambda text, _: told.append(text)) == first
    assert "answers 503" in told[0]
    commit = server.repos[REPO].refs["main"]
    assert shelf.resolve(f"hf:{REPO}@{commit}/{FILE}") == first


def test_a_branch_that_moved_is_fetched_anew_after_a_day(server: Hub) -> None:
    first = shelf.resolve(REFERENCE)
    server.put(REPO, {FILE: LARGE[:-1] + b"\1"})
    assert shelf.resolve(REFERENCE) == first
    for listing in shelf_folder().rglob("listings/*.json"):
        os.utime(listing, (0, 0))
    second = shelf.resolve(REFERENCE)
    assert second != first
    assert second.read_bytes()[-1] == 1
    assert first.exists()


def test_a_tag_and_a_commit_are_revisions_too(server: Hub) -> None:
    commit = server.put(REPO, {FILE: SMALL}, revision="v1.0")
    for revision in ("v1.0", commit):
        found = shelf.resolve(f"hf:{REPO}@{revision}/{FILE}")
        assert found.read_bytes() == SMALL
        assert found.parent.name == commit


def test_all_parts_of_a_split_file_come(server: Hub) -> None:
    names = [f"big/Otter-{n:05d}-of-00003.gguf" for n in (1, 2, 3)]
    parts = {name: gguf({**META, "split.no": n, "split.count": 3}) for n, name in enumerate(names)}
    server.put(REPO, parts)
    found = shelf.resolve(f"hf:{REPO}/{names[0]}")
    assert found.name == "Otter-00001-of-00003.gguf"
    assert identity.identify(found, sha256=False).bytes == sum(map(len, parts.values()))
    assert len(shelved()) == 4
    [entry] = shelf.entries()
    assert (entry.whole, entry.bytes) == (True, sum(map(len, parts.values())))
    assert shelf.remove(f"hf:{REPO}/{names[0]}") == [entry]
    assert shelved() == []


def test_a_folder_of_safetensors_comes_without_what_no_engine_reads(
    server: Hub, tmp_path: Path
) -> None:
    source = model_folder(tmp_path / "source", files={"tokenizer.json": "{}"})
    files = {p.name: p.read_bytes() for p in source.iterdir()}
    others = ["pytorch_model.bin", "model.pth", "onnx/model.onnx", "x.gguf", "run.py"]
    commit = server.put("Otter-Org/Otter", {**files, **dict.fromkeys(others, b"no")})
    found = shelf.resolve("hf:Otter-Org/Otter")
    assert sorted(p.name for p in found.iterdir()) == sorted(files)
    model = identity.identify(found)
    assert (model.family, model.repo, model.revision) == ("Otter", "Otter-Org/Otter", commit)
    kept = shelf.read_manifest(found)
    assert kept and (kept.repo, kept.commit) == ("Otter-Org/Otter", commit)
    [entry] = shelf.entries()
    assert entry.name == "hf:Otter-Org/Otter"


def test_the_real_model_comes_whole_and_is_what_it_was(server: Hub) -> None:
    content = catalog.resolve("smollm2-135m").read_bytes()
    server.put(REPO, {"SmolLM2-135M-Instruct.Q4_1.gguf": content})
    server.cut_after, server.cuts = 40 * MIB, 2
    reference = f"hf:{REPO}/SmolLM2-135M-Instruct.Q4_1.gguf"
    model = identity.identify(shelf.resolve(reference))
    assert model.sha256 == sha256(content)
    ranges = [one.range for one in server.downloads() if one.path.startswith("/cdn/")]
    assert ranges[0] is None
    assert len(ranges) == 3
    assert all(r and r.startswith("bytes=") and r != "bytes=0-" for r in ranges[1:])
    size = shelf.known_size(reference)
    assert (size.bytes, size.here) == (len(content), True)
    assert size.kv_bytes_per_token == 2 * 2 * 30 * 3 * 64  # K and V, f16, layers, heads, length


def test_a_file_above_the_limit_of_one_answer_comes_in_pieces(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "WINDOW_BYTES", 100_000)
    server.cut_after, server.cuts = 65_536, 1
    assert shelf.resolve(REFERENCE).read_bytes() == LARGE
    ranges = [one.range for one in server.downloads() if one.path.startswith("/cdn/")]
    assert ranges[0] == "bytes=0-99999"
    assert ranges[-1] == f"bytes=200000-{len(LARGE) - 1}"


# --- the user's own cache -----------------------------------------------------------------------


def cached(server: Hub, content: bytes) -> Path:
    """The file as the library's own download puts it into the user's cache."""
    from huggingface_hub import hf_hub_download

    server.put(REPO, {FILE: content, "README.md": b"# Otter\n"})
    path = hf_hub_download(REPO, FILE, endpoint=server.url, cache_dir=os.environ["HF_HUB_CACHE"])
    return Path(path)


def test_the_librarys_own_download_takes_this_for_a_hub(server: Hub) -> None:
    path = cached(server, LARGE)
    assert path.read_bytes() == LARGE
    assert path.resolve().name == sha256(LARGE)
    assert "HEAD" in {one.method for one in server.asked}


@pytest.mark.parametrize("reachable", [True, False])
def test_a_file_in_the_users_cache_is_used_where_it_is(server: Hub, reachable: bool) -> None:
    path = cached(server, LARGE)
    server.asked.clear()
    if not reachable:
        server.status = 500
    found = shelf.resolve(REFERENCE)
    assert found == path
    assert server.downloads() == []
    assert shelf.entries() == []
    with shelf.using(found):
        shelf.make_room(0, 0)
    assert path.exists()
    assert identity.identify(found).revision == server.repos[REPO].refs["main"]


def test_a_damaged_file_in_the_users_cache_is_not_used(server: Hub) -> None:
    path = cached(server, LARGE)
    path.resolve().write_bytes(bytes(len(LARGE)))
    found = shelf.resolve(REFERENCE)
    assert found.read_bytes() == LARGE
    assert shelf_folder() in found.parents
    server.status = 500
    shelf.remove(REFERENCE)
    for listing in shelf_folder().rglob("listings/*.json"):
        listing.unlink()
    assert "answers 500" in refusal(REFERENCE, PutOff).message


# --- what breaks --------------------------------------------------------------------------------


def test_a_download_goes_on_where_it_broke(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "BLOCK_BYTES", 4096)
    server.cut_after, server.cuts, server.dies = 131_072, 1, True
    assert "answers 503" in refusal(REFERENCE, PutOff).message
    assert shelved() == [f"{FILE}.part", f"{FILE}.tokrig.json"]
    [entry] = shelf.entries()
    assert not entry.whole
    assert 0 < entry.bytes <= 131_072
    server.status = None
    assert shelf.resolve(REFERENCE).read_bytes() == LARGE
    assert server.downloads()[-1].range == f"bytes={entry.bytes}-{len(LARGE) - 1}"


def test_a_connection_that_brings_nothing_is_given_up(server: Hub) -> None:
    server.cut_after = 0
    assert "cannot be reached" in refusal(REFERENCE, PutOff).message
    assert len(server.downloads()) < 50
    assert shelved() == [], "nothing came, so nothing is kept"


def test_an_unfinished_file_that_is_too_long_begins_anew(server: Hub) -> None:
    path = shelf.resolve(REFERENCE)
    path.rename(part_of(path))
    with part_of(path).open("ab") as file:
        file.write(b"more")
    assert shelf.resolve(REFERENCE).read_bytes() == LARGE


def test_wrong_bytes_never_get_the_files_name(server: Hub) -> None:
    server.spoiled = True
    problem = refusal(REFERENCE)
    assert problem.code == "checksum_differs"
    assert shelved() == []
    server.spoiled = False
    assert shelf.resolve(REFERENCE).read_bytes() == LARGE


def test_a_wrong_small_file_is_noticed_too(server: Hub, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "source")
    files = {p.name: p.read_bytes() for p in source.iterdir()}
    server.put("o/n", files)
    hub.listing_of(Reference.parse("hf:o/n"))
    files["config.json"] = bytes(len(files["config.json"]))
    server.repos["o/n"].commits[server.repos["o/n"].refs["main"]] = files
    assert refusal("hf:o/n").code == "checksum_differs"


@pytest.mark.parametrize(
    ("reference", "says", "hint"),
    [
        ("hf:otter/none/x.gguf", "no repository otter/none", "HF_TOKEN"),
        (f"hf:{REPO}@v9/{FILE}", "no revision 'v9'", "branch"),
        (f"hf:{REPO}/Otter-1B-Q8.gguf", "no file 'Otter-1B-Q8.gguf'", f"did you mean '{FILE}'"),
        (f"hf:{REPO}", "no safetensors weights", FILE),
        ("hf:o/bins", "no safetensors weights", "name a repository"),
        ("hf:o/bins/x.gguf", "no file 'x.gguf'", "no GGUF file"),
    ],
)
def test_what_a_hub_does_not_have(server: Hub, reference: str, says: str, hint: str) -> None:
    server.put("o/bins", {"pytorch_model.bin": b"x"})
    problem = refusal(reference)
    assert says in problem.message
    assert hint in problem.hint
    assert problem.code == "model_not_found"
    assert shelved() == []


@pytest.mark.parametrize(
    "reference",
    [
        "hf:",
        "hf:otter",
        "hf:../x/y.gguf",
        "hf:o/n/../../../x.gguf",
        "hf:o/n//etc/x.gguf",
        "hf:o/n@/x.gguf",
        "hf:o/n/model.safetensors",
        "hf:o/a--b/x.gguf",
        "hf:o/n/x\n.gguf",
    ],
)
def test_what_is_no_reference(server: Hub, reference: str) -> None:
    assert "write" in refusal(reference).hint or "name a .gguf" in refusal(reference).hint
    assert server.asked == []


def test_names_in_a_listing_cannot_lead_out_of_the_shelf(server: Hub, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "source")
    files = {p.name: p.read_bytes() for p in source.iterdir()}
    server.put("o/n", {**files, "../../../evil.json": b"{}", "/evil.json": b"{}", "e\n.json": b""})
    found = shelf.resolve("hf:o/n")
    assert sorted(p.name for p in found.iterdir()) == sorted(files)
    assert list(tmp_path.rglob("evil.json")) == []


def test_a_gated_repository_wants_a_token_and_nobody_else_sees_it(
    server: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server.put(REPO, {FILE: LARGE}, gated=True)
    server.token = "hf_secret"
    problem = refusal(REFERENCE)
    assert problem.code == "model_gated"
    assert "HF_TOKEN" in problem.hint
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert refusal(REFERENCE).code == "model_gated"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = shelf.resolve(REFERENCE)
    asked = [one for one in server.downloads() if one.token == "Bearer hf_secret"]
    assert asked, "the hub is told"
    assert not any(one.token for one in server.asked if one.path.startswith("/cdn/"))
    kept = [p.read_bytes() for p in shelf_folder().rglob("*.json")]
    assert not any(b"hf_secret" in content for content in kept)
    assert "hf_" not in "".join(capfd.readouterr())
    assert found.exists()


def test_the_hub_is_not_told_what_else_is_installed(server: Hub) -> None:
    shelf.resolve(REFERENCE)
    assert all(one.agent.startswith("tokrig/") for one in server.asked)
    from huggingface_hub.constants import HF_HUB_DISABLE_TELEMETRY

    assert HF_HUB_DISABLE_TELEMETRY, "set before the library was imported"
    assert {one.method for one in server.asked} == {"GET"}


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_a_hub_in_trouble_says_nothing_about_the_model(server: Hub, status: int) -> None:
    server.status = status
    problem = refusal(REFERENCE, PutOff)
    assert str(status) in problem.message
    assert problem.exit_code == 3
    assert shelf.known_size(REFERENCE) == Size()


def test_nobody_at_the_address(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in refusal(REFERENCE, PutOff).message
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal(REFERENCE, PutOff).message


def test_a_page_to_log_in_is_no_hub(server: Hub) -> None:
    server.nonsense = True
    assert "not as a hub does" in refusal(REFERENCE, PutOff).message


def test_without_the_library(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = shelf.resolve(REFERENCE)
    for listing in shelf_folder().rglob("listings/*.json"):
        os.utime(listing, (0, 0))
    for name in [n for n in sys.modules if n.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert shelf.resolve(REFERENCE) == first, "what is here needs no library"
    shelf.remove(REFERENCE)
    problem = refusal(REFERENCE, InputError)
    assert problem.hint == get_extra("hub")


def test_a_listing_tells_the_size_and_is_kept(server: Hub) -> None:
    assert shelf.known_size(REFERENCE) == Size()
    assert hub.listing_of(Reference.parse(REFERENCE)).bytes == len(LARGE)
    assert hub.listing_of(Reference.parse(REFERENCE)).bytes == len(LARGE)
    assert len(server.asked) == 1
    server.status = 500
    assert shelf.known_size(REFERENCE) == Size(len(LARGE), source="repository")


# --- room ---------------------------------------------------------------------------------------


def test_the_budget_is_asked_before_anything_is_fetched(server: Hub) -> None:
    with pytest.raises(StoreError) as caught:
        shelf.resolve(REFERENCE, budget_bytes=len(LARGE) - 1)
    assert caught.value.code == "disk_full"
    assert server.downloads() == []
    assert shelved() == []


def test_the_least_recently_used_model_makes_room(server: Hub) -> None:
    names = [f"Otter-{n}.gguf" for n in range(3)]
    server.put(REPO, {name: LARGE[:-1] + bytes([n]) for n, name in enumerate(names)})
    budget = 2 * len(LARGE)
    paths = [shelf.resolve(f"hf:{REPO}/{name}", budget_bytes=budget) for name in names[:2]]
    os.utime(manifest_of(paths[1]), (1, 1))
    third = shelf.resolve(f"hf:{REPO}/{names[2]}", budget_bytes=budget)
    assert (paths[0].exists(), paths[1].exists(), third.exists()) == (True, False, True)


def test_a_disk_that_fills_up_on_the_way_keeps_what_came(server: Hub, tmp_path: Path) -> None:
    """Root gets a full disk, a real small tmpfs; others may not mount one and get a file that
    takes no byte."""
    content = catalog.resolve("smollm2-135m").read_bytes()
    server.put(REPO, {FILE: content})
    broken = filling_up if os.geteuid() == 0 else never_taking
    with broken(server, tmp_path / "cache") as mend:
        with pytest.raises(StoreError) as caught:
            shelf.resolve(REFERENCE)
        assert caught.value.code == "disk_full"
        came = sum(entry.bytes for entry in shelf.entries())
        assert FILE not in shelved()
        mend()
        assert shelf.resolve(REFERENCE).stat().st_size == len(content)
        assert server.downloads()[-1].range == (
            f"bytes={came}-{len(content) - 1}" if came else None
        )


@contextlib.contextmanager
def filling_up(server: Hub, folder: Path) -> Iterator[Callable[[], object]]:
    """A disk that has room when a download begins, and none when it goes on."""

    def resize(size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    def shrink() -> None:
        if server.held.wait(120):
            resize("24m")
        server.released.set()

    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    server.hold_after = 22 * MIB
    shrinking = threading.Thread(target=shrink)
    shrinking.start()
    try:
        yield lambda: resize("200m")
    finally:
        server.held.set()
        shrinking.join()
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def never_taking(server: Hub, folder: Path) -> Iterator[Callable[[], object]]:
    commit = server.repos[REPO].refs["main"]
    path = hub.repository_folder(REPO) / "snapshots" / commit / FILE
    path.parent.mkdir(parents=True)
    part_of(path).symlink_to("/dev/full")
    yield lambda: part_of(path).unlink(missing_ok=True)


# --- the command, and processes -----------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, server: Hub) -> Home:
    return Home(tmp_path)


def test_killed_in_the_middle_of_a_download_the_next_goes_on(server: Hub, home: Home) -> None:
    content = catalog.resolve("smollm2-135m").read_bytes()
    server.put(REPO, {FILE: content})
    server.hold_after = 50 * MIB
    process = home.start("models", "fetch", REFERENCE)
    assert server.held.wait(120)
    wait_for_bytes(30 * MIB)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    [entry] = shelf.entries()
    assert (entry.whole, entry.in_use) == (False, False)
    server.released.set()
    done = home.tokrig("models", "fetch", REFERENCE, "--json")
    assert done.code == 0, done.err
    assert Path(done.json["path"]).read_bytes() == content
    assert done.json["note"] == f"{REFERENCE} at commit {server.repos[REPO].refs['main']}"
    assert server.downloads()[-1].range == f"bytes={entry.bytes}-{len(content) - 1}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_says_how_to_go_on(server: Hub, home: Home, number: signal.Signals) -> None:
    content = catalog.resolve("smollm2-135m").read_bytes()
    server.put(REPO, {FILE: content})
    server.hold_after = 50 * MIB
    process = home.start("models", "fetch", REFERENCE)
    assert server.held.wait(120)
    wait_for_bytes(30 * MIB)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert re.search(rf"go on with: .*tokrig models fetch {re.escape(REFERENCE)}", err)
    assert "Traceback" not in err
    [entry] = shelf.entries()
    assert entry.bytes >= 30 * MIB


def test_two_processes_fetch_it_once(server: Hub, home: Home) -> None:
    server.hold_after = 65_536
    first = home.start("models", "fetch", REFERENCE)
    assert server.held.wait(120)
    second = home.start("models", "fetch", REFERENCE)
    assert second.stderr is not None
    assert "waiting for another process" in second.stderr.readline()
    server.released.set()
    outs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert outs[0] == outs[1]
    assert Path(outs[0].strip()).read_bytes() == LARGE
    assert len([one for one in server.downloads() if one.path.startswith("/cdn/")]) == 1


def command(*words: str, columns: str | None = None) -> Result:
    return CliRunner().invoke(main, ["models", *words], env={"COLUMNS": columns})


def test_list_and_remove(server: Hub) -> None:
    assert "keeps no models" in command("list").stderr
    assert command("fetch", REFERENCE).exit_code == 0
    listed = command("list").stdout.splitlines()
    commit = server.repos[REPO].refs["main"]
    assert listed[0].split() == ["model", "size", "last", "used", "state", "from"]
    assert listed[2].startswith(REFERENCE)
    assert listed[2].endswith(f"commit {commit[:12]}")
    narrow = command("list", columns="80").stdout.splitlines()
    assert narrow[0].split() == ["model", "size", "last", "used", "state"]
    assert narrow[2].startswith(REFERENCE)
    [entry] = json.loads(command("list", "--json").stdout)
    assert entry["name"] == REFERENCE
    assert (entry["bytes"], entry["whole"], entry["evictable"]) == (len(LARGE), True, True)
    assert (entry["repo"], entry["revision"], entry["quantized_from"]) == (REPO, commit, None)
    wrong = command("remove", f"{REFERENCE}x")
    assert wrong.exit_code == 2
    assert "did you mean" in wrong.stderr
    with shelf.using(Path(entry["path"])):
        [in_use] = json.loads(command("list", "--json").stdout)
        assert not in_use["evictable"]
        assert command("remove", REFERENCE).exit_code == 2
    assert command("remove", REFERENCE).exit_code == 0
    assert shelved() == []


def test_the_command_refuses_what_is_no_model_of_a_hub(server: Hub) -> None:
    assert "not a reference to a model on a hub" in command("fetch", "smollm2-135m").stderr
    full = command("fetch", REFERENCE, "--budget", "0.0001", "--json")
    assert full.exit_code == 2
    assert json.loads(full.stdout)["error"]["code"] == "disk_full"


def wait_for_bytes(count: int) -> None:
    """Until so much has come to the shelf."""
    deadline = time.monotonic() + 120
    while sum(entry.bytes for entry in shelf.entries()) < count:
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


# --- what fits ----------------------------------------------------------------------------------


def test_the_quants_of_a_repository_by_their_sizes(server: Hub, tmp_path: Path) -> None:
    """Whole models alone: no projector, of a split one the first part."""
    parts = [f"big-Q4_0-0000{n}-of-00002.gguf" for n in (1, 2)]
    files = {"small-Q2_K.gguf": b"2" * 1000, "mmproj-F16.gguf": b"3" * 10, "README.md": b"#"}
    server.put("o/many", {**files, **dict.fromkeys(parts, b"4" * 3 * MIB)})
    asked = ["fit", "--vram", "1GiB", "--content", str(tmp_path), "--json", "-m"]
    done = CliRunner().invoke(main, [*asked, "hf:o/many"])
    assert done.exit_code == 0, done.output
    found = {one["model"]: one["bytes"] for one in json.loads(done.stdout)["models"]}
    assert found == {"big-Q4_0-00001-of-00002": 6 * MIB, "small-Q2_K": 1000}
    one = CliRunner().invoke(main, [*asked, "hf:o/many/small-Q2_K.gguf"])
    assert [m["model"] for m in json.loads(one.stdout)["models"]] == ["small-Q2_K"]
    none = CliRunner().invoke(main, [*asked, "hf:o/nothing"])
    assert none.exit_code != 0 and "hint: " in none.stderr
