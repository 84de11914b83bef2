// Tables and bars.
const ROWS_AT_FIRST = 20;
const ROWS_MORE = 60;

const functionTable = { by: 1, ascending: false, rows: ROWS_AT_FIRST, open: "" };
const hotCode = new Map(data.hot.map((hot) => [hot.name, hot]));

const share = (part, all, text) => {
  const cell = make("td", { class: "share", "--share": ((100 * part) / (all || 1)).toFixed(2) }, make("span", {}, text));
  return cell;
};

const sorted = (rows) => {
  const { by, ascending } = functionTable;
  const order = by === 0
    ? (one, other) => names[one[0]].localeCompare(names[other[0]])
    : (one, other) => one[by] - other[by];
  return rows.sort((one, other) => (ascending ? order(one, other) : order(other, one)));
};

const codeOf = (hot) => {
  const most = Math.max(1, ...hot.lines.map(([, count]) => count));
  const lines = hot.lines.map(([address, count, text]) => make("div", { "--heat": Math.round((100 * count) / most) },
    make("span", {}, exact(count)), make("span", {}, address), make("span", {}, text)));
  const head = make("p", { class: "note" }, `How often each of its instructions was executed${hot.cut ? ", around the one that was executed most" : ""}. `);
  const find = make("button", { type: "button" }, "Find it in the flame graph");
  find.addEventListener("click", () => {
    search(hot.name);
    byId("flame").scrollIntoView();
  });
  head.append(find);
  return [head, make("div", { class: "code", tabindex: "0", role: "region", "aria-label": `Instructions of ${hot.name}` }, ...lines)];
};

const functionRow = ([name, own, total, calls]) => {
  const text = names[name];
  const all = data.headline.instructions;
  const label = hotCode.has(text)
    ? make("button", { type: "button", class: "opener", "aria-expanded": String(functionTable.open === text) }, text)
    : text;
  if (label instanceof Element) {
    label.addEventListener("click", () => {
      functionTable.open = functionTable.open === text ? "" : text;
      showFunctions();
      byId("functions-table").querySelector('[aria-expanded="true"]')?.focus();
    });
  }
  const row = make("tr", {},
    make("td", { class: "name" }, label),
    share(own, all, percent(own, all)),
    make("td", { class: "optional" }, exact(own)),
    share(total, all, percent(total, all)),
    make("td", { class: "optional" }, exact(total)),
    make("td", { class: "optional" }, exact(calls)));
  if (functionTable.open !== text || !hotCode.has(text)) return [row];
  return [row, make("tr", { class: "open" }, make("td", { colspan: 6 }, ...codeOf(hotCode.get(text))))];
};

const columnHead = (label, by, classes = "") => {
  const active = functionTable.by === by;
  const button = make("button", { type: "button" }, label);
  button.addEventListener("click", () => {
    functionTable.ascending = active ? !functionTable.ascending : by === 0;
    functionTable.by = by;
    showFunctions();
    byId("functions-table").querySelector("th[aria-sort] button")?.focus();
  });
  const direction = functionTable.ascending ? "ascending" : "descending";
  return make("th", { scope: "col", class: classes, "aria-sort": active ? direction : undefined }, button);
};

