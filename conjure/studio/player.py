"""A sound with its waveform and what is said in it: the text follows the sound, and a click on a word goes there.

The browser's own player plays; the lines below the waveform are marked by `SCRIPT`, which stands in the page's head.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from conjure import media
from conjure.core.errors import ConjureError
from conjure.media.audio import Audio
from conjure.media.captions import SPACELESS
from conjure.studio.showing import placed

PLAYED = frozenset({".wav", ".mp3", ".ogg", ".opus", ".flac"})
"""Files that browsers play as they are."""
COLUMNS = 480
"""Of the waveform: as many as its place has pixels, more or less."""

STYLE = """
.listening { --at: 0%; }
.listening audio { width: 100%; height: 40px; margin: 4px 0 8px; }
.listening .wave { position: relative; height: 72px; cursor: pointer; border-radius: 8px; overflow: hidden;
  border: 1px solid var(--border-color-primary); background: var(--background-fill-secondary); }
.listening .wave svg { position: absolute; inset: 0; width: 100%; height: 100%; stroke: var(--neutral-400); }
.listening .wave .played { stroke: var(--primary-500); clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.listening .said { max-height: 420px; overflow-y: auto; position: relative; font-size: 16px; line-height: 1.6;
  padding: 4px 12px; border: 1px solid var(--border-color-primary); border-radius: 8px; }
.listening .said p { margin: 6px 0; padding-left: 64px; text-indent: -64px; }
.listening .said button { width: 56px; margin-right: 8px; text-indent: 0; text-align: left; font-size: 13px;
  font-variant-numeric: tabular-nums; color: var(--link-text-color); background: none; border: 0; cursor: pointer; }
.listening .said [data-start] { cursor: pointer; }
.listening .said em { font-style: normal; font-weight: 600; margin-right: 4px; }
.gradio-container :is(#time, #duration, .playback span) { color: var(--body-text-color-subdued) !important; }
.listening .said span.now { background: color-mix(in srgb, var(--primary-400) 30%, transparent);
  border-radius: 3px; }
"""

SCRIPT = """
<script>
// What is said follows the sound: the word that is spoken is marked, and a click on one goes there.
(() => {
  const known = new WeakMap();
  function words(page) {
    if (!known.has(page)) known.set(page, [...page.querySelectorAll(".said span[data-start]")]);
    return known.get(page);
  }
  function mark(player) {
    const page = player.closest(".listening"), at = player.currentTime;
    page.style.setProperty("--at", `${player.duration ? 100 * at / player.duration : 0}%`);
    const all = words(page);
    let low = 0, high = all.length;
    while (low < high) {  // the first word that begins later
      const middle = (low + high) >> 1;
      if (Number(all[middle].dataset.start) <= at) low = middle + 1; else high = middle;
    }
    const now = low && at < Number(all[low - 1].dataset.end) ? all[low - 1] : null;
    const before = page.querySelector("span.now");
    if (before === now) return;
    before?.classList.remove("now");
    if (!now) return;
    now.classList.add("now");
    const said = page.querySelector(".said"), line = now.parentElement;
    const above = line.offsetTop < said.scrollTop;
    if (above || line.offsetTop + line.offsetHeight > said.scrollTop + said.clientHeight)
      said.scrollTop = line.offsetTop - said.clientHeight / 3;
  }
  function run(player) {
    if (!player.isConnected) return;
    mark(player);
    if (!player.paused) requestAnimationFrame(() => run(player));
  }
  for (const name of ["play", "seeked", "timeupdate"])
    document.addEventListener(name, (event) => {
      if (event.target.closest?.(".listening")) run(event.target);
    }, true);
  document.addEventListener("click", (event) => {
    const page = event.target.closest(".listening"), player = page?.querySelector("audio");
    if (!player) return;
    const wave = event.target.closest(".wave"), word = event.target.closest("[data-start]");
    if (wave && player.duration) {
      const box = wave.getBoundingClientRect();
      player.currentTime = player.duration * (event.clientX - box.left) / box.width;
    } else if (word) player.currentTime = Number(word.dataset.start);
  });
})();
</script>
"""


def player(sound: Audio, path: str, segments: Sequence[Mapping[str, Any]] = ()) -> str:
    """The HTML of a sound whose file the page may fetch from `path`. Segments are those of a transcript's JSON: `start`
    and `end` in seconds, `text`, `words` with the same where they are known, and `speaker`. All of it escaped."""
    source = html.escape(f"gradio_api/file={quote(path)}")
    lines = "".join(map(_line, segments))
    said = f'<div class="said" tabindex="0" role="region" aria-label="What is said">{lines}</div>' if lines else ""
    wave = _waveform(peaks(sound.mono(), COLUMNS))
    return (
        f'<div class="listening"><div class="wave" aria-hidden="true">{wave}'
        f'{wave.replace("<svg", "<svg class=played", 1)}</div>'
        f'<audio controls preload="auto" src="{source}" aria-label="The sound"></audio>{said}</div>'
    )


def heard(path: str) -> tuple[Audio, str]:
    """The sound in a file that a reader sent, and the path of one that browsers play; `ConjureError` where it is no
    sound."""
    data = Path(path).read_bytes()
    sound = media.read(data)
    if not isinstance(sound, Audio):
        raise ConjureError(f"expected a sound, got {sound.kind}")
    if Path(path).suffix.lower() in PLAYED:
        return sound, path
    return sound, placed(media.encode(sound, ".wav", None), "sound.wav")


def peaks(samples_N: np.ndarray, columns: int) -> np.ndarray:
    """The largest sizes of the samples in as many equal parts, at most 1; fewer where there are fewer samples."""
    count = min(columns, len(samples_N))
    starts = np.arange(count) * len(samples_N) // count
    return np.minimum(np.maximum.reduceat(np.abs(samples_N), starts), 1.0)


def _waveform(peaks_C: np.ndarray) -> str:
    """One line up and down for each column."""
    sizes = np.maximum(np.sqrt(peaks_C) * 48, 0.5)  # the root: soft speech is seen beside loud speech
    lines = "".join(f"M{place + 0.5} {50 - size:.1f}V{50 + size:.1f}" for place, size in enumerate(sizes))
    return (f'<svg viewBox="0 0 {len(sizes)} 100" preserveAspectRatio="none">'
            f'<path d="{lines}" stroke-width="0.7"/></svg>')  # fmt: skip


def _line(segment: Mapping[str, Any]) -> str:
    words = segment.get("words") or [segment]
    gap = "" if segment.get("language") in SPACELESS else " "
    spans = gap.join(
        f'<span data-start="{word["start"]}" data-end="{word["end"]}">{html.escape(str(word["text"]).strip())}</span>'
        for word in words
    )
    when = _clock(float(segment["start"]))
    who = f'<em>{html.escape(str(segment["speaker"]))}</em> ' if segment.get("speaker") else ""
    return f'<p><button type="button" data-start="{segment["start"]}">{when}</button>{who}{spans}</p>'


def _clock(seconds: float) -> str:
    """`1:05`, `1:00:05`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
