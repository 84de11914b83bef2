// What the other scripts share: the data, elements, numbers, the tip, colours.
const data = JSON.parse(document.getElementById("data").textContent);
const names = data.names;
const byId = (id) => document.getElementById(id);

// Makes an element. Text goes in as text, whatever is in it.
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (name === "class") element.className = value;
    else if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const exact = (number) => whole.format(number);
const UNITS = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

// 12,345 stays; from there on 123.4 k, 12.3 M.
const short = (number) => {
  if (number < 1e5) return exact(number);
  const [size, unit] = UNITS.find(([size]) => number >= size);
  const digits = number / size < 9.995 ? 2 : number / size < 999.5 ? 1 : 0;
  return `${(number / size).toFixed(digits)}\u202f${unit}`;
};

const percent = (part, all) => {
  if (!all) return "0\u202f%";
  const share = (100 * part) / all;
  if (share === 0) return "0\u202f%";
  if (share < 0.01) return "<\u202f0.01\u202f%";
  return `${share.toFixed(share < 1 ? 2 : 1)}\u202f%`;
};

const plural = (count, one, many = `${one}s`) => `${exact(count)} ${count === 1 ? one : many}`;

const duration = (ns) => {
  const [size, unit] = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]].find(([size]) => ns >= size) ?? [1, "ns"];
  return `${(ns / size).toFixed(size === 1 ? 0 : 2)}\u202f${unit}`;
};

const size = (bytes) => {
  const [unit, name] = bytes >= 1e6 ? [1e6, "MB"] : bytes >= 1e3 ? [1e3, "kB"] : [1, "bytes"];
  return `${(bytes / unit).toFixed(unit === 1 ? 0 : 2)}\u202f${name}`;
};

// The tip follows the pointer and stays on the screen.
const tip = byId("tip");
const showTip = (x, y, title, ...lines) => {
  tip.replaceChildren(make("b", {}, title), ...lines.flatMap((line, at) => (at ? [make("br"), line] : [line])));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(x + 14, document.documentElement.clientWidth - width - 8);
  const top = y + 18 + height > window.innerHeight ? y - height - 12 : y + 18;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
};
const hideTip = () => { tip.hidden = true; };

// Colours are the style's; a canvas has to ask for them.
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const ACTIVITIES = [
  ["Kernel", "kernel"],
  ["User", "user"],
  ["System calls and faults", "exception"],
  ["Interrupts", "interrupt"],
  ["Lock waits", "lock"],
];

// What a vCPU waited for that made no progress alone.
const WAITED_FOR = { event: "an event (WFE)", interrupt: "an interrupt (WFI)", memory: "memory to change" };

// A name always has the same hue, between clay and straw.
const hueOf = (name) => {
  let hash = 2166136261;
  for (let at = 0; at < name.length; at += 1) hash = Math.imul(hash ^ name.charCodeAt(at), 16777619);
  return ((hash >>> 0) % 38) + 12;
};

// Those who want to know when the colours or the search change.
const onTheme = [];
const onSearch = [];
const searched = { text: "" };
const matches = (name) => searched.text !== "" && name.toLowerCase().includes(searched.text);
const search = (text) => {
  byId("search").value = text;
  searched.text = text.trim().toLowerCase();
  onSearch.forEach((listener) => listener());
};
