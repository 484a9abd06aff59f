"use strict";
// The positions of boxes and edges. dagre lays out the graph of each open item by itself, inner
// graphs first. So after a user opens a box, only this box and those around it get a new layout.

const CHARACTER = 7.3; // the width of each character: the font is monospaced
const MOST_CHARACTERS = 34;
const MOST_OF_SHAPE = 26; // the details panel shows the whole shape
const HEADER = 28;
const PADDING = 14;

function clipped(text, most = MOST_CHARACTERS) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function layoutOf(item) {
  if (!item.layout) item.layout = item.isOpen ? openLayout(item) : closedLayout(item);
  return item.layout;
}

function closedLayout(item) {
  const [title, subtitle] = namesOf(item).map((text) => clipped(text));
  const characters = Math.max(title.length + 2 * Number(canOpen(item)), subtitle.length * 0.9);
  const width = Math.max(64, characters * CHARACTER + 24 + 22 * Number(Boolean(markOf(item))));
  return { width, height: subtitle ? 42 : 28, title, subtitle };
}

function openLayout(item) {
  const { items, edges } = contentsOf(item);
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: "TB", nodesep: 26, ranksep: 30, edgesep: 14, ranker: "tight-tree" });
  for (const each of items) {
    const { width, height } = layoutOf(each);
    graph.setNode(each.key, { width, height });
  }
  for (const edge of edges) {
    edge.label = clipped([...edge.shapes].join(", "), MOST_OF_SHAPE);
    const width = edge.label ? edge.label.length * CHARACTER * 0.85 + 8 : 0;
    graph.setEdge(edge.source.key, edge.sink.key, { width, height: edge.label ? 14 : 0 });
  }
  dagre.layout(graph);
  const title = namesOf(item).filter(Boolean).map((text) => clipped(text, 60)).join("  ");
  const inner = graph.graph();
  const least = title.length * CHARACTER + 40;
  const innerWidth = items.length ? inner.width : 0;
  const width = Math.max(innerWidth, least) + 2 * PADDING;
  const shift = (width - innerWidth) / 2;
  const boxes = items.map((each) => {
    const { x, y, width: w, height: h } = graph.node(each.key);
    return { item: each, x: x - w / 2 + shift, y: y - h / 2 + HEADER };
  });
  const lines = edges.map((edge) => {
    const { points, x, y } = graph.edge(edge.source.key, edge.sink.key);
    const moved = points.map((point) => [point.x + shift, point.y + HEADER]);
    return { edge, points: moved, x: x + shift, y: y + HEADER };
  });
  const innerHeight = items.length ? inner.height : 0;
  return { width, height: innerHeight + HEADER + PADDING, title, boxes, lines };
}

// Drops the layouts of an item and of those around it, because it was opened or closed.
function forgetLayout(item) {
  for (let each = item; each; each = each.parent) {
    each.layout = null;
    each.element = null;
  }
}

// Returns the path of a smooth line through points.
function pathThrough(points) {
  const [[x, y], ...rest] = points;
  if (rest.length < 2) return `M${x},${y}L${rest.map((point) => point.join(",")).join(" ")}`;
  let path = `M${x},${y}`;
  for (let index = 0; index < rest.length - 1; index++) {
    const [cx, cy] = rest[index];
    const [nx, ny] = rest[index + 1];
    const isLast = index === rest.length - 2;
    path += `Q${cx},${cy} ${isLast ? nx : (cx + nx) / 2},${isLast ? ny : (cy + ny) / 2}`;
  }
  return path;
}
