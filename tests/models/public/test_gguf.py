from __future__ import annotations

import functools
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from conjure.core.errors import ConjureError
from conjure.models.public.gguf import GgufFile
from conjure.models.public.load import laid_out
from conjure.nn.quantised import QuantisedLinear
from tests.models.public.gguf_writing import MODELS, build, write

Type = gguf.GGMLQuantizationType
Built = Callable[[str], tuple[Any, dict[str, torch.Tensor]]]
IDS = torch.tensor([[1, 17, 5, 80, 3, 41, 9, 12, 95, 7, 33, 2]])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The random model of a family and the tensors of its file, made once."""
    return functools.cache(lambda name: build(name, tmp_path_factory.mktemp("hub")))


@pytest.fixture
def llama(tmp_path: Path, built: Built) -> Path:
    return write(tmp_path / "m.gguf", "llama", *built("llama"))


# -- every architecture -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_file_gives_back_the_folder_it_was_made_from(tmp_path: Path, built: Built, name: str) -> None:
    """Names, shapes and values are those of the hub's file, and transformers computes the same with what came back."""
    model, tensors = built(name)
    file = GgufFile(write(tmp_path / "m.gguf", name, model, tensors))
    prefix = {"gpt2": "transformer.", "bloom": "transformer.", "falcon": "transformer."}.get(name.split("-")[0], "")
    hub = {(n if n.startswith((prefix, "lm_head")) else prefix + n): data for n, data in tensors.items()}
    assert sorted(file.names()) == sorted(hub)
    for each, data in hub.items():
        assert file.shape(each) == tuple(data.shape)
        torch.testing.assert_close(file.tensor(each), data, rtol=0, atol=1e-6 if name.startswith("gemma") else 0)
    again = tmp_path / "again"
    again.mkdir()
    (again / "config.json").write_text(json.dumps(file.config))
    save_file({n: file.tensor(n) for n in file.names()}, again / "model.safetensors", metadata={"format": "pt"})
    assert file.config["model_type"] == model.config.model_type
    assert file.config["architectures"] == [type(model).__name__]
    other = type(model).from_pretrained(again, attn_implementation="eager").eval()
    with torch.no_grad():
        expected, got = model(IDS).logits, other(IDS).logits
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_the_config_says_what_the_file_says(tmp_path: Path, llama: Path) -> None:
    config = GgufFile(llama).config
    expected = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 96, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 8, "rms_norm_eps": 1e-6, "rope_theta": 5000.0, "tie_word_embeddings": False, "bos_token_id": 1,
        "eos_token_id": 2, "attention_bias": True, "mlp_bias": True, "max_position_embeddings": 64,
    }  # fmt: skip
    assert {name: config[name] for name in expected} == expected


def test_llama_3s_frequencies_are_found_from_their_factors(tmp_path: Path) -> None:
    """The factors of transformers' own llama3 rule give its four numbers back; others are kept as they are."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    options = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 8192}  # fmt: skip
    config = transformers.LlamaConfig(head_dim=64, num_attention_heads=1, hidden_size=64, rope_parameters=options,
                                      max_position_embeddings=131072)  # fmt: skip
    frequency, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    factors = (500000.0 ** (-np.arange(0, 64, 2) / 64) / frequency.numpy()).astype(np.float32)
    for data, kind in ((factors, "llama3"), (factors * 1.5, "longrope")):
        writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
        writer.add_embedding_length(64)
        writer.add_block_count(1)
        writer.add_head_count(1)
        writer.add_feed_forward_length(8)
        writer.add_rope_freq_base(500000.0)
        writer.add_tensor("token_embd.weight", np.zeros((4, 64), np.float32))
        writer.add_tensor("rope_freqs.weight", data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        said = GgufFile(tmp_path / "m.gguf").config["rope_scaling"]
        assert said["rope_type"] == kind
        if kind == "llama3":
            assert said == {name: value for name, value in options.items() if name != "rope_theta"}
        else:
            assert np.allclose(said["long_factor"], data)


# -- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [
    *(("llama", kind) for kind in (Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q5_0, Type.Q4_1)),
    *((name, kind) for name in ("gpt2", "mixtral", "gptneox") for kind in (Type.F16, Type.Q8_0)),
])  # fmt: skip
def test_quantised_matrices(tmp_path: Path, built: Built, name: str, kind: Type) -> None:
    """Each value is what the package's quantisation makes of the tensor as it was stored."""
    model, tensors = built(name)
    file = GgufFile(write(tmp_path / "m.gguf", name, model, tensors, stored=lambda name, data: kind))
    tolerance = {Type.F16: 1e-3, Type.BF16: 1e-2, Type.Q8_0: 1e-2}.get(kind, 0.15)
    for each in file.names():
        hub = tensors.get(each, tensors.get(each.removeprefix("transformer.")))
        assert hub is not None
        got = file.tensor(each)
        assert float((got - hub).abs().max()) <= tolerance * float(hub.abs().max())
        assert file.type(each) == (kind.name if hub.ndim > 1 else "F32")
        assert torch.equal(file.tensor(each, torch.bfloat16), got.bfloat16())


