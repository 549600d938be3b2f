// Updates the page without closing open details, and shows local times.
(() => {
  "use strict";
  const EVERY = 10000;

  // Opens the partition that the address names.
  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const details = target && target.closest("details");
    if (details) {
      details.open = true;
      details.scrollIntoView({ block: "nearest" });
    }
  };

  // The server writes times in UTC. An instant is shown in the browser's time zone, with UTC in its tooltip; a duration has
  // the instant in its tooltip.
  const localize = () => {
    for (const time of document.querySelectorAll("time[datetime*=T]")) {
      const text = time.textContent.trim();
      const local = new Date(time.dateTime).toLocaleString([], {
        dateStyle: "medium", timeStyle: text.match(/:/g)?.length > 1 ? "medium" : "short",
      });
      if (/(Z|UTC)$/.test(text)) {
        time.title = text;
        time.textContent = local;
      } else {
        time.title = local;
      }
    }
  };

  const stale = (is) => {
    document.querySelector(".stale").hidden = !is;
    document.body.classList.toggle("is-stale", is);
  };

  const refresh = async () => {
    const selection = getSelection();
    const isTyping = document.activeElement && document.activeElement.form;
    if (document.hidden || isTyping || (selection && !selection.isCollapsed)) return;
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(EVERY) });
      if (!answer.ok) throw new Error(`${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const style = (of) => of.querySelector("link[rel=stylesheet]").getAttribute("href");
      if (style(page) !== style(document)) {
        location.reload();
        return;
      }
      const key = (details) => details.dataset.key;
      const open = new Set([...document.querySelectorAll("details[open]")].map(key));
      for (const details of page.querySelectorAll("details")) details.open = open.has(key(details));
      const link = document.activeElement && document.activeElement.getAttribute("href");
      for (const part of ["main", ".asof"]) {
        document.querySelector(part).replaceWith(page.querySelector(part));
      }
      document.title = page.title;
      if (link) {
        const same = document.querySelector(`main a[href="${CSS.escape(link)}"]`);
        if (same) same.focus({ preventScroll: true });
      }
      localize();
      stale(false);
    } catch {
      stale(true);
    }
  };

  reveal();
  localize();
  addEventListener("hashchange", reveal);
  document.addEventListener("visibilitychange", refresh);
  setInterval(refresh, EVERY);
})();
