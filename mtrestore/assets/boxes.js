// Boxes on a picture as SVG: photo pixels are its user units, and every box is an element that takes
// the focus. Pointers are captured by the svg itself, for a box is drawn anew at each move.
// JupyterLab's own shortcuts keep away from what bears data-lm-suppress-shortcuts.
const KEYS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}, within = (v, most) => Math.min(Math.max(v, 0), most);
function render({ model, el }) {
  el.innerHTML = `<svg class="mtr-boxes" preserveAspectRatio="xMinYMin" tabindex="0" role="group" data-lm-suppress-shortcuts="true"
    aria-label="Face boxes: N makes one; arrow keys move the box that has the focus, with Shift they size it, Delete deletes it">
    <image x="-0.5" y="-0.5"/><g></g></svg>`;
  const svg = el.firstElementChild, [photo, layer] = svg.children;
  let boxes = [], off, drag = null;
  const draw = (focus) => {
    const unit = Math.max(...model.get("size")) / 100;
    layer.innerHTML = boxes.map(([x, y, r, b], i) => `<g data-i="${i}"${off?.[i] ? ' class="off"' : ""}><rect data-do="move" tabindex="0" role="button" x="${x}" y="${y}"
      width="${r - x}" height="${b - y}" aria-label="face box ${i + 1}, ${Math.round(r - x)} by ${Math.round(b - y)} pixels"/>
      <circle data-do="size" cx="${r}" cy="${b}" r="${1.6 * unit}"/>
      <text x="${x + unit}" y="${y}" dy="0.9em" font-size="${5 * unit}" class="number">${i + 1}</text>
      <text data-do="delete" x="${r - unit}" y="${y}" dy="0.9em" text-anchor="end" font-size="${5 * unit}">\u00d7</text></g>`).join("");
    if (focus !== undefined) (layer.querySelectorAll("rect")[focus] || svg).focus({preventScroll: true});
  };
  const show = () => {
    const [width, height] = model.get("size"), now = model.get("boxes");
    svg.setAttribute("viewBox", `-0.5 -0.5 ${width} ${height}`);
    for (const [name, value] of Object.entries({width, height, href: model.get("picture")})) photo.setAttribute(name, value);
    if (drag || JSON.stringify([now, model.get("off")]) === JSON.stringify([boxes, off])) return;
    boxes = now.map((b) => [...b]);
    off = model.get("off");
    draw();
  };
  const commit = (focus) => {
    boxes = boxes.filter(([x, y, r, b]) => Math.min(r - x, b - y) >= 4).map((b) => b.map((v) => Math.round(10 * v) / 10));
    draw(focus);
    model.set("boxes", boxes.map((b) => [...b]));
    model.save_changes();
  };
  const change = (i, [x, y, r, b], dx, dy, how) => {
    const [width, height] = model.get("size"), moved = how === "move", u = within(r + dx, width), v = within(b + dy, height);
    const left = within(x + dx, width - r + x), top = within(y + dy, height - b + y);
    boxes[i] = moved ? [left, top, left + r - x, top + b - y] : [Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)];
    draw(i);
  };
  const at = (e) => { const p = new DOMPoint(e.clientX, e.clientY).matrixTransform(svg.getScreenCTM().inverse()); return [p.x, p.y]; };
  const finish = () => { if (drag) { const i = drag.i; drag = null; commit(i); } };
  const on = {
    pointermove: (e) => { if (drag) { const [x, y] = at(e); change(drag.i, drag.start, x - drag.x, y - drag.y, drag.how); } },
    pointerup: finish, pointercancel: finish,
    pointerdown: (e) => {
      if (e.button) return;
      e.preventDefault();
      const how = e.target.dataset.do, i = how ? +e.target.parentNode.dataset.i : boxes.length, [x, y] = at(e);
      if (how === "delete") { boxes.splice(i, 1); return commit(-1); }
      if (!how) boxes.push([x, y, x, y]);
      drag = {i, x, y, start: boxes[i], how: how || "size"};
      svg.setPointerCapture(e.pointerId);
      draw(i);
    },
    keydown: (e) => {
      const [width, height] = model.get("size"), step = Math.max(1, Math.max(width, height) / 100), i = +(e.target.parentNode.dataset.i ?? -1);
      if (i >= 0 && ["Delete", "Backspace"].includes(e.key)) { boxes.splice(i, 1); commit(-1); }
      else if (i >= 0 && KEYS[e.key]) { change(i, boxes[i], ...KEYS[e.key].map((v) => v * step), e.shiftKey ? "size" : "move"); commit(i); }
      else if (e.key.toLowerCase() === "n") { boxes.push([0.35 * width, 0.3 * height, 0.65 * width, 0.7 * height]); commit(boxes.length - 1); }
      else return;
      e.preventDefault();
      e.stopPropagation();
    },
  };
  for (const [name, act] of Object.entries(on)) svg.addEventListener(name, act);
  for (const name of ["picture", "boxes"]) model.on("change:" + name, show);
  show();
}
export default { render };
