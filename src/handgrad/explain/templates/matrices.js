"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const state = { rate: data.rate, step: 0, quiz: false, answered: new Set(), right: 0, lit: null };
const run = () => data.runs[state.rate];
const now = () => run().steps[state.step];

// Numbers and matrices, as view.py has them.

const value = (entry) => (typeof entry === "string" ? { nan: NaN, inf: Infinity, "-inf": -Infinity }[entry] : entry);

/** Four significant digits. */
function number(entry) {
  const exact = value(entry);
  if (!Number.isFinite(exact)) return Number.isNaN(exact) ? "NaN" : exact > 0 ? "∞" : "−∞";
  const rounded = Number(exact.toPrecision(4));
  const size = Math.abs(rounded);
  const text = rounded === 0 || (size >= 1e-4 && size < 1e6) ? String(rounded) : rounded.toExponential();
  return text.replace("e+", "e").replaceAll("-", "−");
}

const at = (step, path) => path.reduce((held, key) => held[key], step);

/** The entries that are shown: of a summary, its corner; of a list, a column. */
function rows(matrix) {
  if (Array.isArray(matrix)) return matrix.map((entry) => [entry]);
  return matrix.data ?? matrix.summary.corner;
}

/** The rounding of sums that are zero as 0. */
function quiet(entries) {
  const sizes = entries.flat().map((entry) => Math.abs(value(entry))).filter(Number.isFinite);
  const noise = 2 ** -48 * Math.max(0, ...sizes);
  return entries.map((row) => row.map((entry) => (Math.abs(value(entry)) < noise ? 0 : entry)));
}

/** The entries of a matrix with as many decimals each, where that is possible. */
function numbers(entries) {
  const values = entries.flat().map((entry) => Math.abs(value(entry)));
  const sizes = values.filter((size) => size && Number.isFinite(size)).map((size) => Number(size.toExponential().split("e")[1]));
  const decimals = Math.max(0, 3 - Math.max(...sizes), 1 - Math.min(...sizes));
  if (!values.every(Number.isFinite) || !sizes.length || Math.max(...sizes) > 5 || decimals + Math.max(0, ...sizes) > 6) {
    return entries.map((row) => row.map(number));
  }
  let texts = entries.map((row) => row.map((entry) => value(entry).toFixed(decimals).replace(/^-(?=[0.]*$)/, "")));
  for (let k = decimals; k && texts.flat().every((text) => text.endsWith("0")); k--) {
    texts = texts.map((row) => row.map((text) => text.slice(0, -1).replace(/\.$/, "")));
  }
  return texts.map((row) => row.map((text) => text.replace("-", "−")));
}

/** Each example's outer product, which add up to the gradient at `path`; [] where it is no such sum. */
function products(step, path) {
  if (path[4] !== "value" || !data.layers[path[1]].outer.includes(path[3])) return [];
  const gradient = at(step, path.slice(0, -1));
  const [A, Delta] = [gradient.A?.data, gradient.Delta?.data];
  if (!A || !Delta || A.length % data.batch) return [];
  const each = A.length / data.batch;
  return Array.from({ length: data.batch }, (_, b) =>
    rows(gradient.value).map((row, i) =>
      row.map((_, j) => {
        let sum = 0;
        for (let r = b * each; r < (b + 1) * each; r++) sum += value(A[r][i]) * value(Delta[r][j]);
        return sum;
      })));
}

/** A matrix of the page: its cells show the numbers of the current step. */
class Matrix {
  constructor(figure) {
    this.figure = figure;
    this.path = JSON.parse(figure.dataset.path);
    this.example = figure.dataset.example;
    this.key = figure.dataset.key;
    this.answerable = "answer" in figure.dataset;
    this.lights = "lights" in figure.dataset;
    this.name = figure.querySelector(".name")?.textContent;
    this.cells = [...figure.querySelectorAll("tr")].map((tr) => [...tr.querySelectorAll("td")]).filter((row) => row.length);
    this.peaks = new Map();
  }

  entries(step) {
    return quiet(this.example === undefined ? rows(at(step, this.path)) : products(step, this.path)[this.example]);
  }

  /** The largest size: over the whole run, or in this step alone if the run diverges. */
  peak() {
    const diverged = run().diverged;
    const memo = diverged ? now() : run();
    if (!this.peaks.has(memo)) {
      const steps = diverged ? [now()] : run().steps;
      const all = steps.flatMap((step) => [rows(at(step, this.path)), ...products(step, this.path)]).flat(2);
      this.peaks.set(memo, Math.max(0, ...all.map((entry) => Math.abs(value(entry))).filter(Number.isFinite)));
    }
    return this.peaks.get(memo);
  }

  isCovered(i, j) {
    return state.quiz && Boolean(this.key) && !state.answered.has(`${this.key}:${i},${j}`);
  }

  text(i, j) {
    return this.isCovered(i, j) ? "?" : numbers(this.entries(now()))[i][j];
  }

  show() {
    const entries = this.entries(now());
    const texts = numbers(entries);
    const peak = this.peak();
    this.cells.forEach((row, i) => row.forEach((cell, j) => {
      const exact = value(entries[i][j]);
      const covered = this.isCovered(i, j);
      const colored = !covered && Number.isFinite(exact) && exact !== 0 && peak > 0;
      cell.textContent = covered ? "?" : texts[i][j];
      cell.classList.toggle("covered", covered);
      cell.classList.toggle("positive", colored && exact > 0);
      cell.classList.toggle("negative", colored && exact < 0);
      if (colored) cell.style.setProperty("--size", `${Math.floor(10 + 90 * Math.min(1, Math.abs(exact) / peak) ** 0.5 + 0.5)}%`);
      else cell.removeAttribute("style");
      if (!state.quiz || covered) cell.classList.remove("right");
      if (!covered) cell.classList.remove("wrong");
    }));
    this.setKeys(this.lights || (this.answerable && state.quiz));
    const summary = this.figure.querySelector(".about");
    if (summary) {
      const { min, max, mean } = at(now(), this.path).summary;
      summary.textContent = state.quiz && this.key ? "" : `from ${number(min)} to ${number(max)}, mean ${number(mean)}`;
    }
  }

  /** A matrix whose entries can be chosen is a grid with one tab stop; arrow keys move within it. */
  setKeys(on) {
    const table = this.figure.querySelector("table");
    if (on === (table.getAttribute("role") === "grid")) return;
    if (on) table.setAttribute("role", "grid");
    else table.removeAttribute("role");
    this.cells.flat().forEach((cell, k) => (on ? (cell.tabIndex = k ? -1 : 0) : cell.removeAttribute("tabindex")));
  }
}

const matrices = [...document.querySelectorAll("figure.matrix")].map((figure) => new Matrix(figure));
const places = new Map(); // cell -> its matrix, row and column
for (const matrix of matrices) {
  matrix.cells.forEach((row, i) => row.forEach((cell, j) => places.set(cell, { matrix, i, j })));
}
const within = (element) => matrices.filter((matrix) => element.contains(matrix.figure));
