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
