// Each card's picture is one file, before and after side by side with a gap of 4 px, and its link
// opens that file. Here the link opens a dialog instead, which lays the halves over each other.
const cards = [...document.querySelectorAll("a.both")], dialog = document.querySelector("dialog");
const stage = dialog.querySelector(".stage"), range = dialog.querySelector("input");
let at = 0;
const slide = () => stage.style.setProperty("--x", range.value + "%");
const open = (i) => {
  at = (i + cards.length) % cards.length;
  const card = cards[at], picture = card.querySelector("img");
  const size = new Image();
  size.onload = () => {
    const w = (size.naturalWidth - 4) / 2, h = size.naturalHeight;
    stage.style.aspectRatio = w + " / " + h;
    stage.style.width = "calc(84vh * " + w / h + ")";
  };
  size.src = card.href;
  for (const half of stage.querySelectorAll("img")) half.src = card.href;
  dialog.querySelector("span").textContent = picture.alt;
  range.value = 50;
  slide();
  if (!dialog.open) dialog.showModal();
  range.focus();
};
range.addEventListener("input", slide);
document.querySelector("main").addEventListener("click", (e) => {
  const card = e.target.closest("a.both");
  if (!card || e.ctrlKey || e.metaKey || e.shiftKey) return;
  e.preventDefault();
  open(cards.indexOf(card));
});
const acts = {previous: () => open(at - 1), next: () => open(at + 1), close: () => dialog.close()};
for (const button of dialog.querySelectorAll("button")) button.addEventListener("click", acts[button.name]);
dialog.addEventListener("keydown", (e) => {
  const act = {PageUp: acts.previous, PageDown: acts.next}[e.key];
  if (!act) return;
  e.preventDefault();
  act();
});
dialog.addEventListener("close", () => cards[at].focus());
