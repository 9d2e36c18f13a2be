"use strict";
// Everything is on the page without this: it shows what was clicked beside the picture, and saves the histories.
document.documentElement.classList.add("js");
const show = (run, mark) => {
  const target = document.getElementById(mark.getAttribute("href").slice(1));
  const detail = run.querySelector(".detail");
  run.querySelectorAll("svg a.on").forEach((each) => each.classList.remove("on"));
  mark.classList.add("on");
  detail.replaceChildren(...[...target.childNodes].map((node) => node.cloneNode(true)));
  detail.querySelectorAll("details").forEach((each) => { each.open = true; });
};
const bringIntoView = (mark) => {
  const scroll = mark.closest(".scroll");
  const box = mark.getBoundingClientRect();
  const frame = scroll.getBoundingClientRect();
  if (box.left < frame.left + 40 || box.right > frame.right - 40) scroll.scrollLeft += box.left - frame.left - frame.width / 3;
};
document.querySelectorAll(".run").forEach((run) => {
  const marks = [...run.querySelectorAll("svg a")];
  marks.forEach((mark, index) => {
    mark.addEventListener("click", (event) => { event.preventDefault(); show(run, mark); });
    mark.addEventListener("keydown", (event) => {
      const next = marks[index + { ArrowRight: 1, ArrowLeft: -1 }[event.key]];
      if (next) { event.preventDefault(); next.focus(); show(run, next); bringIntoView(next); }
    });
  });
  const first = run.querySelector("svg a.first");
  if (first) { show(run, first); }
});
const settle = () => document.querySelectorAll(".run").forEach((run) => {
  const on = run.querySelector("svg a.on");
  if (on && run.offsetParent) bringIntoView(on);
});
document.querySelectorAll(".runs > input").forEach((input) => input.addEventListener("change", settle));
settle();
document.querySelectorAll("button[data-saves]").forEach((button) => {
  button.addEventListener("click", () => {
    const raw = document.getElementById(button.dataset.saves).textContent;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(JSON.parse(raw), null, 1)], { type: "application/json" }));
    link.download = button.dataset.name;
    link.click();
    URL.revokeObjectURL(link.href);
  });
});
