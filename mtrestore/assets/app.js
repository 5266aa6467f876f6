// The page of `mtrestore app`. The server has the truth: `state` is its last answer, and whatever a
// person does is a request whose answer is the next state. Words from outside only become text.
import boxes from "./boxes.js";

const $ = (id) => document.getElementById(id);
const make = (tag, props = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...children);
  return element;
};
const WORDS = {waiting: "waiting", looking: "looking for faces", restoring: "being restored", done: "restored", stopped: "stopped"};
const BUSY = ["waiting", "looking", "restoring"];
let state = {photos: [], busy: 0, out: ""}, labels = null, most = 0;
let now = 0;  // number of the photo that is shown
let handed = false;  // the boxes are shown, not before and after
let upload = null;  // {done, total} while files are handed over
let timer = 0, sending = 0;
let unsent = 0;  // number of the photo whose settings are not handed over yet: they win over an answer
const photo = () => state.photos.find((p) => p.number === now);
const percent = (v) => Math.round(100 * v) + " %";

// ---- asking the server

async function ask(path, options = {}) {
  let answer;
  try { answer = await fetch(path, {cache: "no-store", ...options}); } catch { throw Error("mtrestore app does not answer; start it again in the terminal"); }
  const words = await answer.json().catch(() => ({error: "the answer cannot be read"}));
  if (!answer.ok) throw Error(words.error);
  return words;
}
const post = (path, body) => ask(path, {method: "POST", body: body === undefined ? "" : JSON.stringify(body)});
const say = (words, bad) => { $("message").textContent = words; $("message").className = bad ? "failed" : ""; };
async function act(path, body) {
  try { take(await post(path, body)); } catch (e) { say(e.message, true); }
}
function take(next) {
  const [mine, theirs] = [state, next].map((s) => s.photos.find((p) => p.number === unsent));
  if (mine && theirs) Object.assign(theirs, {asked: mine.asked, faces: mine.faces});
  state = next;
  if (!photo()) now = state.photos[0]?.number || 0;
  draw();
  clearTimeout(timer);
  if (state.busy) timer = setTimeout(refresh, 400);
}
async function refresh() {
  try { take(await ask("state")); } catch (e) { say(e.message, true); timer = setTimeout(refresh, 3000); }
}

// ---- handing photos over: files of a folder that are none are left out, and counted

async function add(files, ofFolder) {
  if (!files.length) return;
  upload ? upload.total += files.length : upload = {done: 0, total: files.length};
  let left = 0, first = 0;
  const refused = [];
  for (const {file, name} of files) {
    say(`adding ${upload.done + 1} of ${upload.total}`);
    try {
      if (file.size > most) throw Error(`the file has more than ${most / 2 ** 20} MiB`);
      const words = await ask(`photos?name=${encodeURIComponent(name)}&folder=${ofFolder ? 1 : 0}`, {method: "POST", body: file});
      words.ignored ? left += 1 : first = first || words.number;
    } catch (e) { ofFolder && file.size > most ? left += 1 : refused.push(`${name}: ${e.message}`); }
    upload.done += 1;
    if (first && !photo()) now = first;
    await refresh();
  }
  if (upload.done >= upload.total) upload = null;
  const others = left ? `${left} other ${left === 1 ? "file is no photo" : "files are no photos"}` : "";
  say([...refused, others].filter(Boolean).join("; "), refused.length > 0);
  if (first) show(first);
}
const plain = (list) => [...list].map((file) => ({file, name: file.webkitRelativePath || file.name}));
async function dropped(items) {
  const files = [], entries = [...items].filter((i) => i.kind === "file").map((i) => i.webkitGetAsEntry?.() || i.getAsFile());
  let ofFolder = false;
  const walk = async (entry, path) => {
    if (entry instanceof File) return files.push({file: entry, name: entry.name});
    if (entry.isFile) return files.push({file: await new Promise((ok, no) => entry.file(ok, no)), name: path + entry.name});
    ofFolder = true;
    const reader = entry.createReader();
    for (let part; (part = await new Promise((ok, no) => reader.readEntries(ok, no))).length;)
      for (const inner of part) await walk(inner, `${path}${entry.name}/`);
  };
  for (const entry of entries) if (entry) await walk(entry, "").catch((e) => say(e.message, true));
  await add(files, ofFolder);
}

// ---- what a person wants of the photo that is shown

