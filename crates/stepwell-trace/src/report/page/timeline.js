// The timeline: for each vCPU what it was at, which function took most, and the interrupts and
// waits for locks one by one where there is room for them.
const AREA = 44;
const STRIP = 26;
const TICKS = 14;
const LANE_HEAD = 20;
const LANE = LANE_HEAD + AREA + STRIP + TICKS + 12;
const AXIS = 24;
const NARROWEST_VIEW = 16;

const timeline = {
  lanes: data.timeline.vcpus,
  end: data.timeline.instructions,
  from: 0,
  to: data.timeline.instructions,
  drag: null,
};

const niceStep = (span, wanted) => {
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  return Math.max(1, power * [1, 2, 5, 10].find((step) => step * power >= rough));
};

// Adds the bins of a lane up between two places, by the part that lies between them.
const between = (bins, from, to) => {
  const { width } = data.timeline;
  const sums = [0, 0, 0, 0, 0];
  const top = new Map();
  const last = Math.min(bins.length - 1, Math.ceil(to / width) - 1);
  for (let at = Math.max(0, Math.floor(from / width)); at <= last; at += 1) {
    const part = (Math.min(to, (at + 1) * width) - Math.max(from, at * width)) / width;
    const bin = bins[at];
    for (let activity = 0; activity < 5; activity += 1) sums[activity] += bin[activity] * part;
    for (let place = 5; place < bin.length; place += 2) {
      top.set(bin[place], (top.get(bin[place]) ?? 0) + bin[place + 1] * part);
    }
  }
  return { sums, top: [...top].sort((one, other) => other[1] - one[1]) };
};

const drawTimeline = () => {
  const canvas = byId("timeline-canvas");
  const width = canvas.parentElement.clientWidth;
  const height = timeline.lanes.length * LANE + AXIS;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  pen.textBaseline = "middle";
  const paint = { ink: colour("ink"), soft: colour("soft"), line: colour("line"), mark: colour("mark"), turn: colour("turn"), activities: ACTIVITIES.map(([, name]) => colour(name)), frame: colour("frame-light"), saturation: colour("frame-saturation"), frameInk: colour("frame-ink"), sunken: colour("sunken") };
  timeline.lanes.forEach((lane, at) => drawLane(pen, paint, lane, at * LANE, width));
  drawAxis(pen, paint, timeline.lanes.length * LANE, width);
  if (timeline.drag && timeline.drag.to !== timeline.drag.from) {
    const [left, right] = [timeline.drag.from, timeline.drag.to].sort((one, other) => one - other);
    pen.globalAlpha = 0.18;
    pen.fillStyle = paint.ink;
    pen.fillRect(left, 0, right - left, height - AXIS);
    pen.globalAlpha = 1;
  }
  const whole = timeline.from === 0 && timeline.to === timeline.end;
  byId("timeline-out").disabled = whole;
  byId("timeline-reset").disabled = whole;
  byId("timeline-in").disabled = timeline.to - timeline.from <= NARROWEST_VIEW;
};

const drawLane = (pen, paint, lane, top, width) => {
  const per = (timeline.to - timeline.from) / width;
  pen.fillStyle = paint.soft;
  pen.fillText(`vCPU ${lane.vcpu}`, 8, top + LANE_HEAD / 2 + 2);
  const base = top + LANE_HEAD + AREA;
  pen.fillStyle = paint.sunken;
  pen.fillRect(0, top + LANE_HEAD, width, AREA + STRIP);
  let band = { name: -1, from: 0 };
  const bands = [];
  for (let x = 0; x < width; x += 1) {
    const from = timeline.from + x * per;
    const { sums, top: functions } = between(lane.bins, from, from + per);
    let y = base;
    // Full height is every instruction of all vCPUs in that place.
    sums.forEach((sum, activity) => {
      const tall = Math.min(1, sum / per) * AREA;
      if (tall <= 0) return;
      pen.fillStyle = paint.activities[activity];
      pen.fillRect(x, y - tall, 1, tall);
      y -= tall;
    });
    const name = functions.length ? functions[0][0] : -1;
    if (name !== band.name) {
      bands.push({ ...band, to: x });
      band = { name, from: x };
    }
  }
  bands.push({ ...band, to: width });
  drawBands(pen, paint, bands, base + 2);
  drawTicks(pen, paint, lane.vcpu, base + STRIP + 3, width);
};

