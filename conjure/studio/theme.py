"""How the studio looks: few colours, the system's own fonts, light or dark as the system says, narrow screens too."""

from __future__ import annotations

import gradio as gr
from gradio.themes.utils.fonts import Font

INK = gr.themes.Color(
    name="ink", c50="#f7f7f5", c100="#eeeeeb", c200="#dfdfda", c300="#c6c6bf", c400="#92928a", c500="#6c6c65",
    c600="#54544e", c700="#3d3d39", c800="#282825", c900="#1c1c1a", c950="#131312",
)  # fmt: skip
LEAF = gr.themes.Color(
    name="leaf", c50="#eef6f3", c100="#d5eae2", c200="#abd5c6", c300="#7bbba5", c400="#4b9d84", c500="#2a8069",
    c600="#1c6b56", c700="#175646", c800="#134538", c900="#0f382e", c950="#08221c",
)  # fmt: skip
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


def theme() -> gr.themes.Base:
    """Colours, sizes and fonts. Every pair of text and ground has a contrast of at least 4.5."""
    made = gr.themes.Base(
        primary_hue=LEAF, secondary_hue=LEAF, neutral_hue=INK, spacing_size="md", radius_size="md", text_size="md",
        font=[Font(name) for name in SANS], font_mono=[Font(name) for name in MONO],
    )  # fmt: skip
    return made.set(
        body_background_fill="*neutral_50", body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900", body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300",
        background_fill_primary="white", background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50", background_fill_secondary_dark="*neutral_800",
        border_color_primary="*neutral_200", border_color_primary_dark="*neutral_700",
        block_background_fill="white", block_background_fill_dark="*neutral_900",
        block_border_width="1px", block_border_color="*neutral_200", block_border_color_dark="*neutral_700",
        block_label_background_fill="white", block_label_background_fill_dark="*neutral_900",
        block_label_text_color="*neutral_700", block_label_text_color_dark="*neutral_200",
        block_label_border_width="0px", block_label_text_size="*text_sm",
        block_title_text_color="*neutral_800", block_title_text_color_dark="*neutral_100",
        block_title_text_weight="600", block_title_text_size="*text_md",
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300",
        block_info_text_size="*text_sm",
        block_shadow="none", block_shadow_dark="none",
        input_background_fill="white", input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_300", input_border_color_dark="*neutral_600", input_border_width="1px",
        input_border_color_focus="*primary_500", input_border_color_focus_dark="*primary_400",
        input_placeholder_color="*neutral_500", input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600", button_primary_background_fill_dark="*primary_300",
        button_primary_background_fill_hover="*primary_700", button_primary_background_fill_hover_dark="*primary_200",
        button_primary_text_color="white", button_primary_text_color_dark="*neutral_950",
        button_secondary_background_fill="*neutral_100", button_secondary_background_fill_dark="*neutral_700",
        button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_hover_dark="*neutral_600",
        button_secondary_text_color="*neutral_900", button_secondary_text_color_dark="*neutral_100",
        button_cancel_background_fill="white", button_cancel_background_fill_dark="*neutral_900",
        button_cancel_background_fill_hover="#fdecec", button_cancel_background_fill_hover_dark="#3a1d1d",
        button_cancel_text_color="#a02020", button_cancel_text_color_dark="#ff9c94",
        button_cancel_border_color="#d9a3a3", button_cancel_border_color_dark="#7d4242",
        button_large_text_size="*text_md", button_large_padding="9px 16px", button_medium_padding="7px 10px",
        checkbox_label_text_size="*text_sm", slider_color="*primary_600", slider_color_dark="*primary_400",
        color_accent_soft="*primary_100", color_accent_soft_dark="*primary_900",
        link_text_color="*primary_700", link_text_color_dark="*primary_300", stat_background_fill="*primary_500",
    )  # fmt: skip


