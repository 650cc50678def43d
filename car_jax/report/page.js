// #sort=ece (best first), #sort=-ece (worst first), #model=..&set=..&calibrator=.. choose a view;
// #check=1 notes in data-overflow what is wider than the window outside of scrolling boxes.
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
// --- choosing and sorting
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
  all('[data-item]',section).forEach(function(item){item.hidden=!shown(item,allowed);});
}
function sort(head,descending){
  var table=head.closest('table'),body=table.tBodies[0],column=head.cellIndex;
  var rows=Array.from(body.rows).map(function(row){
    var text=row.cells[column].firstChild,place=+row.dataset.place;
    return {row:row,place:place,value:column?parseFloat((text?text.textContent:'').replace('−','-')):place};
  });
  rows.sort(function(a,b){
    if(isNaN(a.value)||isNaN(b.value))return isNaN(a.value)-isNaN(b.value)||a.place-b.place;
    return (descending?b.value-a.value:a.value-b.value)||a.place-b.place;
  });
  rows.forEach(function(r){body.appendChild(r.row);});
  all('th',table).forEach(function(th){th.removeAttribute('aria-sort');});
  head.setAttribute('aria-sort',descending?'descending':'ascending');
}
all('table[data-sort]').forEach(function(table){
  Array.from(table.tBodies[0].rows).forEach(function(row,k){row.dataset.place=k;});
  all('thead tr:last-child th',table).forEach(function(head){
    var button=document.createElement('button');
    button.type='button';
    while(head.firstChild)button.appendChild(head.firstChild);
    head.appendChild(button);
    button.addEventListener('click',function(){
      var now=head.getAttribute('aria-sort');
      sort(head,now?now==='ascending':head.dataset.better==='high');
    });
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
    all('table[data-sort] th[data-name]').forEach(function(head){
      if(head.dataset.name===name)sort(head,(head.dataset.better==='high')!==worst);
    });
  }
}
all('select[data-axis]').forEach(function(s){
  s.addEventListener('change',function(){filter(s.closest('section'));});
});
window.addEventListener('hashchange',follow);
// --- figures: a series alone, values of a point, saving
function text(key){return key.querySelector('text').textContent;}
function isolate(key){
  var name=text(key),section=key.closest('section'),off=section.dataset.only===name;
  section.dataset.only=off?'':name;
  all('.k',section).forEach(function(other){
    var same=off||text(other)===name;
    other.setAttribute('aria-pressed',String(!off&&same));
    other.classList.toggle('dim',!same);
    var svg=other.ownerSVGElement,s=all('.s',svg)[all('.k',svg).indexOf(other)];
    s.classList.toggle('dim',!same&&!s.classList.contains('muted'));
  });
}
all('.k').forEach(function(key){
  key.ownerSVGElement.setAttribute('role','group'); // an image would hide its buttons
  key.setAttribute('role','button');
  key.setAttribute('tabindex','0');
  key.setAttribute('aria-label',text(key)+' alone');
  key.addEventListener('click',function(){isolate(key);});
  key.addEventListener('keydown',function(e){
    if(e.key==='Enter'||e.key===' '){e.preventDefault();isolate(key);}
  });
});
function csv(link){
  var rows=[],row=[],cell='',quoted=false;
  decodeURIComponent(link.href.slice(link.href.indexOf(',')+1)).split('').forEach(function(c){
    if(c==='"')quoted=!quoted;
    else if(quoted||(c!==','&&c!=='\n'))cell+=c;
    else{row.push(cell);cell='';if(c==='\n'){rows.push(row);row=[];}}
  });
  return rows;
}
// Places of the points of a series, in the order of its rows: of its markers, or of its line.
function places(group){
  var out=[];
  all('.m',group).forEach(function(path){
    path.getAttribute('d').replace(/M(-?[\d.]+) (-?[\d.]+)/g,function(m,x,y){out.push([+x,+y]);});
  });
  if(out.length)return out;
  all('.l,.c',group).slice(0,1).forEach(function(path){
    var d=path.getAttribute('d'),line=path.classList.contains('l'),at=[0,0];
    if(!line)d.replace(/M(-?[\d.]+) (-?[\d.]+)/g,function(m,x,y){out.push([+x,+y]);});
    else{
      var n=d.match(/-?\d*\.?\d+/g).map(Number);
      for(var k=0;k+1<n.length;k+=2){at=k?[at[0]+n[k],at[1]+n[k+1]]:[n[0],n[1]];out.push(at);}
    }
  });
  return out;
}
function points(figure){
  var link=figure.querySelector('a[download]');
  if(figure.points||!link)return figure.points||[];
  var rows=csv(link),head=rows.shift(),names=all('.s>title',figure).map(function(t){
    return t.textContent;});
  figure.points=[];
  all('.s',figure).forEach(function(group,k){
    var own=rows.filter(function(r){return r[0].replace(/^'/,'')===names[k];});
    places(group).forEach(function(at,i){
      if(own[i])figure.points.push({at:at,group:group,text:head.map(function(h,c){
        return c?h+': '+own[i][c]:own[i][c];}).filter(function(t){
        return !/: $/.test(t);}).join('\n')});
    });
  });
  return figure.points;
}
var tip=document.createElement('div');
tip.className='tip';tip.hidden=true;tip.setAttribute('role','status');
document.body.appendChild(tip);
all('figure>.fig').forEach(function(svg){
  function point(e){
    var box=svg.getBoundingClientRect(),scale=svg.viewBox.baseVal.width/box.width,best=14*scale;
    var x=(e.clientX-box.left)*scale,y=(e.clientY-box.top)*scale,hit=null;
    points(svg.parentNode).forEach(function(p){
      var far=Math.hypot(p.at[0]-x,p.at[1]-y);
      if(far<best&&!p.group.classList.contains('dim')){best=far;hit=p;}
    });
    tip.hidden=!hit;
    if(!hit)return;
    tip.textContent=hit.text;
    var left=Math.min(e.clientX+14,root.clientWidth-tip.offsetWidth-8);
    tip.style.left=Math.max(4,left)+window.scrollX+'px';
    tip.style.top=e.clientY+16+window.scrollY+'px';
  }
  svg.addEventListener('pointermove',point);
  svg.addEventListener('pointerdown',point);
  svg.addEventListener('pointerleave',function(){tip.hidden=true;});
  var button=document.createElement('button'),bar=svg.parentNode.querySelector('.save');
  button.type='button';
  button.textContent='SVG';
  button.addEventListener('click',function(){
    var copy=svg.cloneNode(true),style=document.createElement('style');
    style.textContent=document.getElementById('figure-css').textContent;
    copy.insertBefore(style,copy.firstChild);
    var link=document.createElement('a');
    link.download=bar.querySelector('a').download.replace(/csv$/,'svg');
    link.href=URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)],
      {type:'image/svg+xml'}));
    link.click();
  });
  if(bar)bar.appendChild(button);
});
// --- pictures enlarged; without a script their links do it
var large=document.createElement('dialog');
document.body.appendChild(large);
large.addEventListener('click',function(){large.close();});
all('.looks').forEach(function(looks){
  looks.addEventListener('click',function(e){
    var link=e.target.closest('a'),copy;
    if(!link||!large.showModal)return;
    e.preventDefault();
    copy=link.querySelector('img').cloneNode();
    copy.loading='eager';
    large.replaceChildren(copy);
    large.showModal();
  });
});
// --- images struck out of a generated set
var lines=document.querySelector('.lines');
function struck(){
  var ids=all('.card.struck[data-strike]').map(function(c){return c.dataset.strike;});
  lines.querySelector('textarea').value=ids.length?ids.join('\n')+'\n':'';
  lines.classList.toggle('some',ids.length>0);
  lines.querySelector('b').textContent=ids.length;
}
all('.card button').forEach(function(b){
  b.addEventListener('click',function(){
    b.textContent=b.closest('.card').classList.toggle('struck')?'keep':'strike out';
    struck();
  });
});
follow();
if(wanted().check){
  root.dataset.overflow=all('body *').filter(function(e){
    return e.getBoundingClientRect().right>root.clientWidth+1&&!e.closest('.scroll,.rows,pre,svg');
  }).map(function(e){return e.tagName+'.'+e.className;}).join(' ');
}
root.dataset.ready='1';
})();