const drawBands = (pen, paint, bands, top) => {
  for (const { name, from, to } of bands) {
    if (name < 0 || to <= from) continue;
    const text = names[name];
    const [hue, saturation] = FRAME_HUES[kindOf(text)] ?? [hueOf(text), paint.saturation];
    pen.fillStyle = matches(text) ? paint.mark : `hsl(${hue} ${saturation} ${paint.frame})`;
    pen.fillRect(from, top, to - from - (to - from > 4 ? 1 : 0), STRIP - 2);
    if (to - from < 34) continue;
    pen.save();
    pen.beginPath();
    pen.rect(from, top, to - from - 4, STRIP);
    pen.clip();
    pen.fillStyle = matches(text) ? "#fff" : paint.frameInk;
    pen.fillText(text, from + 4, top + STRIP / 2 - 1);
    pen.restore();
  }
};

const drawTicks = (pen, paint, vcpu, top, width) => {
  const scale = width / (timeline.to - timeline.from);
  const kinds = [[data.interrupts.list, paint.activities[3]], [data.locks.list, paint.activities[4]],
    ...data.turns.marks.map(([, list]) => [list, paint.turn])];
  for (const [list, fill] of kinds) {
    pen.fillStyle = fill;
    // Turns of the others take no time here: all that is seen of one is where it fell.
    const narrowest = fill === paint.turn ? 2 : 1;
    for (const [of, start, length] of list) {
      if (of !== vcpu || start + length < timeline.from || start > timeline.to) continue;
      pen.fillRect((start - timeline.from) * scale, top, Math.max(narrowest, length * scale), TICKS - 4);
    }
  }
};

const drawAxis = (pen, paint, top, width) => {
  const span = timeline.to - timeline.from;
  const step = niceStep(span, Math.max(2, width / 130));
  pen.strokeStyle = paint.line;
  pen.beginPath();
  for (let at = Math.ceil(timeline.from / step) * step; at <= timeline.to; at += step) {
    const x = Math.round(((at - timeline.from) / span) * width) + 0.5;
    pen.moveTo(x, top);
    pen.lineTo(x, top + 5);
    const label = step < 1000 || at < 1e5 ? exact(at) : axisLabel(at, step);
    const wide = pen.measureText(label).width;
    pen.fillStyle = paint.soft;
    pen.fillText(label, Math.min(Math.max(4, x - wide / 2), width - wide - 4), top + 14);
  }
  pen.moveTo(0, top + 0.5);
  pen.lineTo(width, top + 0.5);
  pen.stroke();
};

// As many digits as tell neighbouring ticks apart.
const axisLabel = (at, step) => {
  const [unit, name] = UNITS.find(([unit]) => at >= unit);
  const digits = Math.max(0, Math.ceil(Math.log10(unit / step)));
  return `${(at / unit).toFixed(Math.min(digits, 6))}\u202f${name}`;
};

const viewTimeline = (from, to) => {
  const span = Math.min(timeline.end, Math.max(NARROWEST_VIEW, to - from));
  timeline.from = Math.min(Math.max(0, from), timeline.end - span);
  timeline.to = timeline.from + span;
  drawTimeline();
  tellTimeline();
};
const zoomTimeline = (factor, centre = (timeline.from + timeline.to) / 2) =>
  viewTimeline(centre - (centre - timeline.from) * factor, centre + (timeline.to - centre) * factor);

const activityText = (sums) => {
  const all = sums.reduce((sum, count) => sum + count, 0);
  const parts = ACTIVITIES.map(([label], at) => [label, sums[at]]).filter(([, count]) => count > 0);
  return parts.map(([label, count]) => `${label.toLowerCase()} ${percent(count, all)}`).join(", ");
};

const tellTimeline = () => {
  const text = timeline.lanes.map((lane) => {
    const { sums, top } = between(lane.bins, timeline.from, timeline.to);
    const most = top.length ? `, most in ${names[top[0][0]]}` : "";
    return `vCPU ${lane.vcpu}: ${activityText(sums) || "did nothing"}${most}`;
  }).slice(0, 4);
  byId("timeline-status").textContent =
    `Instructions ${exact(timeline.from)} to ${exact(timeline.to)}. ${text.join(". ")}.`;
  byId("timeline-canvas").setAttribute("aria-label", `Timeline. ${byId("timeline-status").textContent}`);
};