const showFunctions = () => {
  const place = byId("functions-table");
  const found = data.functions.filter(([name]) => !searched.text || matches(names[name]));
  if (!found.length) {
    const text = data.functions.length ? `No function is called like “${searched.text}”.` : "No functions were executed.";
    place.replaceChildren(make("p", { class: "empty" }, text));
    return;
  }
  const shown = sorted(found).slice(0, functionTable.rows);
  const table = make("table", {},
    make("caption", { class: "hidden" }, "Functions and the instructions they took"),
    make("thead", {}, make("tr", {},
      columnHead("Function", 0), columnHead("Own", 1), make("th", { class: "optional", scope: "col" }, "instructions"),
      columnHead("Total", 2), make("th", { class: "optional", scope: "col" }, "instructions"), columnHead("Calls", 3, "optional"))),
    make("tbody", {}, ...shown.flatMap(functionRow)));
  place.replaceChildren(make("div", { class: "scroll" }, table));
  if (shown.length < found.length) {
    const more = make("button", { type: "button", class: "more" }, `Show ${Math.min(ROWS_MORE, found.length - shown.length)} more of ${exact(found.length - shown.length)}`);
    more.addEventListener("click", () => {
      functionTable.rows += ROWS_MORE;
      showFunctions();
    });
    place.append(more);
  } else if (data.headline.functions > data.functions.length && !searched.text) {
    place.append(make("p", { class: "note more" }, `${exact(data.headline.functions - data.functions.length)} others took less.`));
  }
};

const bars = (rows, tint, narrow = false) => {
  const most = Math.max(1, ...rows.map(([, count]) => count));
  return make("ul", { class: narrow ? "bars narrow" : "bars" }, ...rows.map(([label, count, text]) =>
    make("li", {}, make("span", {}, label), make("i", { "--share": ((100 * count) / most).toFixed(2), "--tint": `var(--${tint})`, "aria-hidden": "true" }), make("span", {}, ...text))));
};

const showMix = () => {
  const all = data.mix.reduce((sum, [, count]) => sum + count, 0);
  if (!all) {
    byId("mix-bars").append(make("p", { class: "empty" }, "Nothing was executed."));
    return;
  }
  byId("mix-bars").append(bars(data.mix.map(([name, count]) =>
    [name, count, [`${percent(count, all)} `, make("small", {}, short(count))]]), "kernel"));
};

const quantiles = (summary) => make("ul", { class: "quantiles" }, ...[
  ["least", summary.min], ["median", summary.median], ["90 %", summary.p90], ["99 %", summary.p99], ["most", summary.max], ["mean", summary.mean],
].map(([label, value]) => make("li", {}, `${label} `, make("b", {}, exact(value)))));

const histogram = (title, note, summary, tint) => {
  const section = make("div", {}, make("h3", {}, title), make("p", { class: "note" }, note));
  if (!summary.count) {
    section.append(make("p", { class: "empty" }, "None was seen."));
    return section;
  }
  const rows = summary.bars.map(([from, to, count]) =>
    [from === to ? exact(from) : `${exact(from)}–${exact(to)}`, count, [exact(count)]]);
  section.append(quantiles(summary), bars(rows, tint, true));
  return section;
};

const plainTable = (caption, heads, rows) => make("div", { class: "scroll" }, make("table", {},
  make("caption", { class: "hidden" }, caption),
  make("thead", {}, make("tr", {}, ...heads.map(([head, classes]) => make("th", { scope: "col", class: classes ?? "" }, head)))),
  make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell, at) =>
    make("td", { class: at === 0 ? "name" : heads[at][1] ?? "" }, cell)))))));

const showInterrupts = () => {
  const { cost, latency, handlers, total } = data.interrupts;
  const body = byId("interrupts-body");
  if (cost.count && !total) {
    body.append(make("p", { class: "note" }, `${plural(cost.count, "interrupt")} came. Their handlers ran freely and are not in the recording: --irq into records them.`));
    return;
  }
  if (!cost.count) {
    const hint = data.recording.irq === "into" ? "" : " Handlers are recorded with --irq into.";
    body.append(make("p", { class: "empty" }, `No interrupt was recorded.${hint}`));
    return;
  }
  body.append(
    make("p", { class: "note" }, `${plural(cost.count, "interrupt")} took ${exact(total)} instructions, ${percent(total, data.headline.instructions)} of all.`),
    make("div", { class: "columns" },
      histogram("Cost of a handler", "Instructions from the entry to the return.", cost, "interrupt"),
      histogram("Latency", "Instructions from the entry until the guest read which interrupt it was (ICC_IAR1_EL1).", latency, "interrupt")),
    make("h3", {}, "Handlers"),
    plainTable("Interrupt handlers", [["Handler"], ["Times"], ["Median"], ["99 %", "optional"], ["Most", "optional"], ["Instructions"]],
      handlers.map(({ name, count, median, p99, max, total: sum }) => [name, exact(count), exact(median), exact(p99), exact(max), exact(sum)])));
};

