"use strict";
for (const tools of document.querySelectorAll(".tools")) tools.hidden = false;

function filter(list) {
  const words = document.querySelector(`[data-filter-for="${list.id}"]`).value.trim().toLowerCase();
  const choice = document.querySelector(`[data-choice-for="${list.id}"]`)?.value ?? "";
  const items = [...list.querySelectorAll("[data-item]")].filter((item) => !item.parentElement.closest("[data-item]"));
  for (const item of items) {
    const fits = !choice || item.dataset.choice === choice;
    item.hidden = !(fits && item.textContent.toLowerCase().includes(words));
  }
  const left = items.filter((item) => !item.hidden).length;
  document.querySelector(`[data-status-for="${list.id}"]`).textContent =
    left === items.length ? "" : `${left} of ${items.length} shown`;
}

for (const input of document.querySelectorAll("[data-filter-for], [data-choice-for]")) {
  const list = document.getElementById(input.dataset.filterFor ?? input.dataset.choiceFor);
  for (const event of ["input", "change"]) input.addEventListener(event, () => filter(list));
}

function sort(head) {
  const rising = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const body = head.closest("table").tBodies[0];
  const text = (row) => row.cells[head.cellIndex].textContent.trim();
  const rows = [...body.rows].sort((a, b) => text(a).localeCompare(text(b), "en", { numeric: true }));
  body.append(...(rising ? rows : rows.reverse()));
}

for (const head of document.querySelectorAll("th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = head.textContent;
  button.addEventListener("click", () => sort(head));
  head.replaceChildren(button);
}

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