const timelineTip = (event) => {
  const box = byId("timeline-canvas").getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  const lane = timeline.lanes[Math.floor(y / LANE)];
  if (!lane) return hideTip();
  const per = (timeline.to - timeline.from) / box.width;
  const at = timeline.from + x * per;
  const near = ([vcpu, start, length]) => vcpu === lane.vcpu && start <= at + 2 * per && start + length >= at - 2 * per;
  const inTicks = y % LANE > LANE_HEAD + AREA + STRIP;
  const waits = data.turns.marks.map(([why, list]) => [`Waited for ${WAITED_FOR[why]}`, list, " of the others"]);
  const found = [...waits, ["Interrupt", data.interrupts.list], ["Lock wait", data.locks.list]]
    .map(([kind, list, whose]) => [kind, inTicks ? list.find(near) : undefined, whose ?? ""]).find(([, interval]) => interval);
  if (found) {
    const [kind, [, start, , cost, name], whose] = found;
    return showTip(event.clientX, event.clientY, `${kind}: ${names[name]}`, `${plural(cost, "instruction")}${whose}`, `at ${exact(start)}`);
  }
  const { sums, top } = between(lane.bins, at, at + per);
  const lines = [activityText(sums) || "nothing", ...top.slice(0, 3).map(([name, count]) => `${names[name]} ${percent(count, sums.reduce((sum, more) => sum + more, 0))}`)];
  return showTip(event.clientX, event.clientY, `vCPU ${lane.vcpu} at ${exact(at)}`, ...lines);
};

const timelinePointer = (canvas) => {
  const place = (event) => event.clientX - canvas.getBoundingClientRect().left;
  const instruction = (x) => timeline.from + (x / canvas.clientWidth) * (timeline.to - timeline.from);
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    timeline.drag = { from: place(event), to: place(event) };
    hideTip();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!timeline.drag) return timelineTip(event);
    timeline.drag.to = place(event);
    return drawTimeline();
  });
  canvas.addEventListener("pointerup", () => {
    const { drag } = timeline;
    timeline.drag = null;
    if (!drag) return;
    const [from, to] = [drag.from, drag.to].sort((one, other) => one - other);
    if (to - from > 4) viewTimeline(instruction(from), instruction(to));
    else drawTimeline();
  });
  canvas.addEventListener("pointercancel", () => { timeline.drag = null; drawTimeline(); });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("dblclick", (event) => zoomTimeline(0.5, instruction(place(event))));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoomTimeline(event.deltaY > 0 ? 1.25 : 0.8, instruction(place(event)));
  }, { passive: false });
};

const timelineKey = (event) => {
  const step = (timeline.to - timeline.from) / 4;
  const acts = {
    "+": () => zoomTimeline(0.5),
    "=": () => zoomTimeline(0.5),
    "-": () => zoomTimeline(2),
    0: () => viewTimeline(0, timeline.end),
    ArrowLeft: () => viewTimeline(timeline.from - step, timeline.to - step),
    ArrowRight: () => viewTimeline(timeline.from + step, timeline.to + step),
  };
  if (event.ctrlKey || event.metaKey || !acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
};

const startTimeline = () => {
  const canvas = byId("timeline-canvas");
  if (!timeline.lanes.length || timeline.end === 0) {
    canvas.parentElement.replaceWith(make("p", { class: "empty" }, "Nothing was executed, so there is no time to show."));
    return;
  }
  const sums = [0, 0, 0, 0, 0];
  for (const { bins } of timeline.lanes) for (const bin of bins) sums.forEach((_, at) => { sums[at] += bin[at]; });
  ACTIVITIES.forEach(([label, name], at) => {
    if (!sums[at]) return;
    const item = make("li", {}, make("i"), `${label} ${percent(sums[at], timeline.end)}`);
    item.firstChild.style.background = `var(--${name})`;
    byId("timeline-legend").append(item);
  });
  if (data.turns.times) {
    const item = make("li", {}, make("i"), `Had to wait for other vCPUs ${exact(data.turns.times)}\u00d7`);
    item.firstChild.style.background = "var(--turn)";
    byId("timeline-legend").append(item);
  }
  byId("timeline-in").addEventListener("click", () => zoomTimeline(0.5));
  byId("timeline-out").addEventListener("click", () => zoomTimeline(2));
  byId("timeline-reset").addEventListener("click", () => viewTimeline(0, timeline.end));
  canvas.addEventListener("keydown", timelineKey);
  timelinePointer(canvas);
  onTheme.push(drawTimeline);
  onSearch.push(drawTimeline);
  let width = 0;
  new ResizeObserver(() => {
    if (canvas.parentElement.clientWidth === width) return;
    width = canvas.parentElement.clientWidth;
    drawTimeline();
  }).observe(canvas.parentElement);
  drawTimeline();
  tellTimeline();
};
