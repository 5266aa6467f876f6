for (const box of document.querySelectorAll(".mtr-compare:not(.mtr-live)")) {
  box.classList.add("mtr-live");
  const add = (parent, tag, name, props = {}) =>
    parent.appendChild(Object.assign(document.createElement(tag), {className: name}, props));
  const table = box.querySelector("table"), [left, right] = box.querySelectorAll("th"), [before, after] = box.querySelectorAll("img");
  const words = [before.alt, after.alt], w = +box.dataset.width, h = +box.dataset.height;
  const bar = add(box, "div", "mtr-bar"), stage = add(box, "div", "mtr-stage"), canvas = add(stage, "div", "mtr-canvas");
  add(bar, "span", "").append(...left.childNodes);
  const button = add(bar, "button", "", {type: "button", title: "size of the picture"});
  add(bar, "span", "").append(...right.childNodes);
  canvas.append(before, after);
  before.draggable = after.draggable = false;
  const range = add(canvas, "input", "", {type: "range", min: 0, max: 100, step: 1});
  const handle = add(canvas, "div", "mtr-handle");
  range.setAttribute("aria-label", "compare " + words.join(" and "));
  for (const control of [range, button]) control.setAttribute("data-lm-suppress-shortcuts", "true");
  canvas.style.aspectRatio = w + " / " + h;
  table.replaceWith(bar, stage);

  let zoom = 0, drag = null;
  const set = (x) => {
    x = Math.min(100, Math.max(0, x));
    range.value = x;
    range.setAttribute("aria-valuetext", Math.round(x) + " % " + words[0] + ", the rest " + words[1]);
    canvas.style.setProperty("--mtr-x", x + "%");
  };
  const slide = (e) => { const r = canvas.getBoundingClientRect(); set(100 * (e.clientX - r.left) / r.width); };
  const pan = (e) => { stage.scrollLeft -= e.movementX; stage.scrollTop -= e.movementY; };
  range.addEventListener("input", () => set(+range.value));
  canvas.addEventListener("pointerdown", (e) => {
    const grip = !zoom || handle.contains(e.target);
    if (e.button || (!grip && e.pointerType !== "mouse")) return;
    e.preventDefault();
    canvas.setPointerCapture(e.pointerId);
    range.focus({preventScroll: true});
    drag = grip ? slide : pan;
    if (grip) slide(e);
  });
  canvas.addEventListener("pointermove", (e) => { if (drag) drag(e); });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { drag = null; });

  const levels = () => [0].concat([1, 2].filter((k) => k * w > 1.02 * stage.clientWidth));
  const label = () => {
    button.textContent = "zoom: " + (zoom ? 100 * zoom + " %" : "fit");
    button.hidden = levels().length < 2;
  };
  button.addEventListener("click", () => {
    const all = levels(), halfW = stage.clientWidth / 2, halfH = stage.clientHeight / 2;
    const cx = (stage.scrollLeft + halfW) / canvas.offsetWidth, cy = (stage.scrollTop + halfH) / canvas.offsetHeight;
    if (!zoom) stage.style.height = canvas.offsetHeight + "px";
    zoom = all[(all.indexOf(zoom) + 1) % all.length];
    if (!zoom) stage.style.height = "";
    stage.classList.toggle("mtr-zoomed", zoom > 0);
    canvas.style.width = zoom ? zoom * w + "px" : "";
    stage.scrollLeft = cx * canvas.offsetWidth - halfW;
    stage.scrollTop = cy * canvas.offsetHeight - halfH;
    label();
  });
  addEventListener("resize", label);
  requestAnimationFrame(label);
  set(50);
}
