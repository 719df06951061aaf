"use strict";

const items = [...document.querySelectorAll("[data-item]")];
const [yes, no, progress] = ["yes", "no", "progress"].map((id) => document.getElementById(id));
const key = `smartedit-judgements-${document.body.dataset.page}`;
const judgements = recall();
let current = Math.max(0, items.findIndex((item) => !(item.dataset.item in judgements)));

// A browser may refuse to remember anything for a page that is a file; then judgements last as long as the page.
function recall() {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? {};
  } catch {
    return {};
  }
}

function remember() {
  try {
    localStorage.setItem(key, JSON.stringify(judgements));
  } catch {}
}

function show() {
  items.forEach((item, index) => (item.hidden = index !== current));
  const judgement = judgements[items[current]?.dataset.item];
  yes.setAttribute("aria-pressed", judgement === true);
  no.setAttribute("aria-pressed", judgement === false);
  const position = Math.min(current + 1, items.length);
  progress.value = `${position} of ${items.length}, ${Object.keys(judgements).length} judged`;
}

function go(by) {
  current = Math.min(Math.max(current + by, 0), Math.max(items.length - 1, 0));
  show();
}

function judge(follows) {
  if (items.length === 0) return;
  judgements[items[current].dataset.item] = follows;
  remember();
  go(1);
}

function save() {
  const content = { format: Number(document.body.dataset.format), judgements };
  const link = document.createElement("a");
  const file = new Blob([JSON.stringify(content, null, 2) + "\n"], { type: "application/json" });
  link.href = URL.createObjectURL(file);
  link.download = "judgements.json";
  link.click();
  URL.revokeObjectURL(link.href);
}

yes.addEventListener("click", () => judge(true));
no.addEventListener("click", () => judge(false));
document.getElementById("back").addEventListener("click", () => go(-1));
document.getElementById("next").addEventListener("click", () => go(1));
document.getElementById("export").addEventListener("click", save);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = { y: () => judge(true), n: () => judge(false), ArrowLeft: () => go(-1), ArrowRight: () => go(1) };
  actions[event.key]?.();
});
show();
