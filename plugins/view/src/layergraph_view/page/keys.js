"use strict";
// Handlers of the mouse and the keyboard.

function listen() {
  const itemUnder = (event) => {
    const found = event.target.closest("[data-key]");
    return found && itemsByKey.get(found.dataset.key);
  };
  view.svg.addEventListener("click", (event) => {
    const item = itemUnder(event);
    if (!item) return;
    if (isToggling(event)) toggle(item, { focus: "box" });
    // Do not scroll: a second click must hit the same box.
    else select(item, { focus: "box", isSeen: true });
  });
  view.svg.addEventListener("keydown", (event) => runKey(event, pictureKeys));
  byId("outline").addEventListener("click", (event) => {
    const item = itemUnder(event);
    if (!item) return;
    if (isToggling(event)) toggle(item, { focus: "row" });
    else select(item, { focus: "row" });
  });
  byId("outline").addEventListener("keydown", (event) => runKey(event, outlineKeys));
  listenToBar();
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, select");
    if (event.key === "/" && !isTyping) {
      event.preventDefault();
      byId("search").focus();
    } else if (event.key === "Escape" && event.target.closest(".search")) {
      byId("search").value = "";
      showResults();
      select(view.selected, { focus: "box" });
    }
  });
}

// Returns whether a click opens or closes a box: a double click, or one on the sign.
function isToggling(event) {
  return event.detail === 2 || event.target.classList.contains("sign");
}

function listenToBar() {
  const onClick = {
    "open-all": openAll,
    "close-all": closeAll,
    larger: () => setZoom(view.zoom * 1.25),
    smaller: () => setZoom(view.zoom / 1.25),
    fit,
    save: savePicture,
    guards: () => showPanel("guards", guardList(goToNode)),
    changes: () => showPanel("changes", changeList(goToNode)),
    help: () => showPanel("help", [byId("help-text").content.cloneNode(true)]),
  };
  for (const [id, action] of Object.entries(onClick)) byId(id).addEventListener("click", action);
  byId("mode").addEventListener("change", () => {
    showsEvaluation = byId("mode").value === "evaluation";
    reset();
  });
  byId("search").addEventListener("input", showResults);
  byId("search").closest(".search").addEventListener("keydown", searchKeys);
  byId("picture").addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    setZoom(view.zoom * (event.deltaY < 0 ? 1.1 : 1 / 1.1));
  }, { passive: false });
}

function searchKeys(event) {
  const buttons = [...byId("results").querySelectorAll("button")];
  const place = buttons.indexOf(document.activeElement);
  const isInput = event.target === byId("search");
  if (event.key === "Enter" && isInput && buttons.length) {
    event.preventDefault();
    buttons[0].click();
  } else if (event.key === "ArrowDown" && place + 1 < buttons.length) {
    event.preventDefault();
    buttons[place + 1].focus();
  } else if (event.key === "ArrowUp" && !isInput) {
    event.preventDefault();
    (buttons[place - 1] || byId("search")).focus();
  }
}

function runKey(event, keys) {
  const action = keys[event.key];
  if (!action || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  action(view.selected);
}

// --- keys in the picture: up and down follow edges, left and right go through a level ---

function levelAround(item) {
  return item.parent ? contentsOf(item.parent) : { items: [item], edges: [] };
}

function sourcesOf(item) {
  return levelAround(item).edges.filter((edge) => edge.sink === item).map((edge) => edge.source);
}

function readersOf(item) {
  return levelAround(item).edges.filter((edge) => edge.source === item).map((edge) => edge.sink);
}

const isReal = (item) => item.kind !== "port";

function down(item) {
  if (item.isOpen) return contentsOf(item).items.find(isReal);
  for (let each = item; each; each = each.parent) {
    const next = readersOf(each).find(isReal);
    if (next) return next;
  }
  return null;
}

function up(item) {
  return sourcesOf(item).find(isReal) || item.parent;
}

function siblingOf(item, step) {
  const siblings = levelAround(item).items.filter(isReal);
  return siblings[siblings.indexOf(item) + step];
}

function goTo(item, focus) {
  if (item) select(item, { focus });
}

const pictureKeys = {
  ArrowDown: (item) => goTo(down(item), "box"),
  ArrowUp: (item) => goTo(up(item), "box"),
  ArrowRight: (item) => goTo(siblingOf(item, 1), "box"),
  ArrowLeft: (item) => goTo(siblingOf(item, -1), "box"),
  Home: () => goTo(view.root, "box"),
  Escape: (item) => goTo(item.parent, "box"),
  Enter: (item) => item.parent && toggle(item, { focus: "box" }),
  " ": (item) => item.parent && toggle(item, { focus: "box" }),
  "+": () => setZoom(view.zoom * 1.25),
  "-": () => setZoom(view.zoom / 1.25),
};

// --- keys in the outline: those of the ARIA pattern for tree views ---

function siblingRow(item, step) {
  const rows = [...byId("outline").children];
  const row = rows[rows.indexOf(rowOf(item)) + step];
  return row && itemsByKey.get(row.dataset.key);
}

const outlineKeys = {
  ArrowDown: (item) => goTo(siblingRow(item, 1), "row"),
  ArrowUp: (item) => goTo(siblingRow(item, -1), "row"),
  ArrowRight: (item) => (
    item.isOpen ? goTo(siblingRow(item, 1), "row") : toggle(item, { focus: "row" })
  ),
  ArrowLeft: (item) => (
    item.isOpen && item.parent ? toggle(item, { focus: "row" }) : goTo(item.parent, "row")
  ),
  Home: () => goTo(view.root, "row"),
  End: () => goTo(itemsByKey.get(byId("outline").lastElementChild.dataset.key), "row"),
  Escape: (item) => goTo(item.parent, "row"),
  Enter: (item) => goTo(item, "box"),
  " ": (item) => item.parent && toggle(item, { focus: "row" }),
};

start().catch((error) => {
  say(`The page cannot be shown: ${error.message}; open it in a current browser`);
  throw error;
});
