"use strict";
// The search finds nodes by name, type, path or attribute, in all graphs that the model calls.

const MOST_RESULTS = 60;
let searchable = null;

function searchEntries(callers) {
  if (searchable) return searchable;
  searchable = [];
  for (const layer of callers.keys()) {
    const level = levelOf(layer);
    const owner = model.layers[layer];
    (level ? level.steps : []).forEach((step, place) => {
      const target = step.target === undefined ? null : model.layers[step.target];
      const name = target ? target.name : `${owner.name}: ${step.name}`;
      const attributes = target && target.attributes
        ? target.attributes.map(([key, value]) => `${key}=${value}`).join(" ") : "";
      const text = `${name} ${step.name} ${step.label} ${attributes}`.toLowerCase();
      searchable.push({ layer, place, name, label: step.label, text });
    });
  }
  return searchable;
}

// Returns the entries that contain all words of a text. Entries named by the text come first.
function searchResults(callers, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const found = searchEntries(callers).filter(
    (entry) => words.every((word) => entry.text.includes(word)),
  );
  const rank = (entry) => {
    const name = entry.name.toLowerCase();
    const isNamed = name === words[0] || entry.label === words[0];
    return isNamed ? 0 : words.every((word) => `${name} ${entry.label}`.includes(word)) ? 1 : 2;
  };
  return found.map((entry, index) => [rank(entry), index, entry])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, , entry]) => entry);
}
