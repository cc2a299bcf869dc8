// What moves: countdowns, and parts of a page that are fetched anew. Everything is readable without it.
(() => {
  "use strict";
  const clocks = document.querySelectorAll("[data-left]");
  if (clocks.length) {
    const begun = Date.now();
    setInterval(() => {
      const gone = Math.floor((Date.now() - begun) / 1000);
      for (const clock of clocks) clock.textContent = Math.max(0, Number(clock.dataset.left) - gone);
    }, 1000);
  }
  const box = document.getElementById("live");
  if (!box) return;
  box.closest("[hidden]")?.removeAttribute("hidden");
  const body = () => document.querySelector("tbody[data-live]");
  const refresh = async () => {
    if (!box.checked || document.hidden) return;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", signal: AbortSignal.timeout(8000) });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("tbody[data-live]");
      if (!fresh || !box.checked || body().contains(document.activeElement)) return;
      const known = new Set([...body().rows].map((row) => row.id));
      for (const row of fresh.rows) if (!known.has(row.id)) row.classList.add("fresh");
      body().replaceWith(fresh);
    } catch { /* The next turn tries again. */ }
  };
  const turn = async () => { await refresh(); setTimeout(turn, 2000); };
  turn();
})();
