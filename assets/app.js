// Keeps the page fresh. Without this script the page still works: reload it.
//
// The event stream says that there is a new snapshot; the five regions then fetch themselves (htmx). While
// the stream is down they are fetched every 5 seconds; while the tab is hidden, not at all.
"use strict";

(() => {
  const FALLBACK_MS = 5000;
  let stream = null;
  let fallback = null;
  let lost = false;
  // The snapshot this page was drawn from; the stream names it first.
  let shown = document.body.dataset.version;

  const refresh = () => window.htmx && window.htmx.trigger(document.body, "refreshed");

  const say = (text) => {
    const line = document.getElementById("link");
    line.textContent = text;
    line.hidden = !text;
  };

  const connected = (yes) => {
    say(yes ? "" : "connection lost; trying again every 5 seconds");
    if (yes) {
      clearInterval(fallback);
      fallback = null;
    } else if (!fallback && !document.hidden) {
      fallback = setInterval(refresh, FALLBACK_MS);
    }
  };

  const stop = () => {
    if (stream) stream.close();
    stream = null;
    clearInterval(fallback);
    fallback = null;
  };

  const start = () => {
    stop();
    stream = new EventSource("/api/v1/events");
    stream.addEventListener("open", () => {
      connected(true);
      // Another process may have started meanwhile, and count from one again.
      if (lost) refresh();
      lost = false;
    });
    stream.addEventListener("snapshot", (event) => {
      const drawn = event.lastEventId === shown;
      shown = null;
      if (!drawn) refresh();
    });
    stream.addEventListener("error", () => {
      lost = true;
      connected(false);
      // A refused stream is not retried by the browser.
      if (stream && stream.readyState === EventSource.CLOSED) {
        const closed = stream;
        setTimeout(() => {
          if (stream === closed && !document.hidden) start();
        }, FALLBACK_MS);
      }
    });
  };

  // A browser gives a host six connections; hidden tabs give theirs back.
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : start()));
  window.addEventListener("pagehide", stop);
  window.addEventListener("pageshow", (event) => event.persisted && start());

  // Enter sends, Shift+Enter breaks the line, and an input method's Enter belongs to it.
  document.addEventListener("keydown", (event) => {
    const field = event.target;
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    if (!(field instanceof HTMLTextAreaElement) || !("enterSubmits" in field.dataset)) return;
    event.preventDefault();
    if (field.form && field.value.trim()) field.form.requestSubmit();
  });

  // Instants stand in the page in UTC; people read their own clock.
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
  // `18 s`, `2 min`, `1 h 5 min`
  const span = (ms) => {
    const seconds = Math.max(0, Math.floor(ms / 1000));
    if (seconds < 60) return seconds + " s";
    const minutes = Math.floor(seconds / 60);
    return minutes < 60 ? minutes + " min" : Math.floor(minutes / 60) + " h " + (minutes % 60) + " min";
  };
  const localise = (root) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const today = at.toDateString() === new Date().toDateString();
      const lasts = "for" in time.dataset ? ", for " + span(Date.now() - at) : "";
      const text = (today ? clock.format(at) : day.format(at) + " " + clock.format(at)) + lasts;
      if (time.textContent !== text) time.textContent = text;
      time.title = time.dateTime;
    }
  };
  // The tab says it too when something needs a human.
  const name = document.title;
  const draw = () => {
    localise(document);
    const badge = document.querySelector(".badge");
    document.title = (badge && badge.classList.contains("attention") ? "(!) " : "") + name;
  };
  // Why something was not taken stands where it is seen, until the next try: the inbox is drawn again at any moment.
  const refused = (text) => {
    const line = document.getElementById("refused");
    line.textContent = text;
    line.hidden = !text;
  };
  const changes = (event) => event.detail.ctx.request.method.toUpperCase() !== "GET";
  document.addEventListener("htmx:before:request", (event) => {
    if (changes(event)) refused("");
  });
  document.addEventListener("htmx:after:swap", () => {
    const error = document.querySelector("#attention > .steering-error");
    if (error) {
      refused(error.textContent);
      error.remove();
    }
    draw();
  });

  // A refused request changes nothing on the page; logged out, the page says how to log in.
  document.addEventListener("htmx:response:error", (event) => {
    const { response, text } = event.detail.ctx;
    if (response.status === 401) return location.reload();
    let message = "symphony answered " + response.status;
    try {
      message = JSON.parse(text).error.message;
    } catch {
      // Not the envelope: the status is all there is to say.
    }
    changes(event) ? refused(message) : say(message);
  });

  document.addEventListener("htmx:error", (event) => {
    if (event.detail.ctx && changes(event)) refused("symphony did not answer; look before you send it again");
  });

  // What a person types, and what became of it, is not drawn again below them. What a person opened stays open when the region is drawn again, and a time that is local already is not
  // touched: a live region would be read out again for nothing.
  if (window.htmx) {
    window.htmx.registerExtension("keep", {
      htmx_before_morph_node: (element, detail) =>
        !("keep" in (element.dataset ?? {})) &&
        !(element instanceof HTMLTimeElement && element.title && element.dateTime === detail.newNode.dateTime),
      htmx_before_morph_attr: (element, detail) => !(element instanceof HTMLDetailsElement && detail.attrName === "open"),
    });
  }

  document.documentElement.classList.add("script");
  draw();
  // How long something lasts goes on while nothing else happens.
  setInterval(() => document.hidden || localise(document), 5000);
  if (!document.hidden) start();
})();