CSS = """
.gradio-container { max-width: 1240px !important; padding: 0 20px 40px !important; }
.gradio-container main { padding: 10px 0 0 !important; max-width: none !important; }
.gradio-container footer { display: none !important; }
.gradio-container .html-container { padding: 0 !important; }
.gradio-container .prose h2 { font-size: 17px; margin: 4px 0 8px; }
.gradio-container .prose h3 { font-size: 15px; margin: 16px 0 8px; }
#head { display: flex; align-items: baseline; gap: 12px; padding: 2px 0 0; }
#head h1 { font-size: 20px; font-weight: 650; letter-spacing: -0.01em; margin: 0; }
#head p { margin: 0; font-size: 14px; color: var(--body-text-color-subdued); }
:focus-visible { outline: 2px solid var(--color-accent) !important; outline-offset: 2px; }
.tab-container button[role=tab] { font-size: 15px; }
.tab-container button[role=tab].selected { color: var(--primary-700); }
.dark .tab-container button[role=tab].selected { color: var(--primary-300); }
.status { min-height: 24px; font-size: 15px; line-height: 24px; }
.status p { margin: 0 0 4px; }
.status progress { width: 100%; display: block; margin: 6px 0 4px; }
.gradio-container progress { appearance: none; height: 8px; border: 0; border-radius: 4px; overflow: hidden;
  color: var(--primary-600); background: var(--border-color-primary); }
.gradio-container progress::-webkit-progress-bar { background: transparent; }
.gradio-container progress::-webkit-progress-value { background: var(--primary-600); }
.gradio-container progress::-moz-progress-bar { background: var(--primary-600); }
.gradio-container progress:indeterminate { animation: to-and-fro 1.6s ease-in-out infinite alternate;
  background: linear-gradient(90deg, transparent, var(--primary-600), transparent) 0 0 / 40% 100% no-repeat
  var(--border-color-primary); }
.gradio-container progress:indeterminate::-moz-progress-bar { background: transparent; }
@keyframes to-and-fro { to { background-position: 100% 0; } }
@media (prefers-reduced-motion: reduce) { .gradio-container progress:indeterminate { animation: none; } }
.status .wrong { padding: 8px 12px; border-radius: 8px; border: 1px solid #d9a3a3; background: #fdf3f3;
  color: #8c1c1c; }
.status .warned { color: #7a5200; }
.dark .status .wrong { border-color: #7d4242; background: #2c1717; color: #ffb3ad; }
.dark .status .warned { color: #efc56a; }
.gradio-container .prose table { border-collapse: collapse; font-size: 14px; width: 100%; margin: 0; }
.gradio-container .prose :is(table, thead, tbody, tr, th, td) { border: 0 !important; }
.gradio-container .prose :is(th, td) { text-align: left; vertical-align: top; padding: 6px 16px 6px 0; }
.gradio-container .prose th { font-weight: 600; white-space: nowrap; }
.gradio-container .prose tbody tr { border-top: 1px solid var(--border-color-primary) !important; }
.gradio-container .prose .facts tbody tr:first-child { border-top: 0 !important; }
.gradio-container .prose .facts td { overflow-wrap: anywhere; white-space: pre-wrap; width: 100%; }
.wide { overflow-x: auto; }
.quiet, .quiet p { font-size: 14px; margin: 0; color: var(--body-text-color-subdued); }
.ask { font-size: 15px; }
.sure { padding: 12px 14px; border: 1px solid var(--border-color-primary); border-radius: 8px; gap: 8px !important; }
.tight { gap: 8px !important; }
.row-wrap { flex-wrap: wrap; }
pre.card { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13.5px; line-height: 1.5; margin: 0;
  max-height: 480px; overflow: auto; padding: 12px; border: 1px solid var(--border-color-primary); border-radius: 8px;
  background: var(--background-fill-secondary); color: var(--body-text-color); }
details summary { cursor: pointer; font-size: 14px; padding: 8px 0; }
#make-files .wrap { font-size: 14px; padding: 4px; gap: 2px; line-height: 1.4; }
#make-files .icon-wrap, #make-files .or { display: none; }
#make-gallery .thumbnail-item { height: 200px; aspect-ratio: auto; }
#make-gallery .grid-container[style*="--grid-cols: 1"] .thumbnail-item { height: 408px; }
#past-status .status { min-height: 0; }
.gallery-item .caption-label { opacity: 1 !important; max-width: 100%; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
#past-picture img { width: 100%; height: 100%; object-fit: contain; }
#away { position: fixed; inset: auto 0 0 0; z-index: 10000; padding: 12px 20px; font-size: 15px; text-align: center;
  background: #3a2a00; color: #ffe9b0; }
#away[hidden] { display: none; }
@media (max-width: 640px) {
  .gradio-container { padding: 0 10px 32px !important; }
  #head p { display: none; }
  #past-gallery .grid-container { grid-template-columns: repeat(3, minmax(0, 1fr)) !important; }
}
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
"""

HEAD = """
<title>conjure studio</title>
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Ccircle
 cx='16' cy='16' r='14' fill='%231c6b56'/%3E%3Cpath d='M10 21 16 8l6 13-6-4z' fill='white'/%3E%3C/svg%3E">
<style>
gradio-app:not(:has(main, .gradio-container))::before { content: "conjure: the studio opens"; display: block;
  padding: 20px 24px; font: 600 19px system-ui, sans-serif; }
</style>
<script>
// Ctrl+Enter presses the main button of the open page.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  const button = [...document.querySelectorAll("button.go")].find((each) => each.offsetParent !== null);
  if (!button) return;
  event.preventDefault();
  event.stopPropagation();
  setTimeout(() => button.click(), 50);
}, true);

// Gradio names what is empty on elements that may not have a name: as pictures they may.
new MutationObserver(() => {
  for (const each of document.querySelectorAll(".empty[aria-label]:not([role])")) each.setAttribute("role", "img");
}).observe(document.documentElement, { childList: true, subtree: true });

// On a narrow screen the result is below: there we go when it is being made.
document.addEventListener("click", (event) => {
  if (window.innerWidth < 700 && event.target.closest("#make-go, #make-another"))
    document.getElementById("make-status")?.scrollIntoView({ block: "start" });
});

// When the server goes away a line says so, and when another one is there the page begins anew.
(() => {
  let first = null, away = false;
  const line = document.createElement("div");
  line.id = "away";
  line.hidden = true;
  line.setAttribute("role", "alert");
  async function look() {
    try {
      const answer = await fetch("gradio_api/app_id", { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const id = (await answer.json()).app_id;
      if (first !== null && id !== first) { location.reload(); return; }
      first = id;
      away = false;
    } catch {
      away = true;
    }
    if (away && !line.isConnected) document.body.append(line);
    line.textContent = away ? "The server does not answer. The page goes on as soon as it is back." : "";
    line.hidden = !away;
    setTimeout(look, away ? 1000 : 3000);
  }
  look();
})();
</script>
"""
