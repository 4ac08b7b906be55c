// A page that refreshes itself (hx-trigger="every …") must never show a stale green: when no answer
// came for five seconds, <body class="outdated"> greys it out and the banner says since when.
"use strict";
(() => {
  const OUTDATED_AFTER_MS = 5000;
  let lastAnswer = new Date();
  const refreshed = () => document.querySelector("[hx-trigger*='every']") !== null;

  const show = () => {
    const outdated = refreshed() && new Date() - lastAnswer > OUTDATED_AFTER_MS;
    document.body.classList.toggle("outdated", outdated);
    document.querySelector("[data-last-answer]").textContent = lastAnswer.toLocaleTimeString();
  };
  document.addEventListener("htmx:after:request", (event) => {
    if (event.detail.ctx.response?.raw.ok) {
      lastAnswer = new Date();
      show();
    }
  });
  setInterval(show, 1000);
})();
