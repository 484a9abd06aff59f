"use strict";
// The picture: an SVG element for each item. The element of an item is kept until its layout
// changes.

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function label(text, x, y, className) {
  const made = shape("text", { x, y, class: className });
  made.textContent = text;
  return made;
}

function categoryOf(item) {
  if (item.kind !== "step") return item.kind;
  if (item.step.kind === "call") return canOpen(item) ? "composite" : "layer";
  return item.step.kind;
}

function drawn(item) {
  if (!item.drawn) item.drawn = draw(item);
  return item.drawn;
}

function draw(item) {
  const { width, height, title } = layoutOf(item);
  const [name, subtitle] = namesOf(item);
  const group = shape("g", {
    class: `box ${categoryOf(item)}${item.isOpen ? " open" : ""}`,
    role: item.isOpen ? "group" : "button",
    "aria-label": spoken(item),
    tabindex: "-1",
    "data-key": item.key,
  });
  if (canOpen(item)) group.setAttribute("aria-expanded", String(item.isOpen));
  const mark = markOf(item);
  if (mark) group.classList.add(mark === "+" ? "added" : "changed");
  const hint = shape("title", {});
  hint.textContent = [name, subtitle].filter(Boolean).join(" – ");
  group.append(hint, shape("rect", { width, height, rx: item.isOpen ? 8 : 6 }));
  if (item.isOpen) {
    group.append(withSign(item, title, 10, "title frame"));
    drawContents(item, group);
  } else {
    const shown = layoutOf(item);
    group.append(withSign(item, shown.title, width / 2, "title"));
    if (shown.subtitle) group.append(label(shown.subtitle, width / 2, 34, "subtitle"));
  }
  if (mark) group.append(label(mark, width - 8, 15, "mark"));
  return group;
}

// A title, after a sign that opens or closes the box.
function withSign(item, title, x, className) {
  const made = label(title, x, 18, className);
  if (!canOpen(item) || !item.parent) return made;
  const sign = shape("tspan", { class: "sign" });
  sign.textContent = item.isOpen ? "▾ " : "▸ ";
  made.prepend(sign);
  return made;
}

function drawContents(item, group) {
  const { boxes, lines } = layoutOf(item);
  for (const { edge, points, x, y } of lines) {
    const line = shape("path", { d: pathThrough(points), "marker-end": "url(#arrow)" });
    line.setAttribute("class", edge.isCondition ? "edge condition" : "edge");
    edge.drawn = line;
    group.append(line);
    if (edge.label) {
      edge.drawnLabel = label(edge.label, x, y + 4, "shape");
      group.append(edge.drawnLabel);
    }
  }
  for (const { item: each, x, y } of boxes) {
    const inner = drawn(each);
    inner.setAttribute("transform", `translate(${x},${y})`);
    group.append(inner);
  }
}

// + for what is new, ~ for what has changed or holds a change.
function markOf(item) {
  if (!model.changes) return "";
  const lines = ownChanges(item);
  if (lines.some((line) => line.startsWith("+ ") && isWhole(item, line))) return "+";
  return lines.length || holdsChange(item) ? "~" : "";
}

function ownChanges(item) {
  const ofLayer = item.layer === undefined ? [] : model.layers[item.layer].changes || [];
  const ofStep = item.step ? item.step.changes || [] : [];
  return [...ofStep, ...ofLayer];
}

// Whether a line is about all of the item, instead of an attribute of it.
function isWhole(item, line) {
  const said = line.slice(2);
  const layer = item.layer === undefined ? null : model.layers[item.layer].name;
  const step = item.step ? item.step.name : null;
  return [`${layer}:`, `node ${step}:`].some((start) => said.startsWith(start)) || said === layer;
}

function holdsChange(item) {
  const graph = canOpen(item) ? shownGraph(item) : null;
  if (graph) return rangeHolds(graph.level, graph.start, graph.end);
  return Boolean(item.step && (item.step.bodies || []).some(layerHolds));
}

function rangeHolds(level, start, end) {
  return level.steps.slice(start, end).some((step) => {
    const inside = step.target === undefined ? step.bodies || [] : [step.target];
    return (step.changes || []).length > 0 || inside.some(layerHolds);
  });
}

const changedLayers = new Map();

function layerHolds(layer) {
  if (!changedLayers.has(layer)) {
    changedLayers.set(layer, false);
    const { changes, levels } = model.layers[layer];
    const holds = (changes || []).length > 0 ||
      (levels || []).some((level) => rangeHolds(level, 0, level.steps.length));
    changedLayers.set(layer, holds);
  }
  return changedLayers.get(layer);
}

// The text for screen readers.
function spoken(item) {
  const [title, subtitle] = namesOf(item);
  const words = [title, subtitle].filter(Boolean);
  const mark = markOf(item);
  if (mark) words.push(mark === "+" ? "added" : "has changes");
  if (canOpen(item)) words.push(item.isOpen ? "open" : "closed");
  return words.join(", ");
}

// --- the whole ---

function drawPicture(svg, root, zoom) {
  const { width, height } = layoutOf(root);
  svg.setAttribute("viewBox", `-8 -8 ${width + 16} ${height + 16}`);
  svg.setAttribute("width", (width + 16) * zoom);
  svg.setAttribute("height", (height + 16) * zoom);
  const whole = drawn(root);
  if (whole.parentNode !== svg) {
    for (const old of svg.querySelectorAll(":scope > .box")) old.remove();
    svg.append(whole);
  }
}

// Show which edges end at an item, and which boxes are at their other ends.
function highlight(svg, item) {
  for (const each of svg.querySelectorAll(".selected, .into, .outof")) {
    each.classList.remove("selected", "into", "outof");
  }
  item.drawn.classList.add("selected");
  if (!item.parent) return;
  for (const edge of contentsOf(item.parent).edges) {
    const side = edge.sink === item ? "into" : edge.source === item ? "outof" : null;
    if (!side || !edge.drawn) continue;
    const other = side === "into" ? edge.source : edge.sink;
    for (const each of [edge.drawn, edge.drawnLabel, other.drawn]) {
      if (each) each.classList.add(side);
    }
  }
}

// The picture as a file, in the colours of paper.
function pictureFile(svg, style) {
  const copy = svg.cloneNode(true);
  copy.setAttribute("xmlns", SVG);
  for (const each of copy.querySelectorAll(".selected, .into, .outof")) {
    each.classList.remove("selected", "into", "outof");
  }
  const sheet = shape("style", {});
  // Few other programs know variables.
  sheet.textContent = style.replace(/var\(--\w+, ([^)]*)\)/g, "$1");
  copy.prepend(sheet);
  return new XMLSerializer().serializeToString(copy);
}
