from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conjure.core import hub, paths, shelf
from conjure.core.errors import ConjureError
from conjure.core.events import Progress
from tests.core.stand_in_hub import CARD, REPO, StandInHub, digest, serve

WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    for name in ("CONJURE_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(paths, "starters_dir", lambda: tmp_path / "no-starters")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 250)  # what comes is written in such pieces
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the hub library's attempts
    with serve() as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        yield stand_in


def get(name: str = REPO, gguf: str = "") -> Path:
    return hub.fetch(hub.plan(name, gguf))


def refused(name: str = REPO, gguf: str = "") -> ConjureError:
    with pytest.raises(ConjureError) as caught:
        get(name, gguf)
    assert caught.value.hint
    return caught.value


def blobs(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "hub" / "models--org--tiny" / "blobs").glob("*"))


# -- a whole download -----------------------------------------------------------------------------------------


def test_what_is_needed_and_no_more_comes(server: StandInHub, tmp_path: Path) -> None:
    wanted = hub.plan(REPO)
    assert [file.name for file in wanted.files] == ["tokenizer.json", "config.json", "README.md", "model.safetensors"]
    assert (wanted.total, wanted.here) == (sum(map(len, server.files.values())) - 8 - 12, 0)
    assert wanted.listing.licence == "apache-2.0"
    seen: list[Progress] = []
    folder = hub.fetch(wanted, seen.append)
    assert folder == tmp_path / "hub" / "models--org--tiny" / "snapshots" / server.commit
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: server.files[name] for name in ("config.json", "tokenizer.json", "README.md", "model.safetensors")
    }
    assert (folder / "model.safetensors").is_symlink()
    steps = [each.step for each in seen]
    assert steps == sorted(steps) and steps[-1] == wanted.total and {each.total for each in seen} == {wanted.total}


def test_the_shelf_finds_it_with_its_licence_and_kind(server: StandInHub) -> None:
    with pytest.raises(ConjureError) as missing:
        shelf.find(REPO)
    assert f"conjure models get {REPO}" in missing.value.hint
    folder = get()
    assert shelf.find(REPO) == folder
    (info,) = shelf.installed()
    assert (info.name, info.kind, info.task, info.licence) == (REPO, "llama", "text_to_text", "apache-2.0")
    assert (info.revision, info.bytes) == (server.commit, len(WEIGHTS))
    assert (folder / "README.md").read_bytes() == CARD


