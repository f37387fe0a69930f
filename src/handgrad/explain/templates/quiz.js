// The quiz: results are covered until they are answered, to three significant digits.

const score = byId("score");

function say(text, kind = "") {
  score.textContent = text;
  score.className = kind;
}

/** What was typed, as a number; NaN where it is none. */
function parse(text) {
  const plain = text.trim().replace("−", "-").replace(",", ".").replace("∞", "Infinity");
  return plain === "" ? NaN : Number(plain);
}

function isRight(answer, exact) {
  if (!Number.isFinite(exact)) return Object.is(answer, exact);
  if (exact === 0) return answer === 0;
  return Math.abs(answer - exact) <= 0.5000001 * 10 ** (Math.floor(Math.log10(Math.abs(exact))) - 2);
}

/** Open an input in a covered cell. */
function ask(cell) {
  const { matrix, i, j } = places.get(cell);
  if (!matrix.answerable || !matrix.isCovered(i, j) || cell.querySelector("input")) return;
  const input = document.createElement("input");
  input.setAttribute("aria-label", `${matrix.name}, row ${i + 1}, column ${j + 1}, to three digits`);
  input.autocomplete = "off";
  input.enterKeyHint = "done";
  cell.replaceChildren(input);
  input.focus();

  let open = true;
  const close = (answer) => {
    if (!open) return;
    open = false;
    matrix.show();
    if (answer !== null && answer.trim() !== "") judge(cell, answer);
  };
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault();
    close(event.key === "Enter" ? input.value : null);
    cell.focus();
  });
  input.addEventListener("blur", () => close(input.value));
}

function judge(cell, answer) {
  const { matrix, i, j } = places.get(cell);
  const place = `${matrix.name}, row ${i + 1}, column ${j + 1}`;
  const typed = parse(answer);
  const exact = value(matrix.entries(now())[i][j]);
  if (Number.isNaN(typed) && answer.trim().toLowerCase() !== "nan") {
    say(`${place}: “${answer.trim()}” isn’t a number.`, "say-wrong");
  } else if (isRight(typed, exact)) {
    state.answered.add(`${matrix.key}:${i},${j}`);
    state.right += 1;
    refresh();
    cell.classList.add("right");
    say(`Right: ${place} is ${number(exact)}. ${progress()}`, "say-right");
  } else {
    cell.classList.add("wrong");
    say(`Wrong: ${place} isn’t ${answer.trim()}. Try again.`, "say-wrong");
  }
}

/** Keys of all covered results that can be answered. */
function questions() {
  return matrices.filter((matrix) => matrix.answerable).flatMap((matrix) =>
    matrix.cells.flatMap((row, i) => row.map((_, j) => `${matrix.key}:${i},${j}`)));
}

function progress() {
  return `${state.right} of ${questions().length} results right.`;
}

/** Cover everything, or uncover everything. */
function startQuiz(on) {
  state.quiz = on;
  state.answered.clear();
  state.right = 0;
  document.body.classList.toggle("quizzing", on);
  byId("show-all").hidden = !on;
  const repeated = "A result that is used again counts once and is uncovered everywhere.";
  say(on ? `Choose a “?” and fill it in, to three digits. ${repeated} ${progress()}` : "");
  refresh();
}

byId("quiz").addEventListener("change", (event) => startQuiz(event.target.checked));
byId("show-all").addEventListener("click", () => {
  state.answered = new Set(questions());
  say(`All results are shown. ${progress()}`);
  refresh();
});
