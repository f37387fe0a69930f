// The sliders over training steps and learning rates, the loss curve, and the page's start.

/** Write the numbers of the current step into the page. */
function refresh() {
  for (const matrix of matrices) matrix.show();
  for (const place of document.querySelectorAll("[data-number]")) {
    const entry = at(now(), JSON.parse(place.dataset.number));
    if (entry !== null) place.textContent = number(entry);
  }
  for (const item of document.querySelectorAll("[data-needs]")) {
    const needed = at(now(), JSON.parse(item.dataset.needs));
    item.hidden = (needed === null) !== ("elsewhere" in item.dataset);
    if (needed?.index) {
      const [i, j] = needed.index;
      item.querySelector(".place").textContent = `row ${i + 1}, column ${j + 1}`;
      item.querySelector(".approximately").textContent = isHidden(item, i, j) ? "?" : number(needed.value);
    }
  }
  for (const place of document.querySelectorAll(".rate")) place.textContent = number(run().rate);
  if (state.lit) light(state.lit);
  label();
  draw();
  measure();
}

/** A covered entry's finite difference would give it away. */
function isHidden(item, i, j) {
  const gradient = within(item.closest(".gradient")).find((matrix) => matrix.answerable);
  return gradient.isCovered(i, j);
}

function label() {
  const { steps, rate, diverged } = run();
  const [step, rates] = [byId("step"), byId("rate")];
  step.max = steps.length;
  step.value = state.step + 1;
  step.hidden = steps.length === 1;
  rates.max = data.runs.length;
  rates.value = state.rate + 1;
  rates.hidden = data.runs.length === 1;
  const fate = `${number(rate)}${steps.length > 1 ? `, the loss ${diverged ? "grows" : "falls"}` : ""}`;
  byId("step-text").textContent = `${state.step + 1} of ${steps.length}, loss ${number(now().loss)}`;
  byId("rate-text").textContent = fate;
  step.setAttribute("aria-valuetext", `step ${state.step + 1} of ${steps.length}, loss ${number(now().loss)}`);
  rates.setAttribute("aria-valuetext", fate);
}

/** The loss of every run, on a logarithmic scale where it allows; the chosen one in front, the current step marked. */
function draw() {
  const svg = byId("curve");
  const [width, height, margin] = [240, 64, 7];
  const losses = (one) => one.steps.map((step) => value(step.loss));
  const isPositive = data.runs.every((one) => losses(one).every((loss) => !(loss < 0)));
  const start = losses(run())[0];
  // Eight decades are enough: below lies the rounding of a loss of zero.
  const scaled = (loss) => (isPositive && start > 0 ? Math.log10(Math.max(loss, 1e-8 * start)) : loss);
  // A run that diverges is drawn to its end only where it is the chosen one.
  const range = data.runs.filter((one) => one === run() || !one.diverged).flatMap(losses).map(scaled).filter(Number.isFinite);
  const [low, high] = [Math.min(...range), Math.max(...range)];
  const longest = Math.max(2, ...data.runs.map((one) => one.steps.length));
  const x = (step) => margin + ((width - 2 * margin) * step) / (longest - 1);
  const y = (loss) => {
    const share = high > low ? (scaled(loss) - low) / (high - low) : 0.5;
    return height - margin - (height - 2 * margin) * (Number.isNaN(share) ? 2 : Math.min(2, Math.max(0, share)));
  };
  const line = (one, kind) => shape("polyline", { class: kind, points: losses(one).map((loss, k) => `${x(k)},${y(loss)}`).join(" ") });
  svg.replaceChildren(
    ...data.runs.filter((one) => one !== run()).map((one) => line(one, "other")),
    line(run(), "chosen"),
    shape("path", { d: `M ${x(state.step)} ${Math.max(margin, y(value(now().loss)))} h 0` }), // a dot, however it is scaled
  );
  const all = losses(run());
  svg.setAttribute("aria-label", `Loss over ${all.length} steps, from ${number(all[0])} to ${number(all.at(-1))}`);
  const isLogarithmic = isPositive && start > 0;
  const of = data.runs.length > 1 ? ": dark at this learning rate, gray at the others" : "";
  byId("curve-text").textContent = `Loss of each step${isLogarithmic ? ", logarithmic" : ""}${of}; the dot is this step`;
  [byId("high").textContent, byId("low").textContent] = [high, low].map((end) => short(isLogarithmic ? 10 ** end : end));
  byId("last").textContent = `step ${longest}`;
  svg.parentElement.hidden = data.runs.every((one) => one.steps.length === 1);
}

/** Two significant digits: the end of an axis. */
function short(loss) {
  return number(Number(loss.toPrecision(2)));
}

function shape(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, entry] of Object.entries(attributes)) element.setAttribute(key, entry);
  return element;
}

/** A box that scrolls and holds nothing that keys reach is reached itself. */
function measure() {
  for (const box of document.querySelectorAll(".scroll")) {
    const wide = box.scrollWidth > box.clientWidth && !box.querySelector("[tabindex]");
    if (wide) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

function go(rate, step) {
  state.rate = rate;
  state.step = Math.min(step, run().steps.length - 1);
  if (state.quiz) startQuiz(true);
  else refresh();
}

byId("step").addEventListener("input", (event) => go(state.rate, event.target.value - 1));
byId("rate").addEventListener("input", (event) => go(event.target.value - 1, state.step));
window.addEventListener("resize", measure);
document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
document.querySelector(".controls").hidden = false;
startQuiz(byId("quiz").checked);