// Recordings tell tasks only where they were asked for (trace --tasks, --pid, --comm, --follow).
const showTasks = () => {
  if (!data.tasks.length) return;
  byId("tasks").hidden = false;
  byId("tasks-body").append(plainTable("Tasks",
    [["Task"], ["PID"], ["Process", "optional"], ["Instructions"], ["", "optional"], ["In its program"], ["Scheduled", "optional"]],
    data.tasks.map(([pid, tgid, name, instructions, user, times]) =>
      [name, String(pid), String(tgid), exact(instructions), percent(instructions, data.headline.instructions), exact(user), plural(times, "time")])));
};

const showTurns = (body) => {
  const { times, instructions, sites, list } = data.turns;
  body.append(make("h3", {}, "Waiting for other vCPUs"));
  if (!times) {
    body.append(make("p", { class: "empty" }, "No vCPU had to wait until others had moved."));
    return;
  }
  body.append(
    make("p", { class: "note" }, `${plural(times, "time")} the stepped vCPU made no progress, and the others had turns: ${plural(instructions, "instruction")} of theirs, which are not in the recording.`),
    plainTable("Places where a vCPU waited for others", [["Place"], ["Waited for"], ["Times"], ["Instructions of others", "optional"]],
      list.slice(0, ROWS_AT_FIRST).map(([place, why, count, others]) => [place, WAITED_FOR[why], exact(count), exact(others)])));
  if (sites > ROWS_AT_FIRST) body.append(make("p", { class: "note more" }, `${exact(sites - ROWS_AT_FIRST)} other places.`));
};

const showLocks = () => {
  const { exclusives, locks, headline } = data;
  const body = byId("locks-body");
  body.append(make("h3", {}, "Waiting for locks"));
  if (locks.cost.count) {
    body.append(make("p", { class: "note" }, `${plural(locks.cost.count, "wait")} took ${exact(locks.total)} instructions, ${percent(locks.total, headline.instructions)} of all.`),
      histogram("Length of a wait", "Instructions from entering the slow path to leaving it.", locks.cost, "lock"));
  } else {
    body.append(make("p", { class: "empty" }, "No vCPU waited for a lock: no slow path of a lock was entered."));
  }
  showTurns(body);
  body.append(make("h3", {}, "Exclusives"));
  if (!exclusives.stores && !exclusives.loads) {
    body.append(make("p", { class: "empty" }, "No load- or store-exclusive was executed. CPUs with FEAT_LSE use atomics instead."));
    return;
  }
  const known = exclusives.stores - exclusives.unknown;
  const unknown = exclusives.unknown ? ` Of ${exact(exclusives.unknown)} more the result is not known.` : "";
  body.append(
    make("p", { class: "note" }, `${plural(exclusives.loads, "load-exclusive")}, ${plural(exclusives.stores, "store-exclusive")}. Of ${exact(known)} store-exclusives ${exact(exclusives.failed)} failed (${percent(exclusives.failed, known)}).${unknown}`),
    plainTable("Store-exclusives", [["Store-exclusive"], ["Attempts"], ["Failed"], ["", "optional"]],
      exclusives.list.slice(0, ROWS_AT_FIRST).map(([place, attempts, failed]) =>
        [place, exact(attempts), failed < 0 ? "unknown" : exact(failed), failed > 0 ? percent(failed, attempts) : ""])));
  if (exclusives.sites > ROWS_AT_FIRST) body.append(make("p", { class: "note more" }, `${exact(exclusives.sites - ROWS_AT_FIRST)} other places.`));
};
