"use strict";
// The panels beside the picture: the outline, the details of the selected item, and lists.

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

// Returns a button that calls a function.
function button(text, action, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", action);
  return made;
}

// --- the outline: a tree with a row for each item of the picture ---

function outlineRows(root) {
  const rows = [];
  const walk = (item, level, number, siblings) => {
    rows.push(outlineRow(item, level, number, siblings));
    if (!item.isOpen) return;
    const inside = contentsOf(item).items.filter((each) => each.kind !== "port");
    inside.forEach((each, index) => walk(each, level + 1, index + 1, inside.length));
  };
  walk(root, 1, 1, 1);
  return rows;
}

function outlineRow(item, level, number, siblings) {
  const [title, subtitle] = namesOf(item);
  const row = element("div", {
    role: "treeitem",
    tabindex: "-1",
    "aria-level": level,
    "aria-posinset": number,
    "aria-setsize": siblings,
    "data-key": item.key,
  });
  if (canOpen(item)) row.setAttribute("aria-expanded", String(item.isOpen));
  row.style.paddingLeft = `${0.4 + Math.min(level, 12) * 0.9}em`;
  const sign = canOpen(item) ? (item.isOpen ? "▾" : "▸") : "·";
  row.append(element("span", { class: "sign", "aria-hidden": "true" }, sign));
  row.append(element("span", { class: "name" }, title));
  if (subtitle) row.append(element("span", { class: "more" }, ` ${subtitle}`));
  const mark = markOf(item);
  if (mark) {
    const word = mark === "+" ? "added" : "has changes";
    row.append(element("span", { class: `mark ${word.split(" ")[0]}`, title: word }, mark));
  }
  return row;
}

// --- details ---

function table(pairs) {
  const list = element("dl");
  for (const [name, value] of pairs) {
    list.append(element("dt", {}, name));
    list.append(element("dd", {}, typeof value === "string" ? value : value || "–"));
  }
  return list;
}

function section(title, ...children) {
  return element("section", {}, element("h3", {}, title), ...children);
}

function list(entries, draw) {
  return element("ul", {}, ...entries.map((entry) => element("li", {}, draw(entry))));
}

// Returns the details of an item. The function `go` selects another item.
function details(item, go) {
  const [title, subtitle] = namesOf(item);
  const made = [element("h2", {}, title, element("small", {}, subtitle))];
  const layer = item.layer === undefined ? null : model.layers[item.layer];
  if (item.step) made.push(element("pre", {}, item.step.text));
  if (item.kind === "root") made.push(...modelFacts());
  if (layer) made.push(...layerFacts(layer));
  const notes = item.step ? item.step.notes || [] : [];
  if (notes.length) made.push(section("Annotations of the node", table(notes)));
  made.push(...neighbours(item, go), ...changesOf(item), ...guardsOf(item));
  if (item.kind === "group") made.push(section("Nodes", groupNodes(item, go)));
  return made;
}

function modelFacts() {
  const layers = model.layers.filter((each) => each.type !== "body");
  const pairs = [["layers", layers.length.toLocaleString("en")]];
  const sum = (field) => layers.reduce((total, each) => total + (each[field] || 0), 0);
  if (layers.some((each) => each.parameters !== undefined)) {
    pairs.push(["parameters", sum("parameters").toLocaleString("en")]);
  }
  if (layers.some((each) => each.flops !== undefined)) {
    pairs.push(["FLOPs", sum("flops").toLocaleString("en")]);
  }
  const made = [section("Model", table(pairs))];
  if (model.notes.length) made.push(section("Not known", list(model.notes, (note) => note)));
  return made;
}

function layerFacts(layer) {
  const made = [];
  const pairs = [["path", layer.name], ["type", layer.type]];
  const inside = totals(layer);
  for (const [field, noun] of [["parameters", "parameters"], ["flops", "FLOPs"]]) {
    if (layer[field] === undefined) continue;
    const own = layer[field].toLocaleString("en");
    const whole = inside[field].toLocaleString("en");
    pairs.push([noun, layer.levels ? `${whole} (${own} of its own)` : own]);
  }
  made.push(section("Layer", table(pairs)));
  if (layer.attributes) made.push(section("Attributes", table(layer.attributes)));
  if (layer.notes) made.push(section("Tensors and annotations", table(layer.notes)));
  return made;
}