@pytest.mark.parametrize("kind", [Type.Q8_0, Type.Q4_0])
@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", "gptneox"])
def test_packed_matrices_are_the_same_numbers(tmp_path: Path, built: Built, name: str, kind: Type) -> None:
    model, tensors = built(name)
    file = GgufFile(write(tmp_path / "m.gguf", name, model, tensors, stored=lambda name, data: kind))
    for each in file.names():
        found, whole = file.packed(each), file.tensor(each)
        if whole.ndim == 1:
            assert found is None
            continue
        assert found is not None
        packed, q, scale = found
        if packed == "int8":
            assert q.dtype == torch.int8
            values = q.float()
        else:
            assert q.dtype == torch.uint8
            values = torch.stack([q & 15, q >> 4], dim=-1).flatten(1).float() - 8
        back = values.unflatten(1, (-1, 32)) * scale.float()[..., None]
        turned = name == "gpt2" and "h." in each
        assert torch.equal(back.flatten(1), whole.T if turned else whole)


def test_what_is_not_of_these_types_is_not_packed(tmp_path: Path, llama: Path) -> None:
    file = GgufFile(llama)
    assert all(file.packed(name) is None for name in file.names())


def test_large_tensors_are_read_in_pieces(tmp_path: Path, built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tensors = built("llama")
    file = GgufFile(write(tmp_path / "m.gguf", "llama", model, tensors, stored=lambda name, data: Type.Q8_0))
    whole = {name: file.tensor(name) for name in file.names()}
    monkeypatch.setattr("conjure.models.public.gguf._PIECE", 96)
    assert all(torch.equal(file.tensor(name), whole[name]) for name in whole)


# The k-quantisations by their definition (ggml-quants.c): 256 values a block, in parts with scales of 6 bits, or 8.


def six_bits(packed: np.ndarray) -> tuple[list[int], list[int]]:
    """get_scale_min_k4: eight scales and eight minima out of 12 bytes."""
    scales, minima = [], []
    for j in range(8):
        if j < 4:
            scales.append(int(packed[j]) & 63)
            minima.append(int(packed[j + 4]) & 63)
        else:
            scales.append((int(packed[j + 4]) & 15) | (int(packed[j - 4]) >> 6) << 4)
            minima.append((int(packed[j + 4]) >> 4) | (int(packed[j]) >> 6) << 4)
    return scales, minima


def q4_k(block: np.ndarray) -> list[float]:
    d, least = (float(x) for x in block[:4].copy().view(np.float16))
    scales, minima = six_bits(block[4:16])
    out = []
    for pair in range(4):
        part = block[16 + 32 * pair : 48 + 32 * pair]
        for half in range(2):
            j = 2 * pair + half
            out += [d * scales[j] * ((int(b) >> 4 * half) & 15) - least * minima[j] for b in part]
    return out


def q5_k(block: np.ndarray) -> list[float]:
    d, least = (float(x) for x in block[:4].copy().view(np.float16))
    scales, minima = six_bits(block[4:16])
    high = block[16:48]
    out = []
    for pair in range(4):
        part = block[48 + 32 * pair : 80 + 32 * pair]
        for half in range(2):
            j = 2 * pair + half
            fifth = [(int(h) >> j & 1) << 4 for h in high]
            out += [d * scales[j] * (((int(b) >> 4 * half) & 15) + f) - least * minima[j]
                    for b, f in zip(part, fifth, strict=True)]  # fmt: skip
    return out


def q6_k(block: np.ndarray) -> list[float]:
    low, high, scales = block[:128], block[128:192], block[192:208].view(np.int8)
    d = float(block[208:210].copy().view(np.float16)[0])
    out = [0.0] * 256
    for half in range(2):
        for i in range(32):
            for quarter in range(4):
                byte = int(low[64 * half + i + 32 * (quarter % 2)])
                number = (byte >> 4 * (quarter // 2)) & 15 | (int(high[32 * half + i]) >> 2 * quarter & 3) << 4
                at = 128 * half + 32 * quarter + i
                out[at] = d * int(scales[at // 16]) * (number - 32)
    return out


@pytest.mark.parametrize(("kind", "size", "definition"), [
    (Type.Q4_K, 144, q4_k), (Type.Q5_K, 176, q5_k), (Type.Q6_K, 210, q6_k),
])  # fmt: skip
def test_k_quantisations_by_their_definition(tmp_path: Path, kind: Type, size: int, definition: Any) -> None:
    rng = np.random.default_rng(5)
    blocks = rng.integers(0, 256, (6, 2, size), dtype=np.uint8)  # six rows of two blocks of random bits
    for at in {Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208,)}[kind]:
        blocks[..., at : at + 2] = rng.uniform(0.001, 0.1, (6, 2, 1)).astype(np.float16).view(np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen2")
    writer.add_embedding_length(512)
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_feed_forward_length(8)
    writer.add_tensor("token_embd.weight", blocks.reshape(6, 2 * size), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(tmp_path / "m.gguf")
    expected = torch.tensor([[value for block in row for value in definition(block)] for row in blocks])
    got = file.tensor("model.embed_tokens.weight")
    assert got.shape == (6, 512) == file.shape("model.embed_tokens.weight")
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert file.packed("model.embed_tokens.weight") is None


# -- files that are none ----------------------------------------------------------------------------------------------


def broken(path: Path) -> ConjureError:
    with pytest.raises(ConjureError) as caught:
        file = GgufFile(path)
        for name in file.names():
            file.tensor(name)
    assert caught.value.hint
    return caught.value


def test_a_file_cut_anywhere_is_no_file(tmp_path: Path, llama: Path) -> None:
    data = llama.read_bytes()
    path = tmp_path / "cut.gguf"
    for length in (0, 3, 8, 20, 30, 100, 500, 1500, len(data) // 2, len(data) - 40):
        path.write_bytes(data[:length])
        assert "no whole GGUF file" in broken(path).message, length


@pytest.mark.parametrize("data", [
    b"GGML" + bytes(60), b"PK\3\4" + bytes(60), b"GGUF" + struct.pack("<I", 1) + bytes(60),
    b"GGUF" + struct.pack("<I", 99) + bytes(60),
    b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
    b"GGUF" + struct.pack("<IQQ", 3, (1 << 64) - 1, (1 << 64) - 1) + bytes(64),
])  # fmt: skip
def test_another_magic_version_or_an_absurd_count(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    assert "no whole GGUF file" in broken(path).message


def entry(kind: int, value: bytes) -> bytes:
    return (
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 1)
        + struct.pack("<Q", 1)
        + b"k"
        + struct.pack("<I", kind)
        + value
        + bytes(40)
    )


@pytest.mark.parametrize("value", [
    entry(9, struct.pack("<IQ", 4, 1 << 60)), entry(9, struct.pack("<IQ", 8, 1 << 60)),
    entry(9, struct.pack("<IQQ", 8, 1, 1 << 62)), entry(9, struct.pack("<IQ", 9, 3)),
    entry(9, struct.pack("<IQ", 77, 3)),
    entry(8, struct.pack("<Q", 1 << 62)), entry(55, b""), entry(9, struct.pack("<IQQ", 8, 1, 2) + b"\xff\xff"),
])  # fmt: skip
def test_absurd_values(tmp_path: Path, value: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(value)
    with pytest.raises(ConjureError):
        GgufFile(path)


def plain(path: Path, arch: str = "llama", extra: dict[str, np.ndarray] | None = None, **keys: Any) -> Path:
    writer = gguf.GGUFWriter(path, arch)
    for name, value in {"embedding_length": 32, "block_count": 1, "attention.head_count": 4, **keys}.items():
        key = name if name.startswith("split.") else f"{arch}.{name}"
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    for name, data in {"token_embd.weight": np.zeros((4, 32), np.float32), **(extra or {})}.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(("arch", "keys", "extra", "message"), [
    ("mamba", {}, {}, "architecture 'mamba'"),
    ("llama", {"feed_forward_length": "x"}, {}, "feed_forward_length"),
    ("llama", {}, {}, "feed_forward_length"),
    ("llama", {"feed_forward_length": 64, "attention.head_count": -1}, {}, "head_count"),
    ("llama", {"feed_forward_length": [64, 32]}, {}, "differs from layer to layer"),
    ("llama", {"feed_forward_length": 64}, {"blk.0.ssm_in.weight": np.zeros((2, 32), np.float32)}, "no place is known"),
    ("llama", {"feed_forward_length": 64}, {"blk.0.attn_q.weight": np.zeros((6, 32), np.float32)}, "expected 32 rows"),
    ("llama", {"feed_forward_length": 64, "split.count": 3}, {}, "one of 3 parts"),
])  # fmt: skip
def test_what_cannot_be_run_is_said(
    tmp_path: Path, arch: str, keys: dict[str, Any], extra: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ConjureError, match=message):
        GgufFile(plain(tmp_path / "m.gguf", arch, extra, **keys))


def test_other_misses(tmp_path: Path, llama: Path) -> None:
    with pytest.raises(ConjureError, match="there is no such file"):
        GgufFile(tmp_path / "nowhere.gguf")
    with pytest.raises(ConjureError) as caught:
        GgufFile(llama).tensor("model.norm.weigth")
    assert "did you mean 'model.norm.weight'?" in caught.value.hint
    with pytest.raises(ConjureError, match=r"I8 cannot be read"):
        writer_path = plain(tmp_path / "i.gguf", extra={"output.weight": np.zeros((4, 32), np.int8)},
                            feed_forward_length=64)  # fmt: skip
        GgufFile(writer_path).tensor("lm_head.weight")


@pytest.mark.parametrize(("kind", "weights"), [(Type.Q8_0, "int8"), (Type.Q4_0, "int4")])
def test_small_matrices_stay_as_the_file_has_them(kind: Any, weights: Any, tmp_path: Path) -> None:
    model, tensors = build("llama", tmp_path)
    file = GgufFile(write(tmp_path / "m.gguf", "llama", model, tensors, stored=lambda name, data: kind))
    loading = laid_out(file.config, file, torch.float32)
    loading.packed = weights
    loading.fill()
    down = loading.network.get_submodule("blocks.0.feedforward.down")
    assert isinstance(down, QuantisedLinear) and down.weights == weights
    assert torch.equal(down.weight, file.tensor("model.layers.0.mlp.down_proj.weight", torch.float32))
    plain = laid_out(file.config, file, torch.float32)
    plain.fill()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        wanted = plain.network(ids)
        assert (loading.network(ids) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
