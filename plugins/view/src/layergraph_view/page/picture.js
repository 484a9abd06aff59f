"use strict";
// The picture has an SVG element for each item. It keeps the element until the layout of the item
// changes, because a large graph takes long to draw.

const SVG = "http://www.w3.org/2000/svg";

function svgElement(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function svgText(text, x, y, className) {
  const made = svgElement("text", { x, y, class: className });
  made.textContent = text;
  return made;
}

function categoryOf(item) {
  if (item.kind !== "step") return item.kind;
  if (item.step.kind === "call") return canOpen(item) ? "composite" : "layer";
  return item.step.kind;
}

function elementOf(item) {
  if (!item.element) item.element = draw(item);
  return item.element;
}

function draw(item) {
  const { width, height, title } = layoutOf(item);
  const [name, subtitle] = namesOf(item);
  const group = svgElement("g", {
    class: `box ${categoryOf(item)}${item.isOpen ? " open" : ""}`,
    role: item.isOpen ? "group" : "button",
    "aria-label": accessibleName(item),
    tabindex: "-1",
    "data-key": item.key,
  });
  if (canOpen(item)) group.setAttribute("aria-expanded", String(item.isOpen));
  const mark = markOf(item);
  if (mark) group.classList.add(mark === "+" ? "added" : "changed");
  const hint = svgElement("title", {});
  hint.textContent = [name, subtitle].filter(Boolean).join(" – ");
  group.append(hint, svgElement("rect", { width, height, rx: item.isOpen ? 8 : 6 }));
  if (item.isOpen) {
    group.append(titleWithSign(item, title, 10, "title frame"));
    drawContents(item, group);
  } else {
    const shown = layoutOf(item);
    group.append(titleWithSign(item, shown.title, width / 2, "title"));
    if (shown.subtitle) group.append(svgText(shown.subtitle, width / 2, 34, "subtitle"));
  }
  if (mark) group.append(svgText(mark, width - 8, 15, "mark"));
  return group;
}

// Returns the title; a sign before it opens or closes the box.
function titleWithSign(item, title, x, className) {
  const made = svgText(title, x, 18, className);
  if (!canOpen(item) || !item.parent) return made;
  const sign = svgElement("tspan", { class: "sign" });
  sign.textContent = item.isOpen ? "▾ " : "▸ ";
  made.prepend(sign);
  return made;
}

function drawContents(item, group) {
  const { boxes, lines } = layoutOf(item);
  for (const { edge, points, x, y } of lines) {
    const line = svgElement("path", { d: pathThrough(points), "marker-end": "url(#arrow)" });
    line.setAttribute("class", edge.isCondition ? "edge condition" : "edge");
    edge.element = line;
    group.append(line);
    if (edge.label) {
      edge.labelElement = svgText(edge.label, x, y + 4, "shape");
      group.append(edge.labelElement);
    }
  }
  for (const { item: each, x, y } of boxes) {
    const inner = elementOf(each);
    inner.setAttribute("transform", `translate(${x},${y})`);
    group.append(inner);
  }
}

// Returns + for a new item, and ~ for an item that has or contains a change.
function markOf(item) {
  if (!model.changes) return "";
  const lines = ownChanges(item);
  if (lines.some((line) => line.startsWith("+ ") && concernsWhole(item, line))) return "+";
  return lines.length || containsChange(item) ? "~" : "";
}

function ownChanges(item) {
  const ofLayer = item.layer === undefined ? [] : model.layers[item.layer].changes || [];
  const ofStep = item.step ? item.step.changes || [] : [];
  return [...ofStep, ...ofLayer];
}

// Returns whether a line of the diff names the item itself, and not one of its attributes.
function concernsWhole(item, line) {
  const said = line.slice(2);
  const layer = item.layer === undefined ? null : model.layers[item.layer].name;
  const step = item.step ? item.step.name : null;
  return [`${layer}:`, `node ${step}:`].some((start) => said.startsWith(start)) || said === layer;
}

function containsChange(item) {
  const graph = canOpen(item) ? shownGraph(item) : null;
  if (graph) return rangeHasChange(graph.level, graph.start, graph.end);
  return Boolean(item.step && (item.step.bodies || []).some(layerHasChange));
}

function rangeHasChange(level, start, end) {
  return level.steps.slice(start, end).some((step) => {
    const inside = step.target === undefined ? step.bodies || [] : [step.target];
    return (step.changes || []).length > 0 || inside.some(layerHasChange);
  });
}

const changedLayers = new Map();

function layerHasChange(layer) {
  if (!changedLayers.has(layer)) {
    changedLayers.set(layer, false);
    const { changes, levels } = model.layers[layer];
    const holds = (changes || []).length > 0 ||
      (levels || []).some((level) => rangeHasChange(level, 0, level.steps.length));
    changedLayers.set(layer, holds);
  }
  return changedLayers.get(layer);
}

// Returns the text that screen readers read.
function accessibleName(item) {
  const [title, subtitle] = namesOf(item);
  const words = [title, subtitle].filter(Boolean);
  const mark = markOf(item);
  if (mark) words.push(mark === "+" ? "added" : "has changes");
  if (canOpen(item)) words.push(item.isOpen ? "open" : "closed");
  return words.join(", ");
}

// --- the whole picture ---

function drawPicture(svg, root, zoom) {
  const { width, height } = layoutOf(root);
  svg.setAttribute("viewBox", `-8 -8 ${width + 16} ${height + 16}`);
  svg.setAttribute("width", (width + 16) * zoom);
  svg.setAttribute("height", (height + 16) * zoom);
  const whole = elementOf(root);
  if (whole.parentNode !== svg) {
    for (const old of svg.querySelectorAll(":scope > .box")) old.remove();
    svg.append(whole);
  }
}

// Highlights the edges of an item and the boxes at their other ends.
function highlight(svg, item) {
  for (const each of svg.querySelectorAll(".selected, .into, .outof")) {
    each.classList.remove("selected", "into", "outof");
  }
  item.element.classList.add("selected");
  if (!item.parent) return;
  for (const edge of contentsOf(item.parent).edges) {
    const side = edge.sink === item ? "into" : edge.source === item ? "outof" : null;
    if (!side || !edge.element) continue;
    const other = side === "into" ? edge.source : edge.sink;
    for (const each of [edge.element, edge.labelElement, other.element]) {
      if (each) each.classList.add(side);
    }
  }
}

// Returns the picture as the text of a file, in the colours of the light theme.
function pictureFile(svg, style) {
  const copy = svg.cloneNode(true);
  copy.setAttribute("xmlns", SVG);
  for (const each of copy.querySelectorAll(".selected, .into, .outof")) {
    each.classList.remove("selected", "into", "outof");
  }
  const sheet = svgElement("style", {});
  // Few programs other than browsers support CSS variables.
  sheet.textContent = style.replace(/var\(--\w+, ([^)]*)\)/g, "$1");
  copy.prepend(sheet);
  return new XMLSerializer().serializeToString(copy);
}
