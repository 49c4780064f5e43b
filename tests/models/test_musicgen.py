"""A tiny random MusicGen against transformers: logits of a text, and the codes and sound of guided greedy writing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from conjure.core.errors import ConjureError
from conjure.decoding.delay_pattern import Drawing, write
from conjure.models.checkpoint import Checkpoint
from conjure.models.musicgen import Guided, MusicGen
from conjure.models.public.load import build
from tests.models.codecs import encodec_config
from tests.models.public.references import close, randomised, saved


def musicgen(folder: Path, *, wide: int = 32, channels: int = 1) -> Path:
    """T5, codec and decoder of a few thousand parameters; with `wide` 24 nothing is between T5 and decoder."""
    text = tf.T5Config(vocab_size=96, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=3, feed_forward_proj="relu")
    codec = encodec_config(target_bandwidths=[14.0], codebook_size=32, normalize=False)
    decoder = tf.MusicgenDecoderConfig(
        vocab_size=32, num_hidden_layers=2, ffn_dim=48, num_attention_heads=4, hidden_size=wide,
        num_codebooks=4 * channels, audio_channels=channels, pad_token_id=32, bos_token_id=32,
        max_position_embeddings=99,
    )  # fmt: skip
    config = tf.MusicgenConfig(text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict())
    model: Any = randomised(tf.MusicgenForConditionalGeneration(config))
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if name.endswith("codebook.embed"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
    model.generation_config.update(
        pad_token_id=32, bos_token_id=32, decoder_start_token_id=32, do_sample=False, guidance_scale=3.0, max_length=20
    )
    return saved(model, folder)


def loaded(folder: Path) -> tuple[Any, MusicGen]:
    network, report = build(json.loads((folder / "config.json").read_text()), Checkpoint(folder), torch.float32)
    assert isinstance(network, MusicGen) and report.family == "musicgen"
    return tf.MusicgenForConditionalGeneration.from_pretrained(folder).eval(), network


@pytest.mark.parametrize("wide", [24, 32])
@torch.no_grad()
def test_logits(tmp_path: Path, wide: int) -> None:
    theirs, ours = loaded(musicgen(tmp_path, wide=wide))
    generator = torch.Generator().manual_seed(2)
    ids_BM = torch.randint(3, 96, (2, 7), generator=generator)
    mask_BM = torch.ones(2, 7, dtype=torch.long)
    mask_BM[1, 4:] = 0
    codes_BQS = torch.randint(33, (2, 4, 6), generator=generator)
    wanted = theirs(input_ids=ids_BM, attention_mask=mask_BM, decoder_input_ids=codes_BQS.flatten(0, 1)).logits
    x_BSD = ours.writer.hidden(codes_BQS, memory=ours.read(ids_BM, mask_BM), memory_mask=mask_BM)
    close(ours.writer.logits(x_BSD), wanted.unflatten(0, (2, 4)))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@torch.no_grad()
def test_written_codes_and_their_sound(tmp_path: Path, channels: int, guidance: float) -> None:
    theirs, ours = loaded(musicgen(tmp_path, channels=channels))
    ids_1M = torch.tensor([[5, 17, 40, 1]])
    frames = 9
    kept: list[torch.Tensor] = []
    real = theirs.audio_encoder.decode

    def listening(codes: torch.Tensor, **more: Any) -> Any:
        kept.append(codes[0])
        return real(codes, **more)

    theirs.audio_encoder.decode = listening
    wanted = theirs.generate(
        input_ids=ids_1M, attention_mask=torch.ones_like(ids_1M), do_sample=False, guidance_scale=guidance,
        max_length=frames + 4,
    )  # fmt: skip
    codes_BQT = kept[0] if channels == 1 else torch.stack(kept, 2).flatten(1, 2)
    guided, none_BQT = Guided(ours, ours.read(ids_1M), guidance), torch.zeros(1, 4 * channels, 0, dtype=torch.long)
    how = Drawing(temperature=0)
    *_, (done, found) = write(guided, none_BQT, frames, 32, [0], how, together=channels)
    assert done == frames and torch.equal(found, codes_BQT) and len(found.unique()) > 4
    close(ours.sound(found), wanted)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    config = json.loads((musicgen(tmp_path) / "config.json").read_text())
    for part, change, message in (
        ("text_encoder", {"model_type": "bert"}, "'bert'"), ("audio_encoder", {"model_type": "dac"}, "'dac'"),
        ("decoder", {"scale_embedding": True}, "scale_embedding"), ("decoder", {"ffn_dim": 40}, "misshapen"),
        ("audio_encoder", {"chunk_length_s": 1.0, "overlap": 0.1}, "reads all at once"),
    ):  # fmt: skip
        with pytest.raises(ConjureError, match=message):
            build({**config, part: {**config[part], **change}}, Checkpoint(tmp_path), torch.float32)
