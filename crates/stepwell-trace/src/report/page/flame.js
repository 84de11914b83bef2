// The flame graph. Callers above, what they called below; the width is instructions.
const ROW = 20;
const NARROWEST = 0.7;
const LABEL_FROM = 26;

const flame = (() => {
  const list = data.flame.nodes;
  const count = list.length / 4;
  const depth = new Uint16Array(count);
  const name = new Uint32Array(count);
  const total = new Float64Array(count);
  const own = new Float64Array(count);
  const parent = new Int32Array(count).fill(-1);
  const start = new Float64Array(count);
  const end = new Uint32Array(count);
  const stack = [];
  const filled = new Float64Array(count);
  for (let at = 0; at < count; at += 1) {
    [depth[at], name[at], total[at], own[at]] = list.slice(4 * at, 4 * at + 4);
    while (stack.length > depth[at]) end[stack.pop()] = at;
    if (stack.length) {
      const above = stack[stack.length - 1];
      parent[at] = above;
      start[at] = start[above] + filled[above];
      filled[above] += total[at];
    }
    stack.push(at);
  }
  while (stack.length) end[stack.pop()] = count;
  return { count, depth, name, total, own, parent, start, end };
})();

const zoomed = { node: 0, focus: 0 };
const flameName = (node) => names[flame.name[node]];

const kindOf = (name) => {
  if (name === "[interrupts]") return "interrupt";
  if (name === "[exception]") return "exception";
  if (name === "(user code)") return "user";
  return "";
};
const FRAME_HUES = { interrupt: [176, "48%"], exception: [266, "34%"], user: [211, "46%"] };

const describe = (node) => {
  const lines = [
    `${exact(flame.total[node])} instructions, ${percent(flame.total[node], flame.total[0])} of all`,
    `${exact(flame.own[node])} of them its own`,
  ];
  if (zoomed.node) lines.push(`${percent(flame.total[node], flame.total[zoomed.node])} of ${flameName(zoomed.node)}`);
  return lines;
};

const isAncestor = (node, below) => node <= below && below < flame.end[node];

// Everything below an interrupt, an exception or a program is tinted like it.
const tints = (() => {
  const kinds = new Array(flame.count);
  for (let at = 0; at < flame.count; at += 1) {
    const above = at ? kinds[flame.parent[at]] : "";
    kinds[at] = kindOf(flameName(at)) || (above === "interrupt" ? above : "");
  }
  return kinds;
})();

const frame = (node, left, width, level, pixels) => {
  const label = flameName(node);
  const [hue, saturation] = FRAME_HUES[tints[node]] ?? [node ? hueOf(label) : 40, node ? "var(--frame-saturation)" : "12%"];
  const classes = ["frame"];
  if (pixels < 6) classes.push("thin");
  if (node !== zoomed.node && isAncestor(node, zoomed.node)) classes.push("above");
  if (matches(label)) classes.push("match");
  const element = make("div", {
    class: classes.join(" "),
    role: "treeitem",
    tabindex: node === zoomed.focus ? "0" : "-1",
    "aria-level": flame.depth[node] + 1,
    "aria-label": `${label}, ${exact(flame.total[node])} instructions, ${percent(flame.total[node], flame.total[0])}`,
    "data-node": node,
    "--hue": hue,
    "--saturation": saturation,
  }, pixels >= LABEL_FROM ? label : "");
  element.style.left = `${left}%`;
  element.style.width = `${width}%`;
  element.style.top = `${level * ROW}px`;
  return element;
};

const drawFlame = () => {
  const graph = byId("flame-graph");
  const pixels = graph.clientWidth || 800;
  const { node: root } = zoomed;
  const scale = 100 / (flame.total[root] || 1);
  const elements = [];
  let deepest = 0;
  for (let above = flame.parent[root]; above >= 0; above = flame.parent[above]) {
    elements.unshift(frame(above, 0, 100, flame.depth[above], pixels));
  }
  for (let at = root; at < flame.end[root];) {
    const width = flame.total[at] * scale;
    if ((width * pixels) / 100 < NARROWEST && at !== root) {
      at = flame.end[at];
      continue;
    }
    elements.push(frame(at, (flame.start[at] - flame.start[root]) * scale, width, flame.depth[at], (width * pixels) / 100));
    deepest = Math.max(deepest, flame.depth[at]);
    at += 1;
  }
  const focused = graph.contains(document.activeElement);
  graph.replaceChildren(...elements);
  graph.style.height = `${(deepest + 1) * ROW}px`;
  graph.classList.toggle("searching", searched.text !== "");
  byId("flame-reset").disabled = root === 0;
  byId("flame-up").disabled = root === 0;
  const target = graph.querySelector(`[data-node="${zoomed.focus}"]`) ?? graph.querySelector(`[data-node="${root}"]`);
  if (target) target.tabIndex = 0;
  if (focused && target) target.focus({ preventScroll: true });
};

