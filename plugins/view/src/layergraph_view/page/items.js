"use strict";
// Items are the boxes of the picture and the rows of the outline.
//
// An item is a node of a graph, a group of nodes, a body that a node runs, or a port: the end of an
// edge that leaves a group. A user can open an item that contains others. The page makes these when
// the user opens it for the first time, because a call may contain thousands of nodes.

let model; // the document: see document.py
let showsEvaluation; // true if the page shows the graphs of evaluation mode
const itemsByKey = new Map();

function levelOf(layer) {
  const levels = model.layers[layer].levels;
  if (!levels) return null;
  const level = levels[showsEvaluation ? levels.length - 1 : 0];
  if (!level.ins) indexEdges(level);
  return level;
}

function indexEdges(level) {
  level.edges = level.edges || [];
  level.ins = level.steps.map(() => []);
  level.outs = level.steps.map(() => []);
  for (const [source, sink, shape] of level.edges) {
    level.ins[sink].push({ source, sink, shape });
    level.outs[source].push({ source, sink, shape });
  }
}

function makeItem(parent, name, fields) {
  const key = parent ? `${parent.key}/${name}` : name;
  const empty = { isOpen: false, contents: null, layout: null, element: null };
  const item = { parent, key, ...empty, ...fields };
  itemsByKey.set(key, item);
  return item;
}

function rootItem() {
  itemsByKey.clear();
  const root = makeItem(null, "model", { kind: "root", layer: model.root });
  root.isOpen = canOpen(root);
  return root;
}

function stepItem(parent, level, place) {
  const step = level.steps[place];
  return makeItem(parent, String(place), { kind: "step", level, place, step, layer: step.target });
}

function groupItem(parent, level, group) {
  return makeItem(parent, `${group.start}-${group.end}`, { kind: "group", level, group });
}

// Returns the graph that an open item shows: a level and a range of its nodes.
function shownGraph(item) {
  if (item.kind === "group") {
    const { start, end, groups } = item.group;
    return { level: item.level, start, end, groups: groups || [] };
  }
  const level = item.layer === undefined ? null : levelOf(item.layer);
  return level && { level, start: 0, end: level.steps.length, groups: level.groups || [] };
}

function canOpen(item) {
  if (item.kind === "port") return false;
  if (item.kind === "group" || (item.step && item.step.bodies)) return true;
  return item.layer !== undefined && Boolean(model.layers[item.layer].levels);
}

// Returns the items in an item, and the edges between them.
function contentsOf(item) {
  if (item.contents) return item.contents;
  const contents = { items: [], edges: [] };
  item.contents = contents;
  const graph = shownGraph(item);
  if (graph) {
    const at = itemsOfGraph(item, graph, contents.items);
    contents.edges = edgesOfGraph(item, graph, at, contents.items);
  } else {
    (item.step.bodies || []).forEach((layer, number) => {
      contents.items.push(makeItem(item, `body${number}`, { kind: "body", layer }));
    });
  }
  return contents;
}

function itemsOfGraph(item, { level, start, end, groups }, items) {
  const at = new Map(); // the item at each position
  const groupAt = new Map(groups.map((group) => [group.start, group]));
  for (let place = start; place < end; ) {
    const group = groupAt.get(place);
    const made = group ? groupItem(item, level, group) : stepItem(item, level, place);
    const behind = group ? group.end : place + 1;
    for (; place < behind; place++) at.set(place, made);
    items.push(made);
  }
  return at;
}

function edgesOfGraph(item, { level, start, end }, at, items) {
  const edges = new Map();
  const ports = new Map();
  const port = (place, isInto) => {
    const name = `${isInto ? "from" : "to"}${place}`;
    if (!ports.has(name)) {
      const made = makeItem(item, name, { kind: "port", level, place, isInto });
      ports.set(name, made);
      items.push(made);
    }
    return ports.get(name);
  };
  const connect = (source, sink, edge) => {
    if (source === sink) return;
    const name = `${source.key} ${sink.key}`;
    if (!edges.has(name)) edges.set(name, { source, sink, shapes: new Set(), isCondition: true });
    const made = edges.get(name);
    if (edge.shape) made.shapes.add(edge.shape);
    made.isCondition = made.isCondition && isCondition(level, edge);
  };
  for (let place = start; place < end; place++) {
    for (const edge of level.ins[place]) {
      connect(at.get(edge.source) || port(edge.source, true), at.get(place), edge);
    }
    for (const edge of level.outs[place]) {
      if (!at.has(edge.sink)) connect(at.get(place), port(place, false), edge);
    }
  }
  return [...edges.values()];
}