def test_the_hub_library_finds_it_too(server: StandInHub, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    folder = get()
    found = hf_hub_download(REPO, "config.json", cache_dir=tmp_path / "hub", local_files_only=True)
    assert Path(found) == folder / "config.json"


def test_a_second_time_nothing_is_fetched(server: StandInHub) -> None:
    get()
    server.requests.clear()
    wanted = hub.plan(REPO)
    assert wanted.here == wanted.total
    hub.fetch(wanted)
    assert [path for _, path, _, _ in server.requests] == [f"/api/models/{REPO}/revision/main"]


def test_a_changed_revision_brings_the_new_commit_and_shares_what_is_equal(server: StandInHub, tmp_path: Path) -> None:
    old = get()
    server.commit, server.files["config.json"] = "2" * 40, b'{"model_type": "qwen2"}'
    wanted = hub.plan(REPO)
    assert wanted.total - wanted.here == len(server.files["config.json"])
    new = hub.fetch(wanted)
    assert (new.name, shelf.find(REPO), shelf.find(f"{REPO}@{old.name}")) == (server.commit, new, old)
    assert server.asked("model.safetensors") == [""]
    assert len(blobs(tmp_path)) == 5


def test_a_pinned_commit_and_a_branch(server: StandInHub) -> None:
    server.revisions = ("main", "refs/pr/1")
    folder = get(f"{REPO}@refs/pr/1")
    assert shelf.find(f"{REPO}@refs/pr/1") == folder
    assert get(f"{REPO}@{server.commit}") == folder
    error = refused(f"{REPO}@v9")
    assert "no revision 'v9'" in error.message


def test_where_the_disk_knows_no_links_the_content_is_copied(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(self: Path, target: str) -> None:
        raise OSError("not here")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    folder = get()
    assert not (folder / "model.safetensors").is_symlink()
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


# -- resuming -------------------------------------------------------------------------------------------------


def test_a_cut_connection_goes_on_within_one_run(server: StandInHub) -> None:
    server.cut = [1000, 500]
    assert (get() / "model.safetensors").read_bytes() == WEIGHTS
    assert server.asked("model.safetensors") == ["", "bytes=1000-", "bytes=1500-"]


def test_a_download_that_was_given_up_goes_on_in_the_next_run(server: StandInHub, tmp_path: Path) -> None:
    server.cut = [4000] + [0] * 20
    error = refused()
    assert "goes on where it stopped" in error.hint
    part = f"{digest(WEIGHTS, True)}.incomplete"
    assert part in blobs(tmp_path) and shelf.installed() == []
    server.cut = []
    server.requests.clear()
    wanted = hub.plan(REPO)
    assert wanted.total - wanted.here == len(WEIGHTS) - 4000
    assert (hub.fetch(wanted) / "model.safetensors").read_bytes() == WEIGHTS
    assert server.asked("model.safetensors") == ["bytes=4000-"]
    assert part not in blobs(tmp_path)


def test_an_interrupted_download_keeps_what_came(server: StandInHub, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.step > progress.total - 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hub.fetch(hub.plan(REPO), stop)
    assert any(name.endswith(".incomplete") for name in blobs(tmp_path)) and shelf.installed() == []
    get()
    assert "bytes=10000-" in server.asked("model.safetensors")


def test_a_server_without_ranges_starts_again(server: StandInHub) -> None:
    server.cut, server.ranges = [4000] + [0] * 20, False
    refused()
    server.cut = []
    assert (get() / "model.safetensors").read_bytes() == WEIGHTS


# -- content that is not what was announced -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_wrong_checksum_is_thrown_away(server: StandInHub, tmp_path: Path, name: str) -> None:
    good = server.files[name]
    server.sent[name] = good[:-1] + b"?"
    error = refused()
    assert f"checksum of {name} differs" in error.message and digest(good, name in server.large) in error.message
    assert not any("incomplete" in each for each in blobs(tmp_path)) and shelf.installed() == []
    server.sent.clear()
    assert (get() / name).read_bytes() == good


def test_a_file_that_is_longer_than_announced_is_refused(server: StandInHub, tmp_path: Path) -> None:
    server.sent["model.safetensors"] = WEIGHTS + b"more"
    assert "expected 10,240 bytes, the server sends more" in refused().message


def test_a_file_that_is_shorter_than_announced_is_refused(server: StandInHub) -> None:
    server.sent["model.safetensors"] = WEIGHTS[:-5]
    assert "came incomplete" in refused().message


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\\..\\x", "c:x", "", "a//b", "x\n.json"])
def test_names_that_lead_out_of_the_cache_are_refused(server: StandInHub, tmp_path: Path, name: str) -> None:
    server.files[name] = b"x"
    error = refused()
    assert "outside its folder" in error.message and repr(name) in error.message
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize("commit", ["../../x", "", "main"])
def test_a_commit_that_is_none_is_refused(server: StandInHub, commit: str) -> None:
    server.commit = commit
    assert "names no commit" in refused().message


# -- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "code", "message", "hint"), [
    (401, "GatedRepo", "is gated", "accept them at"),
    (403, "GatedRepo", "is gated", "HF_TOKEN"),
    (404, "RepoNotFound", "is not on", "check the spelling"),
    (401, "RepoNotFound", "is not on", "private"),
    (403, "", "refuses", "who may read it"),
    (429, "", "too often", "wait"),
    (500, "", "answered 500", "run the command again"),
])  # fmt: skip
def test_refusals_are_told_apart(server: StandInHub, status: int, code: str, message: str, hint: str) -> None:
    server.refuse = (status, code)
    error = refused()
    assert message in error.message and hint in error.hint


def test_a_gated_file_is_found_out_at_the_first(server: StandInHub, tmp_path: Path) -> None:
    server.refuse_files = (401, "GatedRepo")
    assert "is gated" in refused().message
    assert sum("/resolve/" in path for _, path, _, _ in server.requests) == 1
    server.refuse_files = (404, "EntryNotFound")
    assert "is not there" in refused().message


def test_an_answer_that_is_not_the_hubs(server: StandInHub) -> None:
    server.garbage = True
    error = refused()
    assert "not the hub's" in error.message and "login page" in error.hint


def test_no_network(server: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    error = refused()
    assert "could not be reached" in error.message and "connection" in error.hint


@pytest.mark.parametrize("variable", ["CONJURE_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(server: StandInHub, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    assert "switched off" in refused().message
    assert server.requests == []


def test_a_full_disk_is_found_out_before(server: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 95, 5))
    error = refused()
    assert "are to be fetched" in error.message and "conjure models remove" in error.hint
    assert not any("/resolve/" in path for _, path, _, _ in server.requests)


@pytest.mark.parametrize(
    "name", ["gpt2", "starter/story", "../org/x", "org/x/y", "org/..", "org/x@", "", "org/x@../.."]
)
def test_names_that_are_none(server: StandInHub, name: str) -> None:
    assert "expected a name on the hub" in refused(name).message
    assert server.requests == []


def test_the_token_goes_to_the_hub_and_not_to_where_it_points(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    get()
    tokens = {token for _, path, _, token in server.requests if not path.startswith("/cdn")}
    assert (tokens, {token for *_, token in server.requests}) == ({"Bearer hf_secret"}, {"Bearer hf_secret", ""})


# -- which files ----------------------------------------------------------------------------------------------


def chosen(*names: str, gguf: str = "") -> set[str]:
    files = tuple(hub.RemoteFile(name=name, size=1, digest="0" * 40) for name in names)
    listing = hub.Listing(repo=REPO, revision="main", commit="1" * 40, files=files, licence="mit", gated=False)
    return {file.name for file in hub.choose(listing, gguf)}


BESIDE = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "source.spm",
    "chat_template.jinja", "preprocessor_config.json", "processor_config.json", "modules.json", "1_Pooling/config.json",
    "2_Dense/config.json", "2_Dense/model.safetensors", "sentence_bert_config.json", "README.md", "LICENSE",
    "LICENSE.txt", "NOTICE", "config_sentence_transformers.json", "additional_chat_templates/tool_use.jinja",
)  # fmt: skip
NEVER = (
    "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx", "onnx/config.json", "args.bin",
    "consolidated.safetensors", "consolidated.00.pth", "model.fp16.safetensors", "openvino_model.xml", "rust_model.ot",
    "original/params.json", "original/tokenizer.model", "trainer_state.json", "events.out.tfevents.1", "a.gguf",
    "checkpoint-10/model.safetensors", ".gitattributes", "run.py",
)  # fmt: skip


def test_files_beside_the_weights_and_files_that_are_never_fetched() -> None:
    assert chosen(*BESIDE, *NEVER, "model.safetensors") == {*BESIDE, "model.safetensors"}


@pytest.mark.parametrize(("weights", "taken"), [
    (["model.safetensors", "model.safetensors.index.json", "model-00001-of-00001.safetensors"], ["model.safetensors"]),
    (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
      "medusa.safetensors", "model.fp16-00001-of-00001.safetensors"],
     ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]),
    (["other.safetensors"], ["other.safetensors"]),
    (["model.fp16.safetensors", "model.bf16.safetensors"], ["model.bf16.safetensors"]),
    (["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors",
      "model.safetensors.index.fp16.json"],
     ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors",
      "model.safetensors.index.fp16.json"]),
])  # fmt: skip
def test_one_set_of_weights(weights: list[str], taken: list[str]) -> None:
    assert chosen("config.json", *weights) == {"config.json", *taken}


