// The page works without this; with it, what is shown follows what happens.
"use strict";

(() => {
  // Only what has changed is touched: focus, selection and open details stay.
  const follow = (now, fresh) => {
    const have = [...now.childNodes];
    const want = [...fresh.childNodes];
    want.forEach((next, at) => {
      const old = have[at];
      if (!old) {
        now.append(next);
      } else if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName) {
        old.replaceWith(next);
      } else if (next.nodeType === Node.ELEMENT_NODE) {
        for (const { name } of [...old.attributes]) {
          if (!next.hasAttribute(name) && name !== "open") old.removeAttribute(name);
        }
        for (const { name, value } of next.attributes) {
          if (old.getAttribute(name) !== value && name !== "open") old.setAttribute(name, value);
        }
        follow(old, next);
      } else if (old.data !== next.data) {
        old.data = next.data;
      }
    });
    have.slice(want.length).forEach((old) => old.remove());
  };

  const live = document.getElementById("live");
  const state = document.getElementById("live-state");
  const say = (text, mark) => {
    if (state.textContent !== text) state.textContent = text;
    state.className = `live ${mark}`;
  };
  if (live && window.EventSource) {
    const source = new EventSource(live.dataset.source);
    source.addEventListener("fresh", (event) => {
      const fresh = document.createElement("template");
      fresh.innerHTML = JSON.parse(event.data);
      follow(live, fresh.content);
      say("live", "on");
    });
    source.addEventListener("silent", () => say("the supervisor does not answer", "off"));
    source.onerror = () => {
      const isOver = source.readyState === EventSource.CLOSED;
      say(isOver ? "not live: load the page again" : "connection lost, trying again", "off");
    };
    window.addEventListener("pagehide", () => source.close());
  }

  // One box for all of a table.
  const all = document.getElementById("all");
  if (all) {
    all.hidden = false;
    all.addEventListener("change", () => {
      document.querySelectorAll("input[name=id]").forEach((box) => { box.checked = all.checked; });
    });
  }
})();
