"""The style sheet of a report: light, dark and printed. Colour is never the only difference."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --page: #ffffff; --text: #1d2126; --soft: #5b6470; --rule: #dfe3e8; --panel: #f6f7f9;
  --offline: #2f6fd0; --streaming: #d9702a; --truth: #59636e; --posterior: #b9c2cc; --heat: #d9702a;
  --line0: #2f6fd0; --line1: #d9702a; --line2: #2b8a5f; --line3: #8a4fb5; --line4: #b0862a; }
@media (prefers-color-scheme: dark) { :root {
  --page: #15181c; --text: #e6e9ec; --soft: #9aa4af; --rule: #333a42; --panel: #1d2126;
  --offline: #6fa5f5; --streaming: #f0975a; --truth: #b3bcc6; --posterior: #454e58; --heat: #d9702a;
  --line0: #6fa5f5; --line1: #f0975a; --line2: #5fc397; --line3: #c39be0; --line4: #dcb75f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 1120px; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.5rem 0 .35rem; overflow-wrap: anywhere; }
p { max-width: 46rem; margin: .5rem 0; }
.lead { font-size: 1.06rem; }
.soft, .ci { color: var(--soft); }
.ci { font-size: .86em; white-space: nowrap; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.tile { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; padding: .65rem .8rem; }
.tile b { display: block; font-size: 1.55rem; line-height: 1.25; }
.tile span { display: block; font-size: .83rem; color: var(--soft); }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .3rem .7rem; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: top; }
thead th { font-size: .8rem; font-weight: 600; color: var(--soft); vertical-align: bottom; }
tbody th { font-weight: 500; }
.numbers td { white-space: nowrap; } .numbers .ci { white-space: nowrap; }
.dense .ci { display: block; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums; }
.dense { font-size: .82rem; } .dense th, .dense td { padding: .25rem .5rem; }
.facts td { overflow-wrap: anywhere; } .facts tbody th { white-space: nowrap; }
dl { max-width: 46rem; margin: .75rem 0; } dt { font-weight: 600; } dd { margin: 0 0 .6rem; }
code { font: .88em/1.4 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
figure { margin: 1rem 0; overflow-x: auto; } figcaption { font-size: .88rem; color: var(--soft); max-width: 46rem; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .85rem; color: var(--soft); margin: .5rem 0; }
.legend i { display: inline-block; width: 22px; height: 10px; margin-right: .4rem; border-radius: 2px; }
.legend .posterior { background: var(--posterior); } .legend .truth { background: var(--truth); }
.legend .offline { background: var(--offline); } .legend .streaming { background: var(--streaming); }
svg { display: block; width: 100%; min-width: 620px; height: auto; font-size: 13px; }
svg text { fill: var(--text); } svg .small { font-size: 11px; fill: var(--soft); } svg .strong { fill: #fff; }
svg .tick { font-size: 11px; fill: var(--soft); } svg .name { font-size: 12px; fill: var(--soft); }
svg .heading { font-weight: 600; }
svg .grid { stroke: var(--rule); } svg .axis { stroke: var(--soft); }
svg .whisker { stroke: var(--text); stroke-width: 1.4; }
svg .dashed { stroke: var(--soft); stroke-dasharray: 4 3; }
svg .offline { fill: var(--offline); } svg .streaming { fill: var(--streaming); } svg .truth { fill: var(--truth); }
svg .posterior { fill: var(--posterior); fill-opacity: .6; }
svg .cell { fill: var(--panel); } svg .heat { fill: var(--heat); }
svg .line { fill: none; stroke-width: 2; }
svg .of-offline { stroke: var(--offline); } svg .of-streaming { stroke: var(--streaming); stroke-dasharray: 7 3; }
svg .line.line0 { stroke: var(--line0); } svg .dot.line0 { fill: var(--line0); }
svg .line.line1 { stroke: var(--line1); stroke-dasharray: 7 3; } svg .dot.line1 { fill: var(--line1); }
svg .line.line2 { stroke: var(--line2); stroke-dasharray: 2 3; } svg .dot.line2 { fill: var(--line2); }
svg .line.line3 { stroke: var(--line3); stroke-dasharray: 9 3 2 3; } svg .dot.line3 { fill: var(--line3); }
svg .line.line4 { stroke: var(--line4); stroke-dasharray: 12 4; } svg .dot.line4 { fill: var(--line4); }
@media print {
  :root { color-scheme: light; --page: #fff; --text: #000; --soft: #444; --rule: #ccc; --panel: #f4f4f4;
    --offline: #2f6fd0; --streaming: #d9702a; --truth: #59636e; --posterior: #b9c2cc; --line0: #2f6fd0;
    --line1: #d9702a; --line2: #2b8a5f; --line3: #8a4fb5; --line4: #b0862a; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { max-width: none; padding: 0; font-size: 11pt; }
  h2, h3 { break-after: avoid; } figure, .tile, tr { break-inside: avoid; }
  .wide, figure { overflow: visible; } svg { min-width: 0; }
  .dense, .dense thead th { font-size: 6.5pt; } .dense th, .dense td { padding: .15rem .2rem; }
}
"""
