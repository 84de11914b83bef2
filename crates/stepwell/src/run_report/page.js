(() => {
"use strict";
const run = document.getElementById("run");
const at = document.getElementById("at");
const whole = run.getAttribute("viewBox");
const place = (event) => {
  const box = run.getBoundingClientRect();
  const [left, , width] = run.getAttribute("viewBox").split(" ").map(Number);
  return left + (event.clientX - box.left) / box.width * width;
};
let from = null;
run.setAttribute("preserveAspectRatio", "none");
run.addEventListener("pointerdown", (event) => { from = place(event); });
run.addEventListener("pointerup", (event) => {
  const to = place(event);
  if (from !== null && Math.abs(to - from) > 2) {
    const [, top, , height] = whole.split(" ");
    run.setAttribute("viewBox", [Math.min(from, to), top, Math.abs(to - from), height].join(" "));
  }
  from = null;
});
run.addEventListener("pointermove", (event) => {
  const title = event.target.querySelector ? event.target.querySelector("title") : null;
  at.textContent = title ? title.textContent : "";
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") run.setAttribute("viewBox", whole);
});
})();
