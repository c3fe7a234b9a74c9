"""The style sheet of `page.py`: one page for screen and paper. Knows no content."""

STYLE = """
:root{color-scheme:light;--ink:#1c2430;--soft:#5b6675;--line:#dde2e9;--tint:#f5f7fa;
--accent:#0b6e7f;--warm:#a8500f}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:#fff;
font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main,footer{max-width:60rem;margin:0 auto;padding:0 1.5rem}
header{padding-top:3rem;padding-bottom:1rem;border-bottom:3px solid var(--accent)}
h1{font-size:2.1rem;line-height:1.2;margin:0 0 .5rem;letter-spacing:-.01em}
h2{font-size:1.35rem;margin:2.8rem 0 .6rem;padding-bottom:.25rem;
border-bottom:1px solid var(--line)}
p{margin:.7rem 0;max-width:46rem}
.lead{font-size:1.1rem;color:var(--soft)}
.finding,.caution{padding:.7rem 1rem;border-left:4px solid var(--accent);background:#eef6f8;
border-radius:0 6px 6px 0}
.code{white-space:pre-wrap;font:14px/1.5 ui-monospace,Menlo,Consolas,monospace;
background:var(--tint);padding:.7rem 1rem;border-radius:6px}
.caution{border-color:var(--warm);background:#fdf4ec}
nav ol{display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;list-style-position:inside;padding:0;
margin:1rem 0 0;font-size:.92rem}
a{color:var(--accent)}
figure{margin:1.2rem 0}
figcaption{color:var(--soft);font-size:.9rem;margin-top:.4rem;max-width:46rem}
img{max-width:100%;height:auto;display:block}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .8rem;text-align:left;vertical-align:middle;
border-bottom:1px solid var(--line)}
thead th{background:var(--tint);color:var(--soft);font-weight:600;white-space:nowrap;
border-bottom:2px solid var(--line)}
tbody tr:hover{background:var(--tint)}
.number{text-align:right}
td:first-child{min-width:11rem}
.panel{margin:0 0 1.1rem;min-width:36rem}
.panel caption{text-align:left;font-weight:600;padding:.2rem .8rem}
.panel th{font-weight:400;width:19rem}
svg circle{fill:var(--accent)}
svg .interval{stroke:var(--accent);stroke-width:2.5;stroke-opacity:.45;stroke-linecap:round}
details{margin:.5rem 0}
summary{cursor:pointer;color:var(--accent);font-size:.92rem}
.beside{display:flex;flex-wrap:wrap;gap:0 2rem;align-items:flex-start}
.beside>*{flex:1 1 22rem;min-width:0}
.beside>:last-child{flex-grow:1.9}
.broad header,.broad main,.broad footer{max-width:79rem}
.broad table{font-size:.8rem;line-height:1.4}
.broad th,.broad td{padding:.16rem .6rem}
.broad thead th{white-space:normal}
.broad td{overflow-wrap:anywhere;min-width:5.6rem}
.broad td.number{white-space:nowrap;min-width:0}
.broad td:first-child{min-width:8.5rem}
.broad section>figure td:first-child{min-width:12rem}
.broad nav ol{font-size:.82rem;gap:.1rem 1.1rem}
.broad header{padding-top:1.2rem}
.broad h1,.broad h2,.broad p,.broad a,.broad summary{overflow-wrap:anywhere}
.broad h2{margin:1.6rem 0 .3rem;scroll-margin-top:.4rem}
.broad figure{margin:.4rem 0}
.broad figcaption,.broad p{max-width:none}
.broad p{margin:.3rem 0;font-size:.92rem}
.broad details{margin:.2rem 0}
footer{color:var(--soft);font-size:.85rem;padding-top:1.5rem;padding-bottom:3rem}
footer p{overflow-wrap:anywhere}
@media print{nav{display:none}section{break-inside:avoid-page}}
"""