def test_an_adapter_and_a_pipeline() -> None:
    assert chosen("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin") == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    parts = {"unet/config.json", "unet/x.safetensors", "tokenizer/vocab.json", "scheduler/scheduler_config.json"}
    assert chosen("model_index.json", *parts, "unet/x.fp16.safetensors", "unet/x.bin") == {"model_index.json", *parts}
    unused = ("safety_checker/config.json", "safety_checker/model.safetensors", "whole-emaonly.safetensors")
    assert chosen("model_index.json", *parts, *unused) == {"model_index.json", *parts}


def test_one_gguf_file_by_name_or_quantisation() -> None:
    there = ("README.md", "tiny.Q4_K_M.gguf", "tiny-q8_0.gguf", "tiny.Q4_K_S.gguf", "model.safetensors")
    assert chosen(*there, gguf="q4_k_m") == {"README.md", "tiny.Q4_K_M.gguf"}
    assert chosen(*there, gguf="Q8_0") == {"README.md", "tiny-q8_0.gguf"}
    assert chosen(*there, gguf="tiny.Q4_K_S.gguf") == {"README.md", "tiny.Q4_K_S.gguf"}
    for part, count in (("tiny", 3), ("Q4_K", 2)):
        with pytest.raises(ConjureError, match=f"fits {count} files"):
            chosen(*there, gguf=part)
    with pytest.raises(ConjureError, match="no GGUF file fits"):
        chosen(*there, gguf="Q5_K_M")
    with pytest.raises(ConjureError, match="comes in parts"):
        chosen("x-Q8_0-00001-of-00002.gguf", "x-Q8_0-00002-of-00002.gguf", gguf="Q8_0")


