"use strict";
// The page reads the document, draws it, and changes it at the user's clicks and keys.

const MOST_OPENED = 300; // "Open all" stops at this number of boxes: more take long to draw
const FEWEST_BOXES = 5; // at first, the page opens single boxes until it shows this many

const view = { root: null, selected: null, callers: null, zoom: 1, svg: null };
const byId = (id) => document.getElementById(id);

async function start() {
  const text = byId("data").textContent;
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  model = await new Response(stream).json();
  showsEvaluation = model.evaluates;
  view.svg = byId("picture").querySelector("svg");
  byId("mode").hidden = !model.layers.some((layer) => (layer.levels || []).length > 1);
  byId("mode").value = showsEvaluation ? "evaluation" : "training";
  byId("guards").textContent = `Guards (${model.guards.length})`;
  byId("changes").hidden = !model.changes;
  if (model.changes) byId("changes").textContent = `Changes (${model.changes.length})`;
  listen();
  reset();
  document.documentElement.dataset.drawn = performance.now().toFixed(0);
}

function reset() {
  searchable = null;
  view.root = rootItem();
  view.callers = firstCallers();
  let item = view.root;
  while (item.isOpen && contentsOf(item).items.length < FEWEST_BOXES) {
    const inside = contentsOf(item).items.filter(canOpen);
    if (inside.length !== 1) break;
    [item] = inside;
    item.isOpen = true;
  }
  redraw();
  select(view.root);
  const [first] = item.isOpen ? contentsOf(item).items : [];
  if (first) scrollTo(first.element);
}

function redraw() {
  drawPicture(view.svg, view.root, view.zoom);
  byId("outline").replaceChildren(...outlineRows(view.root));
}

function say(text) {
  byId("status").textContent = text;
}

// --- selecting and opening ---

function rowOf(item) {
  return byId("outline").querySelector(`[data-key="${CSS.escape(item.key)}"]`);
}

function select(item, options = {}) {
  if (item.kind === "port") item = itemAt(graphItem(item), portPlace(item));
  let isShown = true;
  for (let each = item.parent; each; each = each.parent) {
    if (each.isOpen) continue;
    each.isOpen = true;
    forgetLayout(each);
    isShown = false;
  }
  if (!isShown) redraw();
  for (const old of document.querySelectorAll("[aria-selected], [tabindex='0'][data-key]")) {
    old.removeAttribute("aria-selected");
    old.setAttribute("tabindex", "-1");
  }
  view.selected = item;
  highlight(view.svg, item);
  const row = rowOf(item);
  row.setAttribute("aria-selected", "true");
  for (const each of [row, item.element]) each.setAttribute("tabindex", "0");
  row.scrollIntoView({ block: "nearest" });
  if (item.parent && !options.isSeen) scrollTo(item.element);
  if (options.focus) (options.focus === "row" ? row : item.element).focus({ preventScroll: true });
  showPanel("details", details(item, (other) => select(other)));
}

// Returns the node at the other end of the edge of a port, which is outside the group.
function portPlace(port) {
  if (port.isInto) return port.place;
  const { end } = shownGraph(port.parent);
  return port.level.outs[port.place].find((edge) => edge.sink >= end).sink;
}

function scrollTo(drawnItem) {
  const frame = byId("picture");
  const box = drawnItem.getBoundingClientRect();
  const around = frame.getBoundingClientRect();
  const isSeen = box.top >= around.top && box.bottom <= around.bottom &&
    box.left >= around.left && box.right <= around.right;
  if (isSeen) return;
  frame.scrollTop += box.top - around.top - Math.max(20, (around.height - box.height) / 2);
  frame.scrollLeft += box.left - around.left - Math.max(20, (around.width - box.width) / 2);
}

function toggle(item, options) {
  if (!canOpen(item) || !item.parent) return;
  item.isOpen = !item.isOpen;
  forgetLayout(item);
  redraw();
  select(item, options);
  say(`${namesOf(item)[0]} is ${item.isOpen ? "open" : "closed"}`);
}

function openAll() {
  const waiting = [view.root];
  let opened = 0;
  let left = 0;
  while (waiting.length) {
    const item = waiting.shift();
    if (!canOpen(item)) continue;
    if (!item.isOpen) {
      if (opened + contentsOf(item).items.length > MOST_OPENED) {
        left += 1;
        continue;
      }
      item.isOpen = true;
      forgetLayout(item);
      opened += contentsOf(item).items.length;
    }
    waiting.push(...contentsOf(item).items);
  }
  redraw();
  select(view.selected);
  say(left ? `Opened what fits; ${count(left, "box")}es stay closed: open them one by one` :
    "All boxes are open");
}

function closeAll() {
  const close = (item) => {
    if (!item.contents) return;
    item.contents.items.forEach(close);
    if (item !== view.root) item.isOpen = false;
    item.layout = null;
    item.element = null;
  };
  close(view.root);
  redraw();
  select(view.root);
  say("All boxes are closed");
}

function goToNode(layer, node) {
  const level = levelOf(layer);
  const place = level && node ? level.steps.findIndex((step) => step.name === node) : -1;
  if (!view.callers.has(layer)) {
    say(`${model.layers[layer].name} is not called in this mode`);
    return;
  }
  const item = itemOfLayer(view.root, view.callers, layer);
  select(place < 0 ? item : itemAt(item, place));
}

// --- panels ---

function showPanel(name, children) {
  byId("panel").replaceChildren(...children);
  byId("panel").scrollTop = 0;
  for (const each of document.querySelectorAll("[data-panel]")) {
    each.setAttribute("aria-pressed", String(each.dataset.panel === name));
  }
}

function showResults() {
  const text = byId("search").value;
  const found = searchResults(view.callers, text);
  const shown = found.slice(0, MOST_RESULTS);
  const draw = (entry) => button("", () => goToEntry(entry), { class: "result" });
  const entries = shown.map((entry) => {
    const made = draw(entry);
    made.append(element("b", {}, entry.label), ` ${entry.name}`);
    return element("li", {}, made);
  });
  byId("results").replaceChildren(...entries);
  byId("results").hidden = !text;
  const more = found.length > shown.length ? `, ${shown.length} shown` : "";
  say(text ? `${found.length} found${more}` : "");
}

function goToEntry(entry) {
  byId("results").hidden = true;
  select(itemAt(itemOfLayer(view.root, view.callers, entry.layer), entry.place), { focus: "box" });
}

function setZoom(zoom) {
  view.zoom = Math.min(3, Math.max(0.05, zoom));
  drawPicture(view.svg, view.root, view.zoom);
}

function fit() {
  const { width, height } = layoutOf(view.root);
  const frame = byId("picture");
  setZoom(Math.min(1, frame.clientWidth / (width + 24), frame.clientHeight / (height + 24)));
}

function savePicture() {
  const style = byId("picture-style").textContent;
  const blob = new Blob([pictureFile(view.svg, style)], { type: "image/svg+xml" });
  const link = element("a", { href: URL.createObjectURL(blob), download: "model.svg" });
  link.click();
  URL.revokeObjectURL(link.href);
}