const wishes = () => photo().faces?.map(({box, strength, hand}) => ({box, strength, hand})) || null;
function want(change) {
  const p = photo();
  Object.assign(p.asked, {faces: wishes()}, change);
  if (unsent && unsent !== p.number) hand();
  clearTimeout(sending);
  unsent = p.number;
  sending = setTimeout(hand, 350);
  draw();
}
function hand() {
  const p = state.photos.find((p) => p.number === unsent);
  unsent = 0;
  if (p) act(`photos/${p.number}/restore`, p.asked);
}
const strengthen = (i, strength) => {
  photo().faces[i].strength = strength;
  want({});
};
function prefer(like) {
  const {face_strength, ...rest} = labels.presets[like];
  for (const face of photo().faces || []) if (face.strength) face.strength = face_strength;
  want({like, ...rest});
}

// ---- the boxes: numbered as the faces are; what is drawn or moved is a face by hand

const model = {
  values: {picture: "", size: [1, 1], boxes: [], off: []}, hears: {},
  get(name) { return this.values[name]; },
  set(name, value) { this.values[name] = value; },
  on(event, act) { this.hears[event] = act; },
  save_changes() { changed(this.values.boxes); },
};
const rounded = (box) => box.map((v) => Math.round(10 * v) / 10);
const same = (a, b) => a.every((v, i) => v === b[i]);
function changed(drawn) {
  const faces = photo().faces || [], left = drawn.filter((d) => !faces.some((f) => same(rounded(f.box), d)));
  const rest = [];
  for (const face of faces) {
    const there = drawn.some((d) => same(rounded(face.box), d));
    if (there) rest.push(face);
    else if (!face.hand) rest.push({...face, strength: 0});  // what was found cannot be taken away, only left alone
  }
  const strength = labels.presets[photo().asked.like].face_strength;
  photo().faces = [...rest, ...left.map((box) => ({box, strength, hand: true, status: "new"}))];
  want({});
}
function drawBoxes(p) {
  const faces = p.faces || [];
  const values = {picture: `photos/${p.number}/before`, size: [p.width, p.height], boxes: faces.map((f) => rounded(f.box)), off: faces.map((f) => !f.strength)};
  const focus = [...$("boxes").querySelectorAll("rect")].indexOf(document.activeElement);
  if (JSON.stringify(values) === JSON.stringify(model.values)) return;
  const fresh = values.picture !== model.values.picture;
  model.values = values;
  if (fresh) boxes.render({model, el: $("boxes")});
  else model.hears["change:boxes"]();
  if (focus >= 0) $("boxes").querySelectorAll("rect")[Math.min(focus, faces.length - 1)]?.focus({preventScroll: true});
}

// ---- drawing what there is

