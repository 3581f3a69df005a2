// Keys of every page: numbers go to pages, j/k and arrows move in a grid, ? lists them.
(() => {
  const typing = (target) =>
    target.closest("input, textarea, select, [contenteditable=true], .cm-editor, .q-menu");
  const tiles = () => [...document.querySelectorAll("a.tile")];
  const columns = (all) => {
    const top = all[0].getBoundingClientRect().top;
    return Math.max(1, all.filter((t) => t.getBoundingClientRect().top === top).length);
  };
  const move = (step) => {
    const all = tiles();
    if (!all.length) return false;
    const at = all.indexOf(document.activeElement);
    const to = at < 0 ? 0 : Math.min(Math.max(at + step(all), 0), all.length - 1);
    all[to].focus({ preventScroll: false });
    return true;
  };
  const follow = (selector) => {
    const found = document.querySelector(selector);
    if (found) found.click();
    return Boolean(found);
  };
  const steps = {
    ArrowRight: () => 1,
    ArrowLeft: () => -1,
    j: (all) => columns(all),
    k: (all) => -columns(all),
    ArrowDown: (all) => columns(all),
    ArrowUp: (all) => -columns(all),
  };
  const previous = new Set(["k", "ArrowLeft", "p", "["]);
  const next = new Set(["j", "ArrowRight", "n", "]"]);

  const themes = ["auto", "light", "dark"];
  const theme = () => document.body.dataset.theme || "auto";
  const paint = () => {
    const button = document.getElementById("theme");
    const says = `theme: ${theme()}`;
    if (button && button.textContent !== says) button.textContent = says;
  };
  const turn = () => {
    const name = themes[(themes.indexOf(theme()) + 1) % themes.length];
    document.cookie = `plstore-theme=${name}; path=/; max-age=31536000; samesite=lax`;
    document.body.dataset.theme = name;
    Quasar.Dark.set(name === "auto" ? "auto" : name === "dark");
    paint();
  };
  const help = () => {
    const old = document.getElementById("key-help");
    if (old) return old.remove();
    const box = document.createElement("div");
    box.id = "key-help";
    box.innerHTML =
      "<h2>Keys</h2><dl><dt>1 – 8</dt><dd>pages</dd><dt>j k, arrows</dt><dd>move in a grid, or " +
      "to the next image</dd><dt>Enter</dt><dd>open</dd><dt>n p</dt><dd>next and previous page" +
      "</dd><dt>g</dt><dd>back to the grid</dd><dt>d</dt><dd>light, dark, as the system</dd>" +
      "<dt>r</dt><dd>look at the newest version</dd>" +
      "<dt>a x c u</dt><dd>in a review: accept, exclude, correct, undo</dd><dt>space</dt><dd>in " +
      "a review: select several</dd><dt>?</dt><dd>this</dd></dl>";
    box.addEventListener("click", () => box.remove());
    document.body.append(box);
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    const key = event.key;
    const review = document.querySelector(".review-desk");
    if (review && window.reviewKey && window.reviewKey(key)) return event.preventDefault();
    let done = false;
    if (key === "?") done = help() || true;
    else if (key === "d") done = turn() || true;
    else if (key === "r") done = follow("#refresh");
    else if (key === "Escape") document.getElementById("key-help")?.remove();
    else if (/^[1-8]$/.test(key)) done = follow(`a[data-key="${key}"]`);
    else if (key === "g") done = follow("a.to-grid");
    else if (steps[key] && tiles().length && !document.querySelector("a.step-next, a.step-back"))
      done = move(steps[key]);
    if (!done && next.has(key)) done = follow("a.step-next") || follow(".page-next");
    if (!done && previous.has(key)) done = follow("a.step-back") || follow(".page-back");
    if (done) event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("#theme")) turn();
    if (event.target.closest("#keys")) help();
    const copied = event.target.closest("[data-copy]");
    if (copied) navigator.clipboard?.writeText(copied.dataset.copy);
  });
  new MutationObserver(paint).observe(document.documentElement, {
    childList: true,
    subtree: true,
  });
})();
