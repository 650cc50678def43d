// In the head, so that errors of the script below are seen too.
window.onerror=function(message){
  var root=document.documentElement;
  root.dataset.errors=(root.dataset.errors||'')+message+';';
};