function draw() {
  const some = state.photos.length > 0, results = state.photos.filter((p) => p.version);
  document.body.className = some ? "" : "empty";
  $("welcome").hidden = some;
  const home = some ? document.querySelector("header") : $("welcome");
  if ($("add").parentNode !== home) {  // moved, it loses the focus
    const focus = document.activeElement;
    some ? home.firstElementChild.after($("add")) : home.append($("add"));
    focus.focus();
  }
  $("strip").hidden = state.photos.length < 2 && !state.photos.some((p) => p.state === "failed");
  document.querySelector("main").hidden = !some;
  $("save-all").hidden = results.length < 2;
  $("save-out").hidden = !state.out;
  $("batch").hidden = !state.busy || state.photos.length < 2;
  $("progress").max = state.photos.length || 1;
  $("progress").value = state.photos.length - state.busy;
  $("count").textContent = `${state.photos.length - state.busy} of ${state.photos.length}`;
  document.title = state.busy ? `${state.photos.length - state.busy}/${state.photos.length} mtrestore` : "mtrestore";
  drawCards();
  if (photo()) drawPhoto(photo());
}
const words = (p) => p.state === "failed" ? p.error : WORDS[p.state];
function drawCards() {
  const list = $("cards");
  for (const card of [...list.children]) if (!state.photos.some((p) => `card-${p.number}` === card.id)) card.remove();
  for (const p of state.photos) {
    let card = $(`card-${p.number}`);
    if (!card) {
      const button = make("button", {}, make("div", {className: "blank"}), make("b", {textContent: p.name}), make("span"));
      button.addEventListener("click", () => show(p.number, true));
      list.append(card = make("li", {id: `card-${p.number}`}, button));
    }
    const button = card.firstChild, [picture, , line] = button.children;
    const source = p.width ? `photos/${p.number}/${p.version ? "after" : "before"}?${p.version}` : "";
    if (source && picture.getAttribute("src") !== source) {
      const img = make("img", {alt: "", loading: "lazy"});
      img.setAttribute("src", source);
      picture.replaceWith(img);
    }
    line.textContent = words(p);
    line.className = p.state;
    button.setAttribute("aria-current", p.number === now);
  }
}
function drawPhoto(p) {
  const busy = BUSY.includes(p.state), there = p.version > 0;
  $("title").textContent = p.name;
  const faces = p.faces || [], on = faces.filter((f) => ["restored", "soft"].includes(f.status)).length;
  const count = !faces.length ? "no face found" : faces.length === 1 && on ? "one face" : `${on} of ${faces.length} faces`;
  const result = there ? `restored in ${p.seconds} s: ${count}, ${p.out_width} × ${p.out_height} pixels` : "";
  $("state").textContent = [p.state === "done" ? result : words(p), p.saved && `saved as ${p.saved}`].filter(Boolean).join("; ");
  $("state").className = p.state;
  $("download").hidden = !there;
  $("download").setAttribute("href", `photos/${p.number}/restored`);
  $("download").setAttribute("download", p.title);
  $("save").hidden = !there || !state.out;
  $("save").textContent = `Save in ${state.out.split("/").pop() || state.out}`;
  $("restore").hidden = !["stopped", "failed"].includes(p.state);
  $("stop-one").hidden = !busy;
  $("presets").hidden = $("more").hidden = p.state === "failed" && !p.width;
  $("all").parentNode.hidden = state.photos.length < 2 || $("presets").hidden;
  for (const radio of document.querySelectorAll("#presets input")) radio.checked = radio.value === p.asked.like;
  for (const [name, {step}] of Object.entries(labels.sliders)) if ($(name)) {
    if (document.activeElement !== $(name)) $(name).value = p.asked[name];
    $(`${name}-is`).textContent = name === "scale" ? `× ${p.asked[name]}` : percent(p.asked[name]);
  }
  $("place").hidden = !p.place && !p.asked.strip_location;
  $("strip-place").checked = p.asked.strip_location;
  $("notes").replaceChildren(...[...(p.notes || []), ...(p.flags || []).filter((f) => f !== "no face").map((f) => `the result looks ${f}`)].map((n) => make("li", {textContent: n})));
  drawPicture(p, busy);
  drawFaces(p, faces);
}
function drawPicture(p, busy) {
  const place = $("picture"), view = place.dataset.view || "";
  place.classList.toggle("busy", busy);
  place.hidden = handed && Boolean(p.width);
  $("boxes").hidden = $("hint").hidden = !(handed && p.width);
  $("views").hidden = !p.width;
  $("view-compare").setAttribute("aria-pressed", !handed);
  $("view-faces").setAttribute("aria-pressed", handed);
  if (p.width) drawBoxes(p);
  const before = `photos/${p.number}/before`, after = `photos/${p.number}/after?${p.version}`;
  const wanted = !p.width ? "" : p.version ? `${p.number} ${p.out_width}` : `${p.number}`;
  if (view !== wanted) {
    place.dataset.view = wanted;
    place.replaceChildren();
    if (p.version) compare(place, p, before, after);
    else if (p.width) place.append(make("img", {src: before, alt: `${p.name}, before`}));
  } else if (p.version) {
    const picture = place.querySelectorAll(".mtr-canvas img")[1];
    if (picture.getAttribute("src") !== after) picture.src = after;
  }
  if (p.version) badges(place.querySelector(".mtr-canvas"), p);
}
function compare(place, p, before, after) {
  const cells = [["Before", before], ["After", after]].map(([name, src]) => make("td", {}, make("img", {alt: name.toLowerCase(), src})));
  const heads = ["Before", "After"].map((name) => make("th", {textContent: name}));
  const box = make("div", {className: "mtr-compare"}, make("table", {}, make("tr", {}, ...heads), make("tr", {}, ...cells)));
  const shrunk = Math.min(1, 2048 / Math.max(p.out_width, p.out_height));
  Object.assign(box.dataset, {width: Math.round(shrunk * p.out_width), height: Math.round(shrunk * p.out_height)});
  box.style.maxWidth = `calc(76vh * ${p.width / p.height})`;
  place.append(box);
  slide();
}
function badges(canvas, p) {
  canvas.querySelectorAll(".badge").forEach((b) => b.remove());
  (p.faces || []).forEach(({box, strength}, i) => {
    const badge = make("span", {className: strength ? "badge" : "badge off", textContent: i + 1, ariaHidden: "true"});
    badge.style.left = `${100 * Math.min(Math.max(box[0] / p.width, 0.02), 0.98)}%`;
    badge.style.top = `${100 * Math.min(Math.max(box[1] / p.height, 0.03), 0.97)}%`;
    canvas.append(badge);
  });
}
let drawn = "";  // of which photo and faces the list is
function drawFaces(p, faces) {
  $("no-face").hidden = faces.length > 0 || !p.width;
  $("faces-panel").hidden = !p.width;
  const key = JSON.stringify([p.number, faces.map((f) => [f.box, f.hand])]);
  if (key !== drawn) {
    drawn = key;
    const had = $("faces").contains(document.activeElement);
    $("faces").replaceChildren(...faces.map((face, i) => faceRow(p, face, i)));
    if (had) $("faces-title").focus();
  }
  faces.forEach(({strength, status}, i) => {
    const [row, level] = [$("faces").children[i], $(`face-${i}`)];
    row.querySelector("[type=checkbox]").checked = strength > 0;
    row.querySelector("small").textContent = strength ? {found: "", restored: ""}[status] ?? status : "left alone";
    if (document.activeElement !== level) level.value = strength;
    level.disabled = !strength;
    row.querySelector("output").textContent = percent(strength);
  });
}
function faceRow(p, {box, hand}, i) {
  const {low, high, step, label} = labels.sliders.face_strength;
  const crop = make("canvas", {width: 112, height: 112, ariaHidden: "true"}), picture = new Image();
  picture.onload = () => {
    const k = picture.naturalWidth / p.width, side = 1.3 * Math.max(box[2] - box[0], box[3] - box[1]);
    const [x, y] = [(box[0] + box[2] - side) / 2, (box[1] + box[3] - side) / 2];
    crop.getContext("2d").drawImage(picture, k * x, k * y, k * side, k * side, 0, 0, 112, 112);
  };
  picture.src = `photos/${p.number}/before`;
  const usual = () => labels.presets[photo().asked.like].face_strength;
  const on = make("input", {type: "checkbox", onchange: (e) => strengthen(i, e.target.checked ? usual() : 0)});
  const level = make("input", {type: "range", id: `face-${i}`, min: low, max: high, step, ariaLabel: `${label} of face ${i + 1}`});
  level.addEventListener("input", () => strengthen(i, +level.value));
  const who = make("div", {className: "who"}, make("label", {}, on, `Face ${i + 1}`), make("small"));
  if (hand) who.append(make("button", {textContent: "Remove", ariaLabel: `Remove face ${i + 1}`, onclick: () => {
    photo().faces.splice(i, 1);
    want({});
  }}));
  return make("li", {}, crop, who, level, make("output", {htmlFor: `face-${i}`}));
}
function show(number, focus) {
  now = number;
  draw();
  if (focus && (innerWidth <= 900 || $("stage").getBoundingClientRect().top < 0)) $("stage").scrollIntoView();
}