const tellFlame = (node) => {
  const path = [];
  for (let at = node; at > 0; at = flame.parent[at]) path.unshift(flameName(at));
  const shown = path.length > 6 ? ["…", ...path.slice(-6)] : path;
  byId("flame-status").textContent = node === 0
    ? `${exact(flame.total[0])} instructions in all.`
    : `${shown.join(" › ")}: ${describe(node).join(", ")}.`;
};

const zoomFlame = (node) => {
  zoomed.node = node;
  zoomed.focus = node;
  drawFlame();
  const scroller = byId("flame-graph").parentElement;
  scroller.scrollTop = Math.max(0, (flame.depth[node] - 2) * ROW);
  tellFlame(node);
};

const neighbour = (node, key) => {
  const above = flame.parent[node];
  if (key === "ArrowUp") return above;
  if (key === "ArrowDown") return node + 1 < flame.end[node] ? node + 1 : -1;
  if (key === "ArrowRight") return above >= 0 && flame.end[node] < flame.end[above] ? flame.end[node] : -1;
  let before = above >= 0 && node > above + 1 ? above + 1 : -1;
  while (before >= 0 && flame.end[before] < node) before = flame.end[before];
  return before;
};

const flameKey = (event) => {
  const node = Number(event.target.dataset?.node ?? -1);
  if (node < 0) return;
  if (event.key === "Enter" || event.key === " ") zoomFlame(node);
  else if (event.key === "Escape" || event.key === "0") zoomFlame(0);
  else if (event.key.startsWith("Arrow")) {
    const next = byId("flame-graph").querySelector(`[data-node="${neighbour(node, event.key)}"]`);
    if (next) {
      event.target.tabIndex = -1;
      zoomed.focus = Number(next.dataset.node);
      next.tabIndex = 0;
      next.focus();
    }
  } else return;
  event.preventDefault();
};

const startFlame = () => {
  const graph = byId("flame-graph");
  if (flame.total[0] === 0) {
    graph.parentElement.replaceWith(make("p", { class: "empty" }, "Nothing was executed, so there is nothing to draw."));
    byId("flame-legend").remove();
    return;
  }
  const { threshold, left_out: left, cut } = data.flame;
  byId("flame-note").textContent = `Who called whom, and how many instructions that took. Select a frame to zoom in; Escape zooms out. Interrupts are apart from what they interrupted.${
    left ? ` ${plural(left, "way", "ways")} of less than ${plural(threshold, "instruction")} ${left === 1 ? "is" : "are"} left out.` : ""}${
    cut ? " There were more ways than could be kept: what they took counts for their callers." : ""}`;
  const present = new Set(tints);
  const swatch = ([kind, text]) => make("li", {}, make("i"), text);
  for (const [kind, text] of [["", "Functions"], ["interrupt", "Interrupts"], ["exception", "Exceptions"], ["user", "User code without symbols"]]) {
    if (kind && !present.has(kind)) continue;
    const item = swatch([kind, text]);
    const [hue, saturation] = FRAME_HUES[kind] ?? [30, "var(--frame-saturation)"];
    item.firstChild.style.background = `hsl(${hue} ${saturation} var(--frame-light))`;
    byId("flame-legend").append(item);
  }
  const nodeOf = (event) => Number(event.target.closest?.(".frame")?.dataset.node ?? -1);
  graph.addEventListener("click", (event) => { if (nodeOf(event) >= 0) zoomFlame(nodeOf(event)); });
  graph.addEventListener("keydown", flameKey);
  graph.addEventListener("pointermove", (event) => {
    const node = nodeOf(event);
    if (node < 0 || event.pointerType === "touch") return hideTip();
    showTip(event.clientX, event.clientY, flameName(node), ...describe(node));
  });
  graph.addEventListener("pointerleave", hideTip);
  graph.addEventListener("focusin", (event) => { if (nodeOf(event) >= 0) tellFlame(nodeOf(event)); });
  byId("flame-reset").addEventListener("click", () => zoomFlame(0));
  byId("flame-up").addEventListener("click", () => zoomFlame(Math.max(0, flame.parent[zoomed.node])));
  onSearch.push(drawFlame);
  let width = 0;
  new ResizeObserver(() => {
    if (graph.clientWidth === width) return;
    width = graph.clientWidth;
    drawFlame();
  }).observe(graph.parentElement);
  drawFlame();
  tellFlame(0);
};

// Instructions of the frames that match, those inside one another counted once.
const searchedInstructions = () => {
  let sum = 0;
  for (let at = 0; at < flame.count;) {
    if (matches(flameName(at))) {
      sum += flame.total[at];
      at = flame.end[at];
    } else at += 1;
  }
  return sum;
};
