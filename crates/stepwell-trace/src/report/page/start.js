// Puts everything on the page, and joins search and colours to it.
const THEME = "stepwell-theme";

// A page from file:// may not be allowed to remember anything.
const remembered = () => { try { return localStorage.getItem(THEME); } catch { return null; } };
const remember = (theme) => { try { localStorage.setItem(THEME, theme); } catch { /* then not */ } };

const setTheme = (theme) => {
  document.documentElement.dataset.theme = theme;
  byId("theme").setAttribute("aria-pressed", String(theme === "dark"));
  onTheme.forEach((listener) => listener());
};

const startTheme = () => {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  setTheme(remembered() ?? (system.matches ? "dark" : "light"));
  system.addEventListener("change", () => { if (!remembered()) setTheme(system.matches ? "dark" : "light"); });
  byId("theme").addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    remember(theme);
    setTheme(theme);
  });
};

const tellSearch = () => {
  const found = searched.text ? new Set(names.filter(matches)).size : 0;
  byId("search-status").textContent = searched.text
    ? `${plural(found, "function")}, ${percent(searchedInstructions(), data.headline.instructions)}`
    : "";
};

const startSearch = () => {
  let waiting = 0;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    const { value } = event.target;
    waiting = setTimeout(() => search(value), 80);
  });
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    search(byId("search").value);
    byId("flame").scrollIntoView();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement;
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      byId("search").focus();
    } else if (event.key === "Escape" && typing) search("");
  });
  onSearch.push(tellSearch, showFunctions);
};

startTheme();
showHeadline();
startTimeline();
startFlame();
showFunctions();
showTasks();
showMix();
showInterrupts();
showLocks();
startSearch();
document.documentElement.dataset.ready = "true";