// ---- the controls

function controls() {
  for (const like of Object.keys(labels.presets)) {
    const radio = make("input", {type: "radio", name: "like", value: like, onchange: () => prefer(like)});
    document.querySelector("#presets .row").append(make("label", {}, radio, like[0].toUpperCase() + like.slice(1)));
  }
  $("like").textContent = labels.like;
  document.querySelector("#place span").textContent = labels.strip_location;
  for (const [name, {label, help, low, high, step}] of Object.entries(labels.sliders)) if (name !== "face_strength") {
    const input = make("input", {type: "range", id: name, min: low, max: high, step});
    input.setAttribute("aria-describedby", `${name}-help`);
    input.addEventListener("input", () => want({[name]: +input.value}));
    $("sliders").append(make("div", {}, make("label", {htmlFor: name, textContent: label}), input, make("output", {id: `${name}-is`, htmlFor: name}),
      make("span", {id: `${name}-help`, className: "quiet", textContent: help})));
  }
}
const on = {
  choose: () => $("files").click(), folder: () => $("files-of").click(), stop: () => act("stop"),
  sample: async () => { try { show((await post("sample")).number); await refresh(); } catch (e) { say(e.message, true); } },
  "save-out": () => act("save"), save: () => act(`photos/${now}/save`), restore: () => act(`photos/${now}/restore`, photo().asked),
  "stop-one": () => act(`photos/${now}/stop`), remove: () => act(`photos/${now}/remove`), all: () => act("all", {...photo().asked, faces: null}),
  "view-compare": () => { handed = false; draw(); }, "view-faces": () => { handed = true; draw(); },
};
for (const [id, act] of Object.entries(on)) $(id).addEventListener("click", act);
for (const id of ["files", "files-of"]) $(id).addEventListener("change", async (e) => {
  const files = plain(e.target.files);
  e.target.value = "";
  await add(files, id === "files-of");
});
$("strip-place").addEventListener("change", (e) => want({strip_location: e.target.checked}));
let depth = 0;
const over = (d) => { depth = Math.max(0, d); $("drop").hidden = !depth; };
addEventListener("dragenter", (e) => { if (e.dataTransfer?.types.includes("Files")) { e.preventDefault(); over(depth + 1); } });
addEventListener("dragleave", () => over(depth - 1));
addEventListener("dragover", (e) => e.preventDefault());
addEventListener("drop", (e) => { e.preventDefault(); over(0); dropped(e.dataTransfer.items); });
addEventListener("paste", (e) => { if (e.clipboardData.files.length) add(plain(e.clipboardData.files), false); });

const first = await ask("state?first=1");
({labels, most} = first);
controls();
take(first);
