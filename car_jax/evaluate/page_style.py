"""The report page's style sheet: one column on a phone, light and dark, printable."""

from car_jax.evaluate.svg import DARK, LIGHT, variables

CSS = (
  f':root{{color-scheme:light dark;{variables(LIGHT)}--wash:#f5f7f9;--mark:#eaf2fc}}'
  f'@media(prefers-color-scheme:dark){{:root{{{variables(DARK)}--wash:#1e252f;--mark:#1d2f47}}}}'
  """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);
  font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif}
main{max-width:1080px;margin:0 auto;padding:0 20px 80px}
header{max-width:1080px;margin:0 auto;padding:44px 20px 4px}
.kicker{font-size:13px;letter-spacing:.08em;text-transform:uppercase;color:var(--muted);margin:0}
h1{font-size:clamp(26px,4.4vw,38px);line-height:1.15;margin:6px 0 14px;letter-spacing:-.015em;
  overflow-wrap:anywhere}
h2{font-size:23px;line-height:1.25;margin:64px 0 6px;letter-spacing:-.01em}
h3{font-size:16px;margin:0;line-height:1.35;overflow-wrap:anywhere}
p{margin:8px 0 14px;max-width:72ch}
a{color:var(--s0)}
code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{overflow-wrap:anywhere}
pre{background:var(--wash);border-radius:8px;padding:14px 16px;overflow-x:auto;margin:10px 0}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:14px;padding:12px 0;
  border-block:1px solid var(--grid);margin-top:22px}
nav a{text-decoration:none}
nav a:hover{text-decoration:underline}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:14px 24px;
  margin:20px 0 0}
.facts div{min-width:0}
.facts dt{font-size:12.5px;color:var(--muted)}
.facts dd{margin:0;font-weight:600;overflow-wrap:anywhere}
.facts dd small{font-weight:400;color:var(--muted)}
.findings{background:var(--mark);border-radius:10px;padding:16px 20px;margin:26px 0 0;
max-width:none}
.findings p{margin:0;font-size:18px;font-weight:600;max-width:none}
.findings ul{margin:8px 0 0;padding-left:20px}
.note{color:var(--muted);font-size:14.5px}
.scroll{overflow-x:auto;margin:16px -20px;padding:0 20px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:9px 9px;font-size:15px;text-align:right;border-bottom:1px solid var(--grid);
  vertical-align:top;white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal;min-width:150px;
  position:sticky;left:0;background:var(--paper)}
thead small{white-space:normal;max-width:96px;margin-left:auto;line-height:1.3}
thead th{vertical-align:bottom;font-weight:600;border-bottom:2px solid var(--ink)}
thead small,td small{display:block;font-weight:400;font-size:12px;color:var(--muted)}
tbody th{font-weight:600}
tbody th small{display:block;font-weight:400;color:var(--muted);font-size:13px}
td b{background:var(--mark);border-radius:4px;padding:1px 5px;margin-right:-5px}
tr.floor th,tr.floor td{border-top:1.5px dashed var(--muted);font-style:normal;color:var(--muted)}
abbr{text-decoration:underline dotted;cursor:help;text-underline-offset:3px}
.swatch{display:inline-block;width:10px;height:10px;border-radius:50%;margin-right:8px}
.swatch.ring{border:2px solid var(--ink)}
details{margin:12px 0}
summary{cursor:pointer;font-weight:600}
dl.metrics{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));
  gap:18px 48px;margin:14px 0 0}
dl.metrics dt{font-weight:600}
dl.metrics dd{margin:2px 0 0;font-size:15px}
dl.metrics code{color:var(--muted);margin-right:8px}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:28px 48px}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:24px 28px;
  max-width:1040px}
.panels figure{max-width:280px}
figure{margin:14px 0 0;min-width:0}
figure>svg{display:block;width:100%;height:auto;max-width:520px}
figcaption{font-size:14px;line-height:1.5;color:var(--muted);margin-top:8px;max-width:64ch}
.panels figcaption{margin-top:2px}
figcaption b,.panels strong{color:var(--ink)}
.case{border-top:1px solid var(--grid);padding:18px 0 20px}
.tag{display:inline-block;font-size:12.5px;font-weight:600;border-radius:99px;padding:1px 10px;
  background:var(--wash);margin-right:8px;color:var(--muted)}
.rows{overflow-x:auto;padding-bottom:8px}
.row{display:flex;gap:6px;margin-top:12px;align-items:flex-start;width:max-content}
.who{width:128px;flex:none;font-size:13.5px;line-height:1.35;font-weight:600;padding-top:2px;
  position:sticky;left:0;background:var(--paper);padding-right:8px;z-index:1}
.who small{display:block;font-weight:400;color:var(--muted);font-size:12.5px}
.tile{width:84px;flex:none;margin:0;font-size:11.5px;line-height:1.3;color:var(--muted)}
.tile img,.tile svg{display:block;width:84px;height:auto;image-rendering:pixelated;
  border-radius:3px;outline:1px solid var(--grid);outline-offset:-1px;margin-bottom:3px}
.wide .tile,.wide .tile img{width:176px}
.rest{margin-left:10px}
.wrap{display:flex;flex-wrap:wrap;gap:5px}
.wrap .tile,.wrap .tile img{width:60px}
.bigger .tile,.bigger .tile img{width:126px}
.diverse{display:grid;grid-template-columns:126px 1fr;gap:6px 18px;align-items:start}
.diverse .set{margin-bottom:10px}
.diverse .set p{margin:0 0 4px;font-size:13.5px}
.key{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13.5px;color:var(--muted);margin:10px 0 4px}
.key i{display:inline-block;width:18px;height:4px;border-radius:2px;margin-right:6px;
  vertical-align:middle;outline:1px solid color-mix(in srgb,var(--ink) 35%,transparent)}
.key i.box{height:12px;width:12px}
.key i.ramp{width:72px;height:10px}
@media(max-width:560px){
  main,header{padding-left:16px;padding-right:16px}
  .scroll{margin-inline:-16px;padding-inline:16px}
  h2{margin-top:48px}
  .who{width:88px;font-size:12.5px}
  .tile,.tile img{width:68px}
  .diverse{grid-template-columns:1fr}
  .wrap .tile,.wrap .tile img{width:52px}
  th,td{padding:8px 10px}
}
@media print{nav{display:none}.case,figure{break-inside:avoid}}
"""
).replace('\n', '')
