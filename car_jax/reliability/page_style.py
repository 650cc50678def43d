"""Style sheet and script of the study's page; without the script everything is shown."""

from car_jax.evaluate import page_style

_CSS = """
.controls{display:none;flex-wrap:wrap;gap:8px 16px;margin:14px 0 4px;font-size:14px}
.js .controls{display:flex}
.controls label{color:var(--muted);display:flex;flex-direction:column;min-width:0;max-width:100%}
.controls select{font:inherit;color:var(--ink);background:var(--wash);border:1px solid var(--grid);
  border-radius:6px;padding:5px 8px;max-width:min(100%,320px)}
[hidden]{display:none!important}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,310px),1fr));
  gap:20px 28px;margin-top:8px}
.plots figure{max-width:400px}
.wide{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:20px 40px}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,480px),1fr));gap:0 40px}
.pair{border-top:1px solid var(--grid);margin-top:18px;padding-top:12px;min-width:0}
.panels h3{font-size:14px}
section>h3,details>h3{margin-top:30px}
svg{font-family:system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif}
svg line,svg path{stroke-linecap:round;stroke-linejoin:round}
svg .g{stroke:var(--grid);stroke-width:1}
svg .mark{fill:var(--c);stroke:var(--c);stroke-width:1.75}
svg .m{fill:var(--muted)}
.pair .panels{grid-template-columns:repeat(auto-fill,minmax(min(100%,230px),1fr))}
.sign{vertical-align:middle;margin-right:7px}
.key span{display:inline-flex;align-items:center}
.key.big{color:var(--ink);font-size:14px}
.tall{max-height:78vh;overflow:auto;border-block:1px solid var(--grid)}
.tall thead{position:sticky;top:0;z-index:2;background:var(--paper)}
.tall thead th{background:var(--paper)}
.tall thead th:first-child{z-index:3}
tr.groups th{border-bottom:0;font-size:13px;color:var(--muted);font-weight:400;text-align:center;
  padding-bottom:0}
tr.groups th+th{border-left:1px solid var(--grid)}
th.edge,td.edge{border-left:1px solid var(--grid)}
th.word{text-align:left}
td.word{text-align:left;white-space:normal;min-width:104px}
td.long{min-width:220px}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer;
  text-align:inherit}
th button:hover{text-decoration:underline}
th[aria-sort] button{text-decoration:underline;text-underline-offset:4px}
th[aria-sort=ascending] button::after{content:' ▲';font-size:10px}
th[aria-sort=descending] button::after{content:' ▼';font-size:10px}
td.heat{background:color-mix(in srgb,var(--s0) var(--h),transparent)}
.warn{color:var(--s1);font-weight:600;white-space:normal}
.warning{border-left:4px solid var(--s1);background:var(--wash);padding:8px 14px;margin:12px 0;
  border-radius:0 8px 8px 0;overflow-wrap:anywhere}
.tiles{display:flex;flex-wrap:wrap;gap:10px;margin-top:10px}
.tiles .tile,.tiles .tile img{width:min(100%,196px)}
.tiles .tile img{width:100%}
.case h3{margin-top:4px}
dl.terms dt{font-weight:600;margin-top:12px}
dl.terms dd{margin:2px 0 0;max-width:72ch}
@media(max-width:560px){
  th:first-child,td:first-child{min-width:112px;max-width:132px;overflow-wrap:anywhere}
  th,td{font-size:14px}
  .tiles .tile{width:calc(50% - 5px)}
  .controls label{width:calc(50% - 8px)}.controls select{width:100%;max-width:none}
}
@media print{.controls{display:none!important}.tall{max-height:none;overflow:visible}}
"""
CSS = page_style.CSS + _CSS.replace('\n', '')

# In the head, so that errors of the script below are seen too.
WATCH = """
window.onerror=function(message){
  var root=document.documentElement;
  root.dataset.errors=(root.dataset.errors||'')+message+';';
};
"""

# #sort=ece (best first), #sort=-ece (worst first), #model=..&set=..&calibrator=.. choose a view;
# #check=1 notes in data-overflow what is wider than the window outside of scrolling boxes.
SCRIPT = """
(function(){
'use strict';
var root=document.documentElement;
root.classList.add('js');
function all(selector,base){return Array.from((base||document).querySelectorAll(selector));}
function wanted(){
  var out={};
  location.hash.slice(1).split('&').forEach(function(part){
    var at=part.indexOf('=');
    if(at<1)return;
    try{out[part.slice(0,at)]=decodeURIComponent(part.slice(at+1));}catch(e){}
  });
  return out;
}
function shown(item,allowed){
  return !Object.keys(allowed).some(function(axis){
    var own=item.getAttribute('data-'+axis);
    return allowed[axis]&&own!==null&&allowed[axis].indexOf(own)<0;
  });
}
function filter(section){
  var allowed={};
  all('select[data-axis]',section).forEach(function(s){
    var axis=s.dataset.axis;
    if(!(axis in allowed))allowed[axis]=s.dataset.keep?[s.dataset.keep]:[];
    if(s.value==='*')allowed[axis]=null;
    else if(allowed[axis])allowed[axis].push(s.value);
  });
  all('[data-item]>noscript',section).forEach(function(folded){
    var item=folded.parentNode;
    if(shown(item,allowed))item.innerHTML=folded.textContent;
  });
  all('[data-item]',section).forEach(function(item){item.hidden=!shown(item,allowed);});
}
function sort(head,descending){
  var table=head.closest('table'),body=table.tBodies[0],column=+head.dataset.column;
  var rows=all('tr',body).map(function(row){
    var text=column?row.cells[column].dataset.v:row.dataset.place;
    return {row:row,place:+row.dataset.place,value:text===undefined?NaN:+text};
  });
  rows.sort(function(a,b){
    if(isNaN(a.value)||isNaN(b.value))return isNaN(a.value)-isNaN(b.value)||a.place-b.place;
    return (descending?b.value-a.value:a.value-b.value)||a.place-b.place;
  });
  rows.forEach(function(r){body.appendChild(r.row);});
  all('th',table).forEach(function(th){th.removeAttribute('aria-sort');});
  head.setAttribute('aria-sort',descending?'descending':'ascending');
}
all('th[data-column]').forEach(function(head){
  var button=document.createElement('button');
  button.type='button';
  while(head.firstChild)button.appendChild(head.firstChild);
  head.appendChild(button);
  button.addEventListener('click',function(){
    var now=head.getAttribute('aria-sort');
    sort(head,now?now==='ascending':head.dataset.better==='high');
  });
});
function follow(){
  var asked=wanted();
  all('select[data-axis]').forEach(function(s){
    var value=asked[s.dataset.axis];
    if(all('option',s).some(function(o){return o.value===value;}))s.value=value;
  });
  all('section').forEach(filter);
  if(asked.sort){
    var worst=asked.sort.charAt(0)==='-',name=worst?asked.sort.slice(1):asked.sort;
    all('th[data-column]').forEach(function(head){
      if(head.dataset.name===name)sort(head,(head.dataset.better==='high')!==worst);
    });
  }
}
all('select[data-axis]').forEach(function(s){
  s.addEventListener('change',function(){filter(s.closest('section'));});
});
window.addEventListener('hashchange',follow);
follow();
if(wanted().check){
  root.dataset.overflow=all('body *').filter(function(e){
    return e.getBoundingClientRect().right>root.clientWidth+1&&
      !e.closest('.scroll,.rows,pre,svg');
  }).map(function(e){return e.tagName+'.'+e.className;}).join(' ');
}
root.dataset.ready='1';
})();
"""