// Returns whether the sink of an edge reads the source as its condition only.
function isCondition(level, { source, sink }) {
  const condition = level.steps[sink].condition;
  return condition !== undefined && condition === level.steps[source].name;
}

// --- names ---

function lastName(name, parent) {
  const prefix = parent && parent !== "root" ? `${parent}.` : "";
  return prefix && name.startsWith(prefix) ? name.slice(prefix.length) : name;
}

// Returns the layer whose graph contains an item.
function ownerOf(item) {
  for (let each = item.parent; each; each = each.parent) {
    if (each.kind !== "group" && each.layer !== undefined) return model.layers[each.layer];
  }
  return null;
}

function layerName(item) {
  const owner = ownerOf(item);
  return lastName(model.layers[item.layer].name, owner && owner.name);
}

function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

// Returns the title and the subtitle of an item.
function namesOf(item) {
  if (!item.names) item.names = makeNames(item);
  return item.names;
}

function makeNames(item) {
  if (item.kind === "root") return [model.title, model.layers[model.root].type];
  if (item.kind === "group") return groupNames(item);
  if (item.kind === "body") return [layerName(item), "body"];
  if (item.kind === "port") return [item.level.steps[item.place].name, item.isInto ? "from" : "to"];
  const { kind, label, name } = item.step;
  if (kind === "call") {
    const own = layerName(item);
    return canOpen(item) ? [own, sizeText(item)] : [label, own];
  }
  if (kind === "input") return [name, "input"];
  if (kind === "output") return ["output", ""];
  if (kind === "state") return [label.split(".").pop(), "state"];
  if (kind === "guard") return ["guard", name];
  return [label.split(".").pop(), name];
}

function sizeText(item) {
  const layer = model.layers[item.layer];
  return `${layer.type} · ${count(levelOf(item.layer).steps.length, "node")}`;
}

function groupNames({ parent, level, group }) {
  const { start, end, times } = group;
  const owner = ownerOf({ parent }) || model.layers[model.root];
  const nameAt = (place) => {
    const step = level.steps[place];
    if (step.kind !== "call") return step.name;
    return lastName(model.layers[step.target].name, owner.name);
  };
  const range = `${nameAt(start)} … ${nameAt(end - 1)}`;
  if (!times) return [count(end - start, "node"), range];
  const names = new Set();
  for (let place = start; place < start + (end - start) / times; place++) {
    const step = level.steps[place];
    const stem = nameAt(place).replace(/[._]?\d+$/, "");
    const isLayer = step.kind === "call" && model.layers[step.target].levels && stem;
    names.add(isLayer ? stem : step.label.split(".").pop());
  }
  return [`${[...names].join(", ")} × ${times}`, range];
}

// --- finding items ---

// Returns, for each layer, the first node that calls or runs it: {layer, place, body}.
function firstCallers() {
  const found = new Map([[model.root, null]]);
  const waiting = [model.root];
  while (waiting.length) {
    const layer = waiting.shift();
    const level = levelOf(layer);
    (level ? level.steps : []).forEach((step, place) => {
      const inside = step.target === undefined ? step.bodies || [] : [step.target];
      inside.forEach((target, number) => {
        if (found.has(target)) return;
        found.set(target, { layer, place, body: step.target === undefined ? number : null });
        waiting.push(target);
      });
    });
  }
  return found;
}

// Returns the item of a node in the graph of an item, also of a node inside groups.
function itemAt(item, place) {
  for (;;) {
    const inside = contentsOf(item).items.find((each) => {
      if (each.kind === "group") return each.group.start <= place && place < each.group.end;
      return each.kind === "step" && each.place === place;
    });
    if (!inside || inside.kind !== "group") return inside;
    item = inside;
  }
}

// Returns the item of the first node that calls a layer.
function itemOfLayer(root, callers, layer) {
  const way = [];
  for (let each = callers.get(layer); each; each = callers.get(each.layer)) way.unshift(each);
  let item = root;
  for (const { place, body } of way) {
    item = itemAt(item, place);
    if (body !== null) item = contentsOf(item).items[body];
  }
  return item;
}

// Returns the nearest item around an item that shows a whole graph.
function graphItem(item) {
  let around = item.parent;
  while (around.kind === "group") around = around.parent;
  return around;
}