@pytest.mark.parametrize(("names", "message", "hint"), [
    (["config.json", "pytorch_model.bin"], "pickles only", "refs/pr/1"),
    (["config.json", "a.Q8_0.gguf"], "GGUF files only", "--gguf"),
    (["params.json", "consolidated.safetensors"], "consolidated", "transformers"),
    (["README.md"], "has no weights", "another"),
    (["model.safetensors"], "has no config.json", "no model"),
])  # fmt: skip
def test_what_cannot_be_run_is_refused(names: list[str], message: str, hint: str) -> None:
    with pytest.raises(ConjureError, match=message) as caught:
        chosen(*names)
    assert hint in caught.value.hint


def test_a_file_beyond_the_hubs_own_limit(server: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MAX_FILE_BYTES", 100)
    assert "is larger than" in refused().message


def test_a_gguf_file_is_found_by_name(server: StandInHub) -> None:
    server.files = {"README.md": CARD, "tiny.Q4_K_M.gguf": b"GGUF", "tiny.Q8_0.gguf": b"GGUF8"}
    folder = get(gguf="q4_k_m")
    assert shelf.find(REPO) == folder
    assert shelf.find(f"{REPO}/tiny.Q4_K_M.gguf") == folder / "tiny.Q4_K_M.gguf" == shelf.gguf_file(folder)
    assert (shelf.info(REPO).kind, shelf.info(REPO).licence) == ("gguf", "apache-2.0")
    with pytest.raises(ConjureError) as caught:
        shelf.find(f"{REPO}/tiny.Q8_0.gguf")
    assert f"conjure models get {REPO} --gguf tiny.Q8_0.gguf" in caught.value.hint


# -- removing -------------------------------------------------------------------------------------------------


def test_removing_all_of_a_model(server: StandInHub, tmp_path: Path) -> None:
    folder = get()
    gone = hub.removal(REPO)
    assert gone.bytes == sum(path.stat().st_size for path in folder.iterdir()) + 40
    hub.remove(gone)
    assert shelf.installed() == [] and list((tmp_path / "hub").glob("models--*")) == []
    with pytest.raises(ConjureError, match="is not in"):
        hub.removal(REPO)


def test_removing_one_revision_keeps_what_another_uses(server: StandInHub, tmp_path: Path) -> None:
    old = get()
    changed = b'{"model_type": "qwen2"}'
    server.commit, server.files["config.json"] = "2" * 40, changed
    new = get()
    gone = hub.removal(f"{REPO}@{'2' * 40}")
    assert gone.bytes == len(changed)
    hub.remove(gone)
    assert not new.exists() and (old / "model.safetensors").read_bytes() == WEIGHTS
    assert len(blobs(tmp_path)) == 4 and shelf.find(REPO) == old


def test_removing_what_is_half_fetched(server: StandInHub, tmp_path: Path) -> None:
    server.cut = [4000] + [0] * 20
    refused()
    hub.remove(hub.removal(REPO))
    assert list((tmp_path / "hub").glob("models--*")) == []


@pytest.mark.parametrize("name", ["starter/story", "..", "org/../..", "org/other", "org/.."])
def test_nothing_else_is_removed(server: StandInHub, name: str) -> None:
    get()
    with pytest.raises(ConjureError, match="is not in"):
        hub.removal(name)