// Returns the parameters and FLOPs of a layer and all layers inside it.
function totals(layer) {
  const found = { parameters: 0, flops: 0 };
  const prefix = layer === model.layers[model.root] ? "" : `${layer.name}.`;
  for (const each of model.layers) {
    if (each !== layer && !each.name.startsWith(prefix)) continue;
    found.parameters += each.parameters || 0;
    found.flops += each.flops || 0;
  }
  return found;
}

// Returns the lists of the nodes that an item reads, and of those that read it.
function neighbours(item, go) {
  if (!item.parent || item.kind === "body") return [];
  if (item.kind === "step" && item.step.kind === "input") return inputSources(item, go);
  const { level } = item;
  const [start, end] = item.kind === "group"
    ? [item.group.start, item.group.end] : [item.place, item.place + 1];
  const ends = (edges, side) => {
    const found = new Map();
    for (let place = start; place < end; place++) {
      for (const edge of level[edges][place]) {
        if (edge[side] < start || edge[side] >= end) found.set(edge[side], edge.shape);
      }
    }
    return [...found];
  };
  const graph = graphItem(item);
  const draw = ([place, shape]) => {
    const to = itemAt(graph, place);
    const text = namesOf(to).filter(Boolean).join(" – ");
    return element("span", {}, button(text, () => go(to), { class: "link" }), shapeText(shape));
  };
  const made = [];
  const sources = ends("ins", "source");
  const sinks = ends("outs", "sink");
  if (sources.length) made.push(section("Reads", list(sources, draw)));
  if (sinks.length) made.push(section("Is read by", list(sinks, draw)));
  return made;
}

function shapeText(shape) {
  return shape ? element("span", { class: "shape" }, ` ${shape}`) : "";
}

// Returns the same for an input, whose source is an argument of the call around it.
function inputSources(item, go) {
  const call = graphItem(item);
  const made = call.kind === "root"
    ? section("Is fed by", element("p", {}, "the caller of the model"))
    : section("Is fed by", element("p", {},
      "the arguments of ", button(namesOf(call)[0], () => go(call), { class: "link" })));
  const readers = item.level.outs[item.place];
  const draw = ({ sink, shape }) => {
    const to = itemAt(call, sink);
    return element("span", {}, button(namesOf(to).join(" – "), () => go(to), { class: "link" }),
      shapeText(shape));
  };
  return readers.length ? [made, section("Is read by", list(readers, draw))] : [made];
}

function groupNodes(item, go) {
  const { start, end } = item.group;
  const places = Array.from({ length: Math.min(end - start, 60) }, (_, index) => start + index);
  const graph = graphItem(item);
  return list(places, (place) => {
    const step = item.level.steps[place];
    return button(`${step.name} – ${step.label}`, () => go(itemAt(graph, place)), { class: "link" });
  });
}

function changesOf(item) {
  const lines = ownChanges(item);
  return lines.length ? [section("Changes", list(lines, (line) => element("code", {}, line)))] : [];
}

function guardsOf(item) {
  const owner = item.kind === "step" ? ownerOf(item) : null;
  const found = model.guards.filter(([layer, node]) => (
    owner === model.layers[layer] && node === item.step.name
  ));
  return found.length ? [section("Guard", list(found, guardText))] : [];
}

function guardText([, , says, where, when]) {
  const condition = when ? ` if ${when}` : "";
  const place = where ? element("code", { class: "where" }, where) : "";
  return element("span", {}, `${says}${condition} `, place);
}

// --- lists ---

function guardList(go) {
  if (!model.guards.length) return [element("p", {}, "The model has no guards.")];
  return [list(model.guards, (guard) => {
    const [layer, node] = guard;
    const text = `${model.layers[layer].name}: ${node}`;
    return element("span", {}, button(text, () => go(layer, node), { class: "link" }), " ",
      guardText(guard));
  })];
}

function changeList(go) {
  if (!model.changes.length) return [element("p", {}, "There are no differences.")];
  return [list(model.changes, ([layer, node, line]) => {
    const text = element("code", {}, line);
    if (layer === null) return text;
    const made = button("", () => go(layer, node), { class: "link" });
    made.append(text);
    return made;
  })];
}
