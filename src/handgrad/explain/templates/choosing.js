// Choosing an entry, by pointer, tap or keys. An entry of a gradient lights the columns that make it, and its sum is
// written out below.

const MOST_TERMS = 8;
const sums = [...document.querySelectorAll(".gradient .sum")];
for (const line of sums) {
  const { name } = within(line.closest(".gradient")).find((matrix) => matrix.lights);
  line.textContent = `Choose an entry of ${name} to see what adds up to it.`;
}

function unlight() {
  for (const cell of document.querySelectorAll("td.lit")) cell.classList.remove("lit");
  state.lit = null;
}

/** How a gradient is made, and the matrices A and Δ that make it. */
function parts(block) {
  const side = (name) => matrices.find((matrix) => block.querySelector(`[data-side="${name}"]`)?.contains(matrix.figure));
  return { kind: block.dataset.kind, A: side("A"), Delta: side("Delta") };
}

function light(cell) {
  const { matrix, i, j } = places.get(cell);
  if (!matrix.lights) return;
  unlight();
  state.lit = cell;
  const block = cell.closest(".gradient");
  const { kind, A, Delta } = parts(block);
  const column = (side, k) => side?.cells.flatMap((row) => row[k] ?? []) ?? [];
  const products = within(block).filter((other) => other.example !== undefined);
  const lit = [cell, ...column(Delta, kind === "outer" ? j : i), ...products.map((other) => other.cells[i][j])];
  if (kind === "outer") lit.push(...column(A, i));
  for (const each of lit) each.classList.add("lit");
  block.querySelector(".sum").replaceChildren(...sentence(block, matrix, i, j));
}

/** "dW, row 1, column 2: 5.7 · (−363.5) + … = −2072", as nodes. */
function sentence(block, matrix, i, j) {
  const { kind, A, Delta } = parts(block);
  const sides = kind === "outer" ? [[A, "A", i], [Delta, "Delta", j]] : [[Delta, "Delta", i]];
  const term = (r) => sides.flatMap(([side, name, k], n) => [n ? " · " : "", factor(side.text(r, k), name)]);
  const count = at(now(), Delta.path).shape[0];
  // Of large matrices the page has a corner only, which may lack the column.
  const shown = Math.min(...sides.map(([side, , k]) => (side.cells[0][k] ? side.cells.length : 0)));
  const all = Array.from({ length: shown }, (_, r) => term(r));
  const some = all.length <= MOST_TERMS ? all : [...all.slice(0, MOST_TERMS - 2), ["⋯"], all.at(-1)];
  if (shown < count) some.push([`⋯ (${count} products)`]);
  const sum = some.flatMap((one, k) => (k ? [" + ", ...one] : one));
  return [`${matrix.name}, row ${i + 1}, column ${j + 1}: `, ...sum, " = ", strong(matrix.text(i, j))];
}

function factor(text, name) {
  const part = document.createElement("span");
  part.className = name;
  part.textContent = text.startsWith("−") ? `(${text})` : text;
  return part;
}

function strong(text) {
  const element = document.createElement("strong");
  element.textContent = text;
  return element;
}

const main = document.querySelector("main");
const chosen = (event) => {
  const cell = event.target.closest?.("td");
  return cell && places.has(cell) ? cell : null;
};

main.addEventListener("pointerover", (event) => {
  if (chosen(event)) light(chosen(event));
});

main.addEventListener("focusin", (event) => {
  const cell = chosen(event);
  if (!cell?.hasAttribute("tabindex")) return;
  for (const other of places.get(cell).matrix.cells.flat()) other.tabIndex = other === cell ? 0 : -1;
  light(cell);
});

main.addEventListener("click", (event) => {
  const cell = chosen(event);
  if (!cell || event.target.matches("input")) return;
  if (cell.hasAttribute("tabindex")) cell.focus();
  light(cell);
  ask(cell);
});

main.addEventListener("keydown", (event) => {
  const cell = chosen(event);
  if (!cell || event.target !== cell) return;
  const { matrix, i, j } = places.get(cell);
  const last = matrix.cells[i].length - 1;
  const to = { ArrowUp: [i - 1, j], ArrowDown: [i + 1, j], ArrowLeft: [i, j - 1], ArrowRight: [i, j + 1], Home: [i, 0], End: [i, last] }[event.key];
  if (to) matrix.cells[to[0]]?.[to[1]]?.focus();
  else if (event.key === "Enter" || event.key === " ") ask(cell);
  else if (event.key === "Escape") unlight();
  else return;
  event.preventDefault();
});
